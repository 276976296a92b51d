//! Checks docs/sdk against itself and the program: its index, links, settings and presets.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use wxtokend::Config;
use wxtokend_core::sdk::layout::Layout;

use crate::readme::blocks;

const ACCOUNTS: &str = "accounts:\n  - { appid: wx0123456789abcdef, secret: made-up }\n";

/// The files of docs/sdk by name.
fn pages() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sdk");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The targets of a page's links, pictures included, except links to other hosts and within the page.
pub(crate) fn links(page: &str) -> Vec<&str> {
    let code: Vec<_> = blocks(page).iter().map(|block| block.opens..=block.closes).collect();
    let prose = page.lines().enumerate().filter(|(index, _)| !code.iter().any(|lines| lines.contains(index)));
    prose
        .flat_map(|(_, line)| line.split("](").skip(1))
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://"))
        .collect()
}

#[test]
fn the_index_lists_every_page_and_no_link_leads_nowhere() {
    let pages = pages();
    let (_, table) = pages["README.md"].split_once("\n|---").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let listed: BTreeSet<_> = links(table).into_iter().collect();
    let there: BTreeSet<_> = pages.keys().map(String::as_str).filter(|name| *name != "README.md").collect();
    assert_eq!(listed, there, "docs/sdk/README.md's table lists the left, the folder has the right");
    assert!(there.len() > 10);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, page) in &pages {
        for link in links(page) {
            assert!(root.join("docs/sdk").join(link).is_file(), "docs/sdk/{name} links to {link}");
        }
    }
    let readmes = ["README.md", "README.zh-CN.md"]
        .map(|name| (name, std::fs::read_to_string(root.join(name)).unwrap()));
    for (name, readme) in &readmes {
        let links = links(readme);
        assert!(links.contains(&"docs/sdk/README.md"), "{name} has no link to docs/sdk/README.md");
        for link in links {
            assert!(root.join(link).is_file(), "{name} links to {link}");
        }
    }
}

#[test]
fn the_accounts_yaml_of_each_page_is_right() {
    // A Redis, or a key or secret, each with its own value.
    let env = |name: &str| match name.ends_with("_URL") {
        true => Some(OsString::from("redis://127.0.0.1")),
        false => Some(OsString::from(format!("a-value-of-the-environment-for-{name}"))),
    };
    let mut checked = 0;
    for (name, page) in pages() {
        for block in blocks(&page).into_iter().filter(|block| block.info == "yaml") {
            let whole = if block.text.contains("accounts:\n") { String::new() } else { ACCOUNTS.to_owned() };
            let parsed = Config::parse(&(whole + &block.text), Path::new("accounts.yaml"), env);
            let problems = parsed.err().map(|error| error.to_string());
            assert_eq!(problems, None, "docs/sdk/{name}:{}", block.opens + 1);
            checked += 1;
        }
    }
    assert!(checked > 8, "{checked}");
}

#[test]
fn each_preset_is_described_on_a_page_and_in_the_index() {
    let pages = pages();
    for preset in Layout::NAMES {
        let (word, setting) = (format!("`{preset}`"), format!("preset: {preset}"));
        let parts = |page: &str| page.split(['{', '}', ',', '\n']).any(|part| part.trim() == setting);
        let on = |page: &str| page.contains(&word) || parts(page);
        let (index, pages): (Vec<_>, Vec<_>) = pages.iter().partition(|(name, _)| *name == "README.md");
        assert!(pages.iter().any(|(_, page)| on(page)), "no page of docs/sdk tells of the preset {preset}");
        assert!(index[0].1.contains(&word), "the table of docs/sdk/README.md lacks the preset {preset}");
    }
}

#[test]
fn links_are_found_and_distinguished_from_code_and_other_hosts() {
    let page =
        "[a](a.md) ![b](b/c.png), [d](https://d.example)\n[e](#e) [f](f.md#f)\n```sh\n[g](g.md)\n```\n";
    assert_eq!(links(page), ["a.md", "b/c.png", "f.md"]);
}
