//! Takes values out of the mirror and collects problems and warnings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file;
use super::node::{Mapping, Node, NodeForm, TAGGED};
use super::place::Place;
use super::regular_file::Files;
use crate::config::problem::{Position, Problem};

/// How much text may be reparsed to find the lines of problems. Each line takes one parse of the file.
const READ_AGAIN_BYTES: usize = 64 << 20;
/// The same limit for warnings, for which a start must not wait.
const READ_AGAIN_TO_WARN_BYTES: usize = 16 << 20;

/// Looks up an environment variable.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// One pass over a file.
pub(crate) struct ConfigReader<'a> {
    text: &'a str,
    folder: &'a Path,
    env: Env<'a>,
    files: Files,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    may_read_again: usize,
    may_read_again_to_warn: usize,
    /// All tagged values have been reported already.
    tags_reported: bool,
    /// The text itself contains a secret.
    holds_secrets: bool,
    /// The place that names a file that was not read in time.
    hung_place: Option<String>,
}

/// Problems and warnings.
pub(crate) struct Diagnostics {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Whether `text` is short and without blanks, so that it cannot be a secret: AppSecrets have 32 characters.
/// A missing colon would include the next line.
pub(crate) fn is_harmless(text: &str) -> bool {
    text.chars().count() <= 24 && !text.contains(|char: char| char.is_whitespace() || char.is_control())
}

/// Whether `text` can be a misspelt key. `secret:abc`, which lacks the blank, would show the secret.
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
            tags_reported: false,
            holds_secrets: false,
            hung_place: None,
        }
    }

    pub(crate) fn finish(self) -> Diagnostics {
        Diagnostics { problems: self.problems, warnings: self.warnings }
    }

    /// The files that the text refers to.
    pub(crate) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Records that the file named at `place` was not read in time.
    pub(crate) fn note_hung(&mut self, place: &Place<'_>) {
        self.hung_place = Some(place.to_string());
    }

    /// The place that names a file that was not read in time.
    pub(crate) fn hung_place(&self) -> Option<&str> {
        self.hung_place.as_deref()
    }

    /// Records that the text itself contains a secret.
    pub(crate) fn note_secret_in_text(&mut self) {
        self.holds_secrets = true;
    }

    /// Whether the text itself contains a secret.
    pub(crate) fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Adds a problem. `what` must not contain anything that could be a secret.
    pub(crate) fn report(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let position = locate(self.text, place, &mut self.may_read_again);
        self.problems.push(Problem { position, key: place.to_string(), what: what.into() });
    }

    /// Adds a warning: something that is allowed but probably not intended, worded like a problem.
    pub(crate) fn warn(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let key = place.to_string();
        let position =
            if key.is_empty() { None } else { locate(self.text, place, &mut self.may_read_again_to_warn) };
        self.warnings.push(Problem { position, key, what: what.into() });
    }

    /// Runs `build`. If it returns nothing and no problem has been reported, reports one: an entry that is
    /// silently left out would be removed from a running program.
    pub(crate) fn build_or_report<T>(
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

    /// Reports all tagged values.
    pub(crate) fn refuse_tags(&mut self) {
        let what = "must not be a tagged value: a YAML tag (!…) means nothing here; write the value itself";
        self.tags_reported = file::find_tags(self.text, &mut |place| self.report(place, what));
    }

    /// The value of `node`, if it has one of the right form. Another form is reported.
    pub(crate) fn form<T: NodeForm>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
        match node {
            Node::Value(value) => Some(value),
            Node::Absent | Node::Null => None,
            Node::Wrong(TAGGED) if self.tags_reported => None,
            Node::Wrong(form) => {
                self.report(place, format!("must be {}, not {form}", T::FORM));
                None
            }
        }
    }

    /// A mapping, empty if there is none. Unknown and repeated keys are reported.
    pub(crate) fn mapping<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> T {
        let mut mapping = self.form(place, node).unwrap_or_default();
        let unexpected = std::mem::take(mapping.unexpected());
        for key in &unexpected.twice {
            self.report(&place.again(key), "is given twice");
        }
        for key in &unexpected.unknown {
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

    /// A mapping in a list, which must not be empty.
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

    /// A list, empty if there is none. A key without a value is a problem: a list of clients whose items are
    /// commented out would let everybody in.
    pub(crate) fn list<T: NodeForm>(&mut self, place: &Place<'_>, node: Node<Vec<Node<T>>>) -> Vec<Node<T>> {
        if matches!(node, Node::Null) {
            self.report(place, "is empty; write [] for none, or leave the key out");
        }
        self.form(place, node).unwrap_or_default()
    }

    /// A list that must not be empty; `needed` says what belongs in it.
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

    /// The environment variable `name`.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        (self.env)(name)
    }

    /// `path`, resolved against the file's own folder.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Which of several alternative keys for a secret is used; there must be exactly one. `ways` has each key
    /// and whether it is present.
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
            self.report(
                &place.key(second),
                format!("cannot be given together with {first}; keep one of them"),
            );
        }
        Some(first)
    }
}

/// The position of `place`, as long as `may_read_again` allows another parse.
fn locate(text: &str, place: &Place<'_>, may_read_again: &mut usize) -> Option<Position> {
    *may_read_again = may_read_again.checked_sub(text.len())?;
    file::locate(text, place)
}
