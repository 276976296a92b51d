//! Holds src/ to its shape: who may import whom, and what has one place only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imports nothing but itself: plain data and decisions.
const CORE: [&str; 14] = [
    "account",
    "budget",
    "clock",
    "fault",
    "jssdk",
    "layout",
    "outcome",
    "policy",
    "rejection",
    "schedule",
    "secret",
    "state",
    "ticket",
    "token",
];
/// One outside thing each; they import the core and themselves.
const ADAPTERS: [&str; 5] = ["certificates", "config", "publish", "store", "wechat"];
/// Those that speak TLS; they import the certificates besides.
const WITH_TLS: [&str; 2] = ["publish", "wechat"];
/// What the edge may import besides. The sandbox is no client of ours: it may know the core alone.
const EDGE: [(&str, &[&str]); 4] = [
    ("cli", &["config", "store", "wechat", "fleet", "http", "sandbox", "telemetry"]),
    ("http", &["config", "fleet", "telemetry"]),
    ("sandbox", &[]),
    // The panic hook asks the store whether a panic is a damaged file's.
    ("telemetry", &["config", "fleet", "store"]),
];

/// What may be named in few places only, and the beginnings of their paths.
const PLACES: [(&str, &[&str]); 13] = [
    ("SystemTime", &["clock.rs"]),
    ("UNIX_EPOCH", &["clock.rs"]),
    ("Timestamp::now", &["clock.rs"]),
    ("Zoned::now", &["clock.rs"]),
    ("clock_gettime", &["clock.rs"]),
    ("serde_yaml::", &["config/file.rs"]),
    ("governor::", &["budget.rs"]),
    ("kameo::", &["fleet/"]),
    ("redb::", &["store/"]),
    ("redis::", &["publish/"]),
    ("axum::", &["http/", "sandbox/"]),
    ("hyper::", &["http/", "sandbox/"]),
    ("clap::", &["cli/", "telemetry/logging.rs"]),
];
/// I/O and runtime, of which the core is free; `clock.rs` reads the name of the boot.
const OUTSIDE: [&str; 5] = ["tokio::", "reqwest::", "std::fs", "std::process", "std::thread"];

const LONGEST_FILE: usize = 350;
const NAMES_THAT_SAY_NOTHING: [&str; 8] =
    ["common", "helper", "helpers", "manager", "misc", "util", "utilities", "utils"];

/// A file of src/: its path from there, and its text.
pub(crate) type Sources = BTreeMap<String, String>;

/// What `layer` may import.
fn importable(layer: &str) -> Option<BTreeSet<&'static str>> {
    let with = |more: &[&'static str]| CORE.iter().chain(more).copied().collect::<BTreeSet<_>>();
    if let Some(core) = CORE.iter().find(|core| **core == layer) {
        return Some(with(&[core]));
    }
    if let Some(adapter) = ADAPTERS.iter().find(|adapter| **adapter == layer) {
        let known_by: &[_] = if WITH_TLS.contains(adapter) { &["certificates"] } else { &[] };
        return Some(&with(&[adapter]) | &known_by.iter().copied().collect());
    }
    if layer == "fleet" {
        return Some(&with(&ADAPTERS) | &BTreeSet::from(["fleet"]));
    }
    let (edge, more) = EDGE.iter().find(|(edge, _)| *edge == layer)?;
    Some(&with(more) | &BTreeSet::from([*edge]))
}

/// Whether a line stands in something that is compiled for tests only.
enum TestItem {
    No,
    Begins,
    GoesOn,
}

/// Lines with their numbers, without comments and without what is compiled for tests only.
pub(crate) fn program(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut test_item = TestItem::No;
    for (index, line) in text.lines().enumerate() {
        test_item = match test_item {
            TestItem::No if line == "#[cfg(test)]" => TestItem::Begins,
            TestItem::No => {
                if !line.trim_start().starts_with("//") {
                    lines.push((index + 1, line.split(" // ").next().unwrap_or(line)));
                }
                TestItem::No
            }
            TestItem::Begins if line.starts_with("#[") || line.starts_with("///") => TestItem::Begins,
            TestItem::Begins if line.ends_with(';') || line.ends_with('}') => TestItem::No,
            // rustfmt leaves the end of an item at the margin.
            TestItem::Begins | TestItem::GoesOn if line != "}" => TestItem::GoesOn,
            TestItem::Begins | TestItem::GoesOn => TestItem::No,
        };
    }
    lines
}

/// Files that belong to tests: what a `#[cfg(test)] mod name;` declares, and all below.
fn is_for_tests(path: &str, sources: &Sources) -> bool {
    sources.iter().any(|(parent, text)| {
        let folder = match parent.rsplit_once('/') {
            Some((folder, "mod.rs")) => format!("{folder}/"),
            _ if matches!(parent.as_str(), "lib.rs" | "main.rs") => String::new(),
            _ => format!("{}/", parent.trim_end_matches(".rs")),
        };
        let lines: Vec<&str> = text.lines().collect();
        lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").any(|pair| {
            let name = pair[1].split_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
            name.is_some_and(|name| {
                path == format!("{folder}{name}.rs") || path.starts_with(&format!("{folder}{name}/"))
            })
        })
    })
}

/// The top-level modules that `line` of the file at `path` names by way of the crate's root.
fn imports<'a>(path: &str, line: &'a str) -> Vec<&'a str> {
    let depth = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let to_root = "super::".repeat(depth);
    let word = |rest: &'a str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
    let by_crate = line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]);
    let by_super = line
        .match_indices(&to_root)
        .filter(|(at, _)| !line[..*at].ends_with("super::"))
        .map(|(at, found)| &line[at + found.len()..]);
    // In an inline module `super` is a type's neighbour, not the root.
    let is_module = |name: &&str| !name.starts_with(|c: char| c.is_ascii_uppercase());
    by_crate.chain(by_super).filter_map(word).filter(is_module).collect()
}

/// Everything that is not as it should be, as `src/file:line: what`.
fn violations(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let layer = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if let Some(name) = path.split(['/', '.']).find(|part| NAMES_THAT_SAY_NOTHING.contains(part)) {
            found.push(format!("src/{path}:1: {name} says nothing: name it after what it defines"));
        }
        if matches!(layer, "lib" | "main") || is_for_tests(path, sources) {
            continue;
        }
        let lines = program(text);
        let length = lines.last().map_or(0, |(number, _)| *number);
        if length > LONGEST_FILE {
            found.push(format!("src/{path}:{length}: longer than {LONGEST_FILE} lines"));
        }
        let Some(allowed) = importable(layer) else {
            found.push(format!(
                "src/{path}:1: {layer} is in no layer: put it into one, here and in ARCHITECTURE.md"
            ));
            continue;
        };
        for (number, line) in lines {
            for import in imports(path, line) {
                if !allowed.contains(import) {
                    found.push(format!("src/{path}:{number}: {layer} must not import {import:?}"));
                }
            }
            for (name, places) in PLACES {
                if line.contains(name) && !places.iter().any(|place| path.starts_with(place)) {
                    found.push(format!("src/{path}:{number}: {name} belongs into {}", places.join(" or ")));
                }
            }
            let outside = OUTSIDE.iter().find(|outside| line.contains(**outside));
            if let Some(outside) = outside.filter(|_| CORE.contains(&layer) && path != "clock.rs") {
                found.push(format!("src/{path}:{number}: the core must not use {outside}"));
            }
        }
    }
    found
}

pub(crate) fn read(folder: &Path, root: &Path, into: &mut Sources) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, root, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            into.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn modules_import_upwards_only_and_everything_is_in_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources::new();
    read(&root, &root, &mut sources);
    assert!(sources.len() > 50, "src/ was not read: {sources:?}");
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_map_names_every_module() {
    let map = include_str!("../../ARCHITECTURE.md");
    let edge = EDGE.iter().map(|(edge, _)| *edge);
    for module in CORE.into_iter().chain(ADAPTERS).chain(["fleet"]).chain(edge) {
        assert!(map.contains(&format!("`{module}`")) || map.contains(&format!("`{module}/`")), "{module}");
    }
}

#[test]
fn a_violation_is_told_by_file_and_line() {
    let long = "\n".repeat(400) + "fn f() {}";
    for (path, text, told) in [
        (
            "state.rs",
            "use std::fmt;\nuse crate::store::Store;",
            "src/state.rs:2: state must not import \"store\"",
        ),
        (
            "policy/x.rs",
            "use super::super::fleet::Fleet;",
            "src/policy/x.rs:1: policy must not import \"fleet\"",
        ),
        (
            "store/mod.rs",
            "    crate::wechat::call();",
            "src/store/mod.rs:1: store must not import \"wechat\"",
        ),
        (
            "wechat/mod.rs",
            "use super::config::Config;",
            "src/wechat/mod.rs:1: wechat must not import \"config\"",
        ),
        ("fleet/mod.rs", "use crate::http::Api;", "src/fleet/mod.rs:1: fleet must not import \"http\""),
        (
            "sandbox/mod.rs",
            "use crate::config::Config;",
            "src/sandbox/mod.rs:1: sandbox must not import \"config\"",
        ),
        ("http/a.rs", "use crate::{state, cli};", "src/http/a.rs:1: http must not import \"\""),
        ("http/a.rs", "let now = Timestamp::now();", "src/http/a.rs:1: Timestamp::now belongs into clock.rs"),
        (
            "config/mod.rs",
            "serde_yaml::from_str(x)",
            "src/config/mod.rs:1: serde_yaml:: belongs into config/file.rs",
        ),
        ("policy.rs", "use tokio::time::sleep;", "src/policy.rs:1: the core must not use tokio::"),
        ("token.rs", &long, "src/token.rs:401: longer than 350 lines"),
        ("http/utils.rs", "", "src/http/utils.rs:1: utils says nothing: name it after what it defines"),
        (
            "tickets.rs",
            "",
            "src/tickets.rs:1: tickets is in no layer: put it into one, here and in ARCHITECTURE.md",
        ),
    ] {
        let sources = Sources::from([(path.to_owned(), text.to_owned())]);
        assert_eq!(violations(&sources), [told]);
    }
}

#[test]
fn tests_may_import_and_be_as_long_as_they_like() {
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::cli::x;\n}";
    let item =
        "#[cfg(test)]\n#[derive(Debug)]\nstruct Fake;\n#[cfg(test)]\nimpl Fake {\n    crate::http::x\n}\n";
    let sources = Sources::from(
        [
            ("state.rs", format!("{item}{tests}{}", "\n// x".repeat(400))),
            ("store/mod.rs", "#[cfg(test)]\npub(crate) mod memory;\n".to_owned()),
            ("store/memory.rs", "use crate::sandbox::Sandbox;".to_owned()),
            ("policy.rs", "#[cfg(test)]\nmod simulation;".to_owned()),
            ("policy/simulation.rs", "\n".repeat(600) + "use crate::sandbox::Sandbox;"),
            ("token.rs", "/// See [`crate::fleet::Fleet`].\nlet x = 1; // not crate::http".to_owned()),
        ]
        .map(|(path, text)| (path.to_owned(), text)),
    );
    assert_eq!(violations(&sources), Vec::<String>::new());
}
