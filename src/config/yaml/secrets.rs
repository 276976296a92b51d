//! Secrets: their sources, and checks for those that cannot be right.
//!
//! An extra newline or blank easily slips in by copying, by `$(…)`, by `echo` and by YAML blocks. WeChat
//! would refuse such an AppSecret without naming the cause, and a client that sends its key without the blank
//! would not be let in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use wxtokend_core::secret::Secret;

use super::node::Node;
use super::place::Place;
use super::reader::ConfigReader;
use super::value::WITH_BRACES;
use crate::config::invisible;

/// More bytes than any secret or key has.
const MAX_SECRET_FILE: u64 = 64 * 1024;
/// A key shorter than this can be guessed.
pub(crate) const SHORT_KEY: usize = 16;
/// The length of WeChat's AppSecrets, in hex digits.
const APP_SECRET_DIGITS: usize = 32;

/// How messages name a secret that is written in the file.
const THE_VALUE: &str = "the value";

/// What a secret is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretUse {
    /// An account's AppSecret.
    AppSecret,
    /// A client's key.
    Key,
    /// A URL, which may hold a password.
    Url,
}

/// The secret in lower case. Two secrets that differ only in case are copies of each other.
pub(crate) fn in_lower_case(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_ascii_lowercase())
}

impl SecretUse {
    /// Whether `char` is not allowed in such a secret, at its ends or between them (`inside`).
    fn excludes(self, char: char, inside: bool) -> bool {
        match self {
            Self::AppSecret => !char.is_ascii_graphic(),
            // A passphrase has blanks between its words.
            Self::Key if inside => invisible::is_invisible(char) && char != ' ',
            Self::Key => invisible::is_invisible_at_end(char),
            Self::Url => invisible::is_invisible(char),
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::AppSecret => "an AppSecret has visible ASCII characters only",
            Self::Key => "a key has visible characters only, and blanks between them",
            Self::Url => "a URL has visible characters only",
        }
    }
}

impl ConfigReader<'_> {
    /// A secret that is written in the file or comes from a variable.
    pub(crate) fn secret(
        &mut self,
        place: &Place<'_>,
        node: Node<String>,
        usage: SecretUse,
    ) -> Option<Secret> {
        let value = self.secret_value(place, node)?;
        let from = value.variable().map(|name| format!("the environment variable {name}"));
        if value.text.is_empty() {
            let holds = from.map(|from| format!(": {from} holds nothing"));
            self.report(place, format!("is empty{}", holds.unwrap_or_default()));
            return None;
        }
        let inline = from.is_none();
        // Blocks with `|` and `>` end with a newline.
        let in_a_block = inline && value.text.ends_with('\n');
        let hint = if in_a_block { "; without | or > none is added" } else { "" };
        let from = from.unwrap_or_else(|| THE_VALUE.to_owned());
        let secret = self.checked_secret(place, &from, &value.text, usage, hint)?;
        // A URL without a password is not a secret.
        if inline && (usage != SecretUse::Url || secret.expose().contains('@')) {
            self.note_secret_in_text();
        }
        Some(secret)
    }

    /// A secret in a file of its own, without one trailing newline. The path is not quoted in messages: it
    /// may be the secret itself, under the wrong key.
    pub(crate) fn secret_file(
        &mut self,
        place: &Place<'_>,
        node: Node<String>,
        usage: SecretUse,
    ) -> Option<Secret> {
        let path = self.path(place, node)?;
        let content = self.read_file(place, &path)?;
        let text = content.text.as_str();
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            self.report(place, "the file is empty");
            return None;
        }
        let hint = "; one newline at the end is left out, and none beside";
        let secret = self.checked_secret(
            place,
            "the file",
            line,
            usage,
            if line.ends_with(['\n', '\r']) { hint } else { "" },
        )?;
        self.warn_if_world_accessible(place, content.mode, "the file");
        Some(secret)
    }

    /// Reads the file at `path`. After one file was not read in time no other is tried, and each of them is
    /// reported.
    fn read_file(&mut self, place: &Place<'_>, path: &Path) -> Option<super::regular_file::FileContent> {
        if let Some(other) = self.hung_place() {
            let what = format!("the file was not read, since that of {other} does not answer");
            self.report(place, what);
            return None;
        }
        match self.files().read(path, MAX_SECRET_FILE) {
            Ok(content) => Some(content),
            Err(error) => {
                if self.files().hung() {
                    self.note_hung(place);
                }
                self.report(place, format!("the file cannot be read: {error}"));
                None
            }
        }
    }

    /// Returns `text` as a secret if it has no characters that slipped in; `from` names its source.
    fn checked_secret(
        &mut self,
        place: &Place<'_>,
        from: &str,
        text: &str,
        usage: SecretUse,
        hint: &str,
    ) -> Option<Secret> {
        let is_inside = |at: usize, char: char| at > 0 && at + char.len_utf8() < text.len();
        let mut chars = text.char_indices();
        let Some((at, char)) = chars.find(|(at, char)| usage.excludes(*char, is_inside(*at, *char))) else {
            self.warn_if_weak(place, from, text, usage);
            return Some(Secret::new(text));
        };
        let rest = &text[at + char.len_utf8()..];
        let verb = match (at, rest.contains(|char| !usage.excludes(char, false))) {
            (0, _) => "begins with",
            (_, false) => "ends with",
            (_, true) => "holds",
        };
        self.report(place, format!("{from} {verb} {}; {}{hint}", invisible::name(char), usage.rule()));
        None
    }

    fn warn_if_weak(&mut self, place: &Place<'_>, from: &str, text: &str, usage: SecretUse) {
        if is_placeholder(text) {
            let hint = if from == THE_VALUE { format!("; {WITH_BRACES}") } else { String::new() };
            let what = "is used as it is, but looks like a placeholder that was never filled in";
            self.warn(place, format!("{from} {what}{hint}"));
        }
        let length = text.chars().count();
        match usage {
            SecretUse::AppSecret => {
                let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
                if length != APP_SECRET_DIGITS || !digits {
                    self.warn(place, "is not 32 hex digits, as WeChat's AppSecrets are");
                }
            }
            SecretUse::Key if length < SHORT_KEY => {
                let what = format!("has {length} characters; a key of under {SHORT_KEY} can be guessed");
                self.warn(place, what);
            }
            SecretUse::Key | SecretUse::Url => {}
        }
    }

    /// Warns of a file with secrets that every user of this machine can read or change.
    pub(crate) fn warn_if_world_accessible(&mut self, place: &Place<'_>, mode: u32, what: &str) {
        let can = match (mode & 0o004 != 0, mode & 0o002 != 0) {
            (false, false) => return,
            (true, false) => "read",
            (false, true) => "change",
            (true, true) => "read and change",
        };
        let what = format!(
            "{what} holds secrets, and every user of this machine can {can} it (mode {:04o}); chmod o= makes it private",
            mode & 0o7777
        );
        self.warn(place, what);
    }

    /// Warns of a configuration without secrets that every user of this machine can change, including its
    /// clients.
    pub(crate) fn warn_if_world_writable(&mut self, mode: u32) {
        if mode & 0o002 != 0 {
            let mode = mode & 0o7777;
            let what =
                format!("every user of this machine can change this file (mode {mode:04o}); chmod o-w");
            self.warn(&Place::TOP, what);
        }
    }
}

/// Whether `text` is or contains a placeholder that a shell or a template should have replaced. Anybody who
/// has read the template knows it.
fn is_placeholder(text: &str) -> bool {
    let holds = |open, close| text.split_once(open).is_some_and(|(_, rest): (_, &str)| rest.contains(close));
    let is_within =
        |mark| text.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark)).is_some_and(is_name);
    let in_angles = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).is_some_and(is_name);
    text.starts_with('$')
        || [("${", "}"), ("$(", ")"), ("{{", "}}")].into_iter().any(|(open, close)| holds(open, close))
        || in_angles
        || ['%', '@'].into_iter().any(is_within)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// A single visible character: a short key, but nothing worse.
const ONE_CHARACTER: &str = "a single character";

impl ConfigReader<'_> {
    /// Returns the digest of a key, unless it is one that a mistake with `sha256sum` produces.
    pub(crate) fn key_digest(&mut self, place: &Place<'_>, digest: [u8; 32]) -> Option<[u8; 32]> {
        static KNOWN: OnceLock<HashMap<[u8; 32], &'static str>> = OnceLock::new();
        match KNOWN.get_or_init(known_digests).get(&digest) {
            None => Some(digest),
            Some(&ONE_CHARACTER) => {
                let what =
                    format!("is the digest of {ONE_CHARACTER}; a key of under {SHORT_KEY} can be guessed");
                self.warn(place, what);
                Some(digest)
            }
            Some(what) => {
                self.report(
                    place,
                    format!("is the digest of {what}, not of a key; printf %s \"$KEY\" | sha256sum"),
                );
                None
            }
        }
    }
}

/// Digests of an unset `$KEY`, with or without what `echo` adds, and of similar mistakes.
fn known_digests() -> HashMap<[u8; 32], &'static str> {
    const BLANKS: [&str; 7] = ["\n", "\r", "\r\n", " ", "\t", "\0", "\u{feff}"];
    let mut known = HashMap::new();
    let mut blank = vec![String::new()];
    for _ in 0..4 {
        for text in &blank {
            let what = if text.is_empty() { "nothing" } else { "blanks alone" };
            known.insert(Secret::new(text.as_str()).sha256(), what);
        }
        blank = blank.iter().flat_map(|text| BLANKS.map(|more| format!("{text}{more}"))).collect();
    }
    // What `echo` prints for its own options and cmd.exe for quotes, and names of variables in the wrong
    // quotes.
    const NO_VALUES: [&str; 10] = ["-n", "-n ", "-e", "-e ", "-ne ", "\"\"", "''", "%s", "(null)", "null"];
    const NAMES: [&str; 5] = ["$KEY", "${KEY}", "$key", "$(KEY)", "%KEY%"];
    for (texts, what) in [(&NO_VALUES[..], "nothing"), (&NAMES[..], "a variable's name")] {
        for text in texts {
            for end in ["", "\n", "\r\n", " "] {
                known.insert(Secret::new(format!("{text}{end}")).sha256(), what);
            }
        }
    }
    for byte in b'!'..=b'~' {
        let char = char::from(byte);
        known.insert(Secret::new(char).sha256(), ONE_CHARACTER);
        for end in ["\n", "\r\n", " "] {
            known.insert(Secret::new(format!("{char}{end}")).sha256(), "a character and a blank");
        }
    }
    known
}
