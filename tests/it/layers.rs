//! Checks that crates and folders of src/ import only what ranks below them, and that files are short enough
//! to read.

use std::path::Path;
use std::process::Command;

use crate::cycles::sources;

/// Packages that must be absent from the dependency tree of a build without these features.
const WITHOUT: [(&str, &str); 3] = [
    ("-p wxtokend-core", "tokio reqwest kameo axum redb hyper clap redis"),
    ("-p wxtokend-sandbox", "wxtokend reqwest kameo redb clap redis"),
    (
        "-p wxtokend --no-default-features",
        "axum clap tracing-subscriber metrics-exporter-prometheus redis tempfile serde_yaml \
         unicode-width wxtokend-sandbox",
    ),
];
/// The folders of src/ from the bottom up. A folder must not name one in the same row or above.
const RANKS: &str =
    "certificates|config store wechat|fleet/cells|fleet/journal fleet/publish|fleet/actor|fleet/api|daemon";
/// Code for tests, or for tools that may see everything.
const EXCLUDED: [&str; 5] = ["tests", "properties.rs", "memory.rs", "for_tests.rs", "internals.rs"];
const MAX_FILE_LINES: usize = 350;
const VAGUE_NAMES: [&str; 7] = ["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// The program files in `folder`: paths, and texts without their tests.
fn program(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    let before = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let files = sources(&folder).into_iter();
    let files = files.map(|path| (name(&path), before(std::fs::read_to_string(&path).unwrap())));
    files.filter(|(name, _)| !EXCLUDED.iter().any(|excluded| name.contains(excluded))).collect()
}

#[test]
fn each_crate_is_built_without_dependencies_that_it_must_not_have() {
    for (way, absent) in WITHOUT {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).args(way.split(' '));
        let output = String::from_utf8(tree.output().unwrap().stdout).unwrap();
        let packages: Vec<_> = output.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(packages.contains(&"serde"), "cargo tree {way}: {output}");
        assert!(!absent.split(' ').any(|name| packages.contains(&name)), "{way}, without {absent}: {output}");
    }
}

#[test]
fn no_module_uses_one_of_equal_or_higher_rank() {
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
        assert!(text.lines().count() <= MAX_FILE_LINES, "{name} is long");
        assert!(
            !name.split(['/', '.']).any(|part| VAGUE_NAMES.contains(&part)),
            "{name}: say what it defines"
        );
    }
}
