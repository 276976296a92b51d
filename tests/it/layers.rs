//! Holds the crates to their ranks, and every file to a length at which it is read.

use std::path::Path;
use std::process::Command;

use crate::cycles::sources;

/// What a package must not have in its tree, built in this way; each feature of the library builds alone besides.
const WITHOUT: [(&[&str], &str); 2] = [
    (&["-p", "wxtokend-core"], "tokio reqwest kameo axum redb hyper clap redis"),
    (
        &["-p", "wxtokend", "--no-default-features"],
        "axum clap tracing-subscriber metrics-exporter-prometheus redis tempfile serde_yaml flate2 wxtokend-sandbox",
    ),
];
/// The folders of src/ from below: what stands in the same row or above must not be named.
const RANKS: [&[&str]; 4] = [&["certificates"], &["config", "store", "wechat"], &["fleet"], &["daemon"]];
const TESTS: [&str; 5] = ["tests", "properties.rs", "simulation.rs", "memory.rs", "crash.rs"];
const LONGEST_FILE: usize = 350;
const SAY_NOTHING: [&str; 7] = ["common", "helper", "helpers", "manager", "misc", "util", "utils"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of `folder` but for those of tests: each one's path, and its text before its tests.
fn program(folder: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    let text = |path: &Path| {
        std::fs::read_to_string(path).unwrap().split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
    };
    let files = sources(&folder).into_iter().map(|path| (name(&path), text(&path)));
    files.filter(|(name, _)| !TESTS.iter().any(|tests| name.contains(tests))).collect()
}

#[test]
fn each_crate_is_built_without_what_it_has_no_need_of() {
    for (way, absent) in WITHOUT {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).args(way).current_dir(root());
        let told = String::from_utf8(tree.output().unwrap().stdout).unwrap();
        let packages: Vec<_> = told.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(packages.contains(&"serde"), "cargo tree {way:?}: {told}");
        for name in absent.split(' ') {
            assert!(!packages.contains(&name), "{way:?} has {name}");
        }
    }
}

#[test]
fn nothing_names_what_stands_beside_or_above_it() {
    let rank = |name: &str| RANKS.iter().position(|row| row.contains(&name));
    for (name, text) in program("src") {
        let own = name.split(['/', '.']).next().unwrap();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for named in line.split("crate::").skip(1) {
                let named = named.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                let is_below =
                    named == own || rank(own).is_none() || rank(named).is_none_or(|it| Some(it) < rank(own));
                assert!(is_below, "src/{name}:{}: {own} must not name {named}", index + 1);
            }
        }
    }
}

#[test]
fn no_file_is_long_or_has_a_name_that_says_nothing() {
    for (name, text) in
        ["src", "crates/core/src", "crates/sandbox/src", "xtask/src"].into_iter().flat_map(program)
    {
        assert!(text.lines().count() <= LONGEST_FILE, "{name} is long");
        assert!(
            !name.split(['/', '.']).any(|part| SAY_NOTHING.contains(&part)),
            "{name}: name it after what it defines"
        );
    }
}
