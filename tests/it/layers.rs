//! Holds the crates and the folders of src/ to their ranks, and every file to a length at which it is read.

use std::path::Path;
use std::process::Command;

use crate::cycles::sources;

/// What a package must not have in its tree, built in this way.
const WITHOUT: [(&str, &str); 3] = [
    ("-p wxtokend-core", "tokio reqwest kameo axum redb hyper clap redis"),
    ("-p wxtokend-sandbox", "wxtokend reqwest kameo redb clap redis"),
    (
        "-p wxtokend --no-default-features",
        "axum clap tracing-subscriber metrics-exporter-prometheus redis tempfile serde_yaml wxtokend-sandbox",
    ),
];
/// The folders of src/ from below: what stands in the same row or above must not be named.
const RANKS: &str =
    "certificates|config store wechat|fleet/cells|fleet/journal fleet/publish|fleet/actor|fleet/api|daemon";
/// What is for tests, or for tools that see everything.
const APART: [&str; 6] =
    ["tests", "properties.rs", "decide/simulation.rs", "memory.rs", "for_tests.rs", "internals.rs"];
const LONGEST_FILE: usize = 350;
const SAY_NOTHING: [&str; 7] = ["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// The files of `folder` but for those apart: each one's path, and its text before its tests.
fn program(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    let before = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let files = sources(&folder).into_iter();
    let files = files.map(|path| (name(&path), before(std::fs::read_to_string(&path).unwrap())));
    files.filter(|(name, _)| !APART.iter().any(|apart| name.contains(apart))).collect()
}

#[test]
fn each_crate_is_built_without_what_it_has_no_need_of() {
    for (way, absent) in WITHOUT {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).args(way.split(' '));
        let told = String::from_utf8(tree.output().unwrap().stdout).unwrap();
        let packages: Vec<_> = told.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(packages.contains(&"serde"), "cargo tree {way}: {told}");
        assert!(!absent.split(' ').any(|name| packages.contains(&name)), "{way}, without {absent}: {told}");
    }
}

#[test]
fn nothing_names_what_stands_beside_or_above_it() {
    let of = |path: &str| RANKS.split(['|', ' ']).find(|it| path.starts_with(it));
    let rank = |folder: &str| RANKS.split('|').position(|row| row.split(' ').any(|it| it == folder)).unwrap();
    for (name, text) in program("src") {
        let Some(own) = of(&name) else { continue };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            assert!(!line.contains("crate::{"), "src/{name}:{}: one `use` for each module", index + 1);
            for named in line.split("crate::").skip(1).filter_map(|rest| of(&rest.replace("::", "/"))) {
                let is_below = named == own || rank(named) < rank(own);
                assert!(is_below, "src/{name}:{}: {own} must not name {named}", index + 1);
            }
        }
    }
}

#[test]
fn no_file_is_long_or_has_a_name_that_says_nothing() {
    for (name, text) in ["src", "crates/core/src", "crates/sandbox/src"].into_iter().flat_map(program) {
        assert!(text.lines().count() <= LONGEST_FILE, "{name} is long");
        assert!(
            !name.split(['/', '.']).any(|part| SAY_NOTHING.contains(&part)),
            "{name}: say what it defines"
        );
    }
}
