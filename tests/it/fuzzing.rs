//! Replays inputs that were kept from fuzzing: the same targets, without the fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use wxtokend_fuzz_targets as targets;

/// Runs `target` on every kept input: seeds are hand-written, the corpus was found for the code that it
/// reaches, and regressions once failed.
fn replay(target: &str, run: fn(&[u8])) {
    let kept = |kind: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
        inputs(&folder)
    };
    let (seeds, corpus, regressions) = (kept("seeds"), kept("corpus"), kept("regressions"));
    assert!(seeds.len() >= 10 && corpus.len() >= 10, "fuzz/seeds or fuzz/corpus lacks most of {target}");
    let fails =
        |(name, bytes): &(String, Vec<u8>)| catch_unwind(|| run(bytes)).is_err().then(|| name.clone());
    let failed: Vec<String> = seeds.iter().chain(&corpus).chain(&regressions).filter_map(fails).collect();
    assert!(failed.is_empty(), "what must hold does not, on these inputs of fuzz/*/{target}: {failed:#?}");
}

/// The files of a folder with their names; empty if there is no such folder.
fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let read = |path: &Path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap());
    files.map(|file| read(&file.unwrap().path())).collect()
}

#[test]
fn whatever_wechat_answers_no_token_comes_out_of_nothing_and_no_secret_is_shown() {
    replay("wechat_answer", targets::wechat_answer::run);
}

#[test]
fn whatever_stands_in_accounts_yaml_is_refused_with_its_place_or_keeps_the_rules() {
    replay("accounts_yaml", targets::accounts_yaml::run);
}

#[test]
fn whatever_a_client_sends_is_answered_in_the_words_of_the_contract() {
    replay("http_request", targets::http_request::run);
}

#[test]
fn whatever_is_passed_on_has_one_meaning_and_whatever_comes_back_is_read_as_json_is() {
    replay("passed_on", targets::passed_on::run);
}

#[test]
fn whatever_a_record_says_nothing_is_served_beyond_it() {
    replay("store_record", targets::store_record::run);
}

#[test]
fn whatever_the_stores_file_holds_it_works_or_is_left_as_it_is() {
    replay("store_file", targets::store_file::run);
}
