//! Words that the project has agreed not to use.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that the project once had of its own, or that no maintainer would use, in lower case; a phrase has blanks.
const BANNED: [&str; 30] = [
    "alone is ill",
    "climate",
    "condemn",
    "condemned",
    "hitherto",
    "in the stead of",
    "look after",
    "looked after",
    "looks after",
    "mend",
    "mended",
    "mending",
    "mends",
    "none but",
    "pardon",
    "pardoned",
    "purse",
    "purses",
    "reckon",
    "reckoned",
    "reckons",
    "rehearsal",
    "surroundings",
    "teller",
    "tidily",
    "touchdown",
    "turnstile",
    "untold",
    "wary",
    "weather",
];

/// The text as words in lower case, a blank between each two; names are taken apart, `snake_case` and `CamelCase` alike.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut before = ' ';
    for letter in text.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        match letter.is_alphanumeric() {
            true => words.extend(letter.to_lowercase()),
            false if words.ends_with(' ') => {}
            false => words.push(' '),
        }
        before = letter;
    }
    words
}

/// The banned words and phrases that a text has in it.
fn banned(text: &str) -> Vec<&'static str> {
    let words = format!(" {} ", words(text));
    BANNED.into_iter().filter(|word| words.contains(&format!(" {word} "))).collect()
}

fn texts_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            texts_below(&path, found);
        } else if matches!(extension, Some("rs" | "md" | "yaml" | "toml" | "js" | "html" | "patch")) {
            found.push(path);
        }
    }
}

#[test]
fn no_text_has_a_word_that_only_we_would_use() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
            .map(|name| root.join(name))
            .into();
    for folder in ["src", "crates", "docs", "grafana", "mutations", "xtask/src"] {
        texts_below(&root.join(folder), &mut texts);
    }
    assert!(texts.len() > 300);
    let found: Vec<_> = texts
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().enumerate().map(|(index, line)| (index + 1, banned(line)));
            lines
                .filter(|(_, words)| !words.is_empty())
                .map(|(line, words)| format!("{}:{line}: {}", path.display(), words.join(", ")))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_banned_word_is_found_in_prose_and_in_names_and_not_within_others() {
    assert_eq!(banned("it is mended."), ["mended"]);
    assert_eq!(banned("fn is_purse_empty()"), ["purse"]);
    assert_eq!(banned("struct EventTeller;"), ["teller"]);
    assert_eq!(banned("a token that is Looked  after"), ["looked after"]);
    assert!(banned("recommended, amended; storytellers").is_empty());
}
