//! Takes values out of the mirror and notes what is wrong with them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file;
use super::node::{Mapping, Node, NodeForm, TAGGED};
use super::place::Place;
use super::regular_file::Files;
use crate::config::problem::{Position, Problem};

/// How much text may be read again to find the lines of problems: each costs one reading of the file.
const READ_AGAIN_BYTES: usize = 64 << 20;
/// The same for warnings, which a start must not wait for.
const READ_AGAIN_TO_WARN_BYTES: usize = 16 << 20;

/// Looks up an environment variable.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// One run over a file.
pub(crate) struct ConfigReader<'a> {
    text: &'a str,
    folder: &'a Path,
    env: Env<'a>,
    files: Files,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    may_read_again: usize,
    may_read_again_to_warn: usize,
    /// Every tagged value has been told already.
    tags_are_told: bool,
    /// A secret stands in the text itself.
    holds_secrets: bool,
    /// The place that names the file that was not read in time.
    hung_at: Option<String>,
}

/// What is wrong, or perhaps not meant.
pub(crate) struct Diagnostics {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Whether `text` is short and without blanks: AppSecrets have 32 characters, and a lost colon draws the next line in.
pub(crate) fn is_harmless(text: &str) -> bool {
    text.chars().count() <= 24 && !text.contains(|char: char| char.is_whitespace() || char.is_control())
}

/// Whether `text` can be a key of ours, misspelt: `secret:abc`, whose blank is missing, shows the secret.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

impl<'a> ConfigReader<'a> {
    pub(crate) fn new(text: &'a str, folder: &'a Path, env: Env<'a>, files: Files) -> Self {
        Self {
            text,
            folder,
            env,
            files,
            problems: Vec::new(),
            warnings: Vec::new(),
            may_read_again: READ_AGAIN_BYTES,
            may_read_again_to_warn: READ_AGAIN_TO_WARN_BYTES,
            tags_are_told: false,
            holds_secrets: false,
            hung_at: None,
        }
    }

    pub(crate) fn finish(self) -> Diagnostics {
        Diagnostics { problems: self.problems, warnings: self.warnings }
    }

    /// The files that the text names.
    pub(crate) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Notes that the file that is named at `place` was not read in time.
    pub(crate) fn note_hung(&mut self, place: &Place<'_>) {
        self.hung_at = Some(place.to_string());
    }

    /// The place that names the file that was not read in time.
    pub(crate) fn hung_at(&self) -> Option<&str> {
        self.hung_at.as_deref()
    }

    /// Notes that a secret stands in the text itself.
    pub(crate) fn note_secret_in_text(&mut self) {
        self.holds_secrets = true;
    }

    /// Whether a secret stands in the text itself.
    pub(crate) fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Notes a problem. `what` must hold nothing that could be a secret.
    pub(crate) fn report(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let position = locate(self.text, place, &mut self.may_read_again);
        self.problems.push(Problem { position, key: place.to_string(), what: what.into() });
    }

    /// Notes what is allowed and probably not meant, in words like those of a problem.
    pub(crate) fn warn(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let key = place.to_string();
        let position =
            if key.is_empty() { None } else { locate(self.text, place, &mut self.may_read_again_to_warn) };
        self.warnings.push(Problem { position, key, what: what.into() });
    }

    /// What `build` makes of the place. Where it makes nothing, that is a problem, be there no other: what is left out
    /// without a word is taken away from a running program.
    pub(crate) fn built<T>(
        &mut self,
        place: &Place<'_>,
        build: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let built = build(self);
        if built.is_none() && self.problems.is_empty() {
            self.report(place, "cannot be read here");
        }
        built
    }

    /// Reports every tagged value, wherever it stands.
    pub(crate) fn refuse_tags(&mut self) {
        let what = "must not be a tagged value: a YAML tag (!…) means nothing here; write the value itself";
        self.tags_are_told = file::tagged(self.text, &mut |place| self.report(place, what));
    }

    /// What stands there, if anything does and it has the right form.
    pub(crate) fn form<T: NodeForm>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
        match node {
            Node::Value(value) => Some(value),
            Node::Absent | Node::Null => None,
            Node::Wrong(TAGGED) if self.tags_are_told => None,
            Node::Wrong(form) => {
                self.report(place, format!("must be {}, not {form}", T::FORM));
                None
            }
        }
    }

    /// A mapping; empty when there is none. Its stray keys are noted.
    pub(crate) fn mapping<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> T {
        let mut mapping = self.form(place, node).unwrap_or_default();
        let stray = std::mem::take(mapping.stray());
        for key in &stray.twice {
            self.report(&place.again(key), "stands here twice");
        }
        for key in &stray.unknown {
            let known = T::keys().join(", ");
            match key {
                Some(key) if is_harmless(key) && is_word(key) => {
                    self.report(&place.key(key), format!("unknown key; known here: {known}"));
                }
                _ => self.report(place, format!("has an unknown key; known here: {known}")),
            }
        }
        mapping
    }

    /// A mapping in a list, which must not be left empty.
    pub(crate) fn item<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
        match node {
            Node::Value(_) => Some(self.mapping(place, node)),
            Node::Wrong(_) => self.form(place, node),
            Node::Absent | Node::Null => {
                self.report(place, "is empty");
                None
            }
        }
    }

    /// A list; empty when there is none. A key without a value is a problem: with its items commented out, a list of
    /// clients would let everybody in.
    pub(crate) fn list<T: NodeForm>(&mut self, place: &Place<'_>, node: Node<Vec<Node<T>>>) -> Vec<Node<T>> {
        if matches!(node, Node::Null) {
            self.report(place, "is empty; write [] for none, or leave the key out");
        }
        self.form(place, node).unwrap_or_default()
    }

    /// A list with something in it; `needed` says what.
    pub(crate) fn filled_list<T: NodeForm>(
        &mut self,
        place: &Place<'_>,
        node: Node<Vec<Node<T>>>,
        needed: &str,
    ) -> Vec<Node<T>> {
        let wrong = matches!(node, Node::Wrong(_));
        let list = self.form(place, node).unwrap_or_default();
        if list.is_empty() && !wrong {
            self.report(place, format!("is missing or empty; {needed}"));
        }
        list
    }

    /// The environment variable called `name`.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        (self.env)(name)
    }

    /// `path`, counted from the file's own folder.
    pub(crate) fn beside_the_file(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Which of `ways` to give a secret is used: there must be exactly one. For each, its key and whether it is
    /// there.
    pub(crate) fn one_of(
        &mut self,
        place: &Place<'_>,
        ways: &[(&'static str, bool)],
    ) -> Option<&'static str> {
        let mut used = ways.iter().filter(|(_, is_there)| *is_there).map(|(key, _)| *key);
        let Some(first) = used.next() else {
            let keys: Vec<_> = ways.iter().map(|(key, _)| *key).collect();
            self.report(&place.key(keys[0]), format!("is missing; give {}", keys.join(" or ")));
            return None;
        };
        for second in used {
            self.report(&place.key(second), format!("cannot stand beside {first}; keep one of them"));
        }
        Some(first)
    }
}

/// The position of `place`, while `may_read_again` lasts.
fn locate(text: &str, place: &Place<'_>, may_read_again: &mut usize) -> Option<Position> {
    *may_read_again = may_read_again.checked_sub(text.len())?;
    file::locate(text, place)
}
