//! Takes values out of the mirror and notes what is wrong with them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::file;
use super::node::{Content, Mapping, Node};
use super::place::Place;
use super::problem::Problem;
use crate::secret::Secret;

/// More than any secret or key has, so that a wrong path (`/dev/zero`) ends.
const LONGEST_SECRET_FILE: u64 = 64 * 1024;

/// How much text may be read again to find the lines of problems: each costs one reading of the file.
const READ_AGAIN_BYTES: usize = 64 << 20;

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// One run over a file.
pub(super) struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    env: Env<'a>,
    problems: Vec<Problem>,
    may_read_again: usize,
}

/// A single value with its variable put in.
pub(super) struct Value {
    pub(super) text: String,
    /// The variable that it came from.
    variable: Option<String>,
}

impl Value {
    /// The value as a message may show it: never what came from a variable, nor what could be a secret that
    /// slipped into the wrong place.
    pub(super) fn quoted(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if is_harmless(&self.text) => format!("\"{}\"", self.text),
            None => "this value".to_owned(),
        }
    }
}

/// Whether `text` is short and without blanks: AppSecrets have 32 characters, and a lost colon draws the next line in.
fn is_harmless(text: &str) -> bool {
    text.chars().count() <= 24 && !text.contains(|char: char| char.is_whitespace() || char.is_control())
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, env: Env<'a>) -> Self {
        Self { text, folder, env, problems: Vec::new(), may_read_again: READ_AGAIN_BYTES }
    }

    pub(super) fn finish(self) -> Vec<Problem> {
        self.problems
    }

    /// Notes a problem. `what` must hold nothing that could be a secret.
    pub(super) fn report(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let affordable = self.may_read_again.checked_sub(self.text.len());
        let position = affordable.and_then(|rest| {
            self.may_read_again = rest;
            file::locate(self.text, place)
        });
        self.problems.push(Problem { position, key: place.to_string(), what: what.into() });
    }

    /// What stands there, if anything does and it has the right form.
    fn form<T: Content>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
        match node {
            Node::Value(value) => Some(value),
            Node::Absent | Node::Null => None,
            Node::Wrong(form) => {
                self.report(place, format!("must be {}, not {form}", T::FORM));
                None
            }
        }
    }

    /// A mapping; empty when there is none. Its stray keys are noted.
    pub(super) fn mapping<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> T {
        let mut mapping = self.form(place, node).unwrap_or_default();
        let stray = std::mem::take(mapping.stray());
        for key in &stray.twice {
            self.report(&place.again(key), "stands here twice");
        }
        for key in &stray.unknown {
            let known = T::keys().join(", ");
            match key {
                Some(key) if is_harmless(key) => {
                    self.report(&place.key(key), format!("unknown key; known here: {known}"));
                }
                _ => self.report(place, format!("has an unknown key; known here: {known}")),
            }
        }
        mapping
    }

    /// A mapping in a list, which must not be left empty.
    pub(super) fn item<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
        match node {
            Node::Value(_) => Some(self.mapping(place, node)),
            Node::Wrong(_) => self.form(place, node),
            Node::Absent | Node::Null => {
                self.report(place, "is empty");
                None
            }
        }
    }

    /// A list; empty when there is none.
    pub(super) fn list<T: Content>(&mut self, place: &Place<'_>, node: Node<Vec<Node<T>>>) -> Vec<Node<T>> {
        self.form(place, node).unwrap_or_default()
    }

    /// A list with something in it; `needed` says what.
    pub(super) fn filled_list<T: Content>(
        &mut self,
        place: &Place<'_>,
        node: Node<Vec<Node<T>>>,
        needed: &str,
    ) -> Vec<Node<T>> {
        let wrong = matches!(node, Node::Wrong(_));
        let list = self.list(place, node);
        if list.is_empty() && !wrong {
            self.report(place, format!("is missing or empty; {needed}"));
        }
        list
    }

    /// The value of a key that must be there; `needed` says why.
    pub(super) fn required(&mut self, place: &Place<'_>, node: Node<String>, needed: &str) -> Option<Value> {
        if node.is_absent() {
            self.report(place, format!("is missing; {needed}"));
        }
        self.value(place, node)
    }

    /// A single value with its variable put in. A key without a value is a problem: to keep the default, the key
    /// is left out.
    pub(super) fn value(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Value> {
        if matches!(node, Node::Null) {
            self.report(place, "is empty");
        }
        let text = self.form(place, node)?;
        if !text.contains("${") {
            return Some(Value { text, variable: None });
        }
        let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = name.filter(|name| is_variable(name)) else {
            self.report(
                place,
                "${NAME} must be the whole value; a longer value that contains ${ can come from a variable",
            );
            return None;
        };
        match (self.env)(name).map(OsString::into_string) {
            Some(Ok(value)) => Some(Value { text: value, variable: Some(name.to_owned()) }),
            Some(Err(_)) => {
                self.report(place, format!("the environment variable {name} is not UTF-8"));
                None
            }
            None => {
                self.report(place, format!("the environment variable {name} is not set"));
                None
            }
        }
    }

    /// A value that `parse` understands. Its error follows the quoted value: `is not …`.
    pub(super) fn parsed<T, E: ToString>(
        &mut self,
        place: &Place<'_>,
        node: Node<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.value(place, node)?;
        self.understood(place, &value, parse)
    }

    /// What `parse` makes of a value that is there.
    pub(super) fn understood<T, E: ToString>(
        &mut self,
        place: &Place<'_>,
        value: &Value,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&value.text) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                self.report(place, format!("{} {}", value.quoted(), why.to_string()));
                None
            }
        }
    }

    /// A label that people give: one line, not empty.
    pub(super) fn label(&mut self, place: &Place<'_>, value: Value) -> Option<String> {
        if value.text.is_empty() {
            self.report(place, "is empty");
            None
        } else if value.text.contains(char::is_control) {
            self.report(place, "must be one line without control characters");
            None
        } else {
            Some(value.text)
        }
    }

    /// A path; a relative one counts from the file's own folder.
    pub(super) fn path(&mut self, place: &Place<'_>, node: Node<String>) -> Option<PathBuf> {
        let path = self.value(place, node)?.text;
        if path.is_empty() {
            self.report(place, "is empty");
            return None;
        }
        Some(self.beside_the_file(Path::new(&path)))
    }

    /// `path`, counted from the file's own folder.
    pub(super) fn beside_the_file(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Which of `ways` to give a secret is used: there must be exactly one. For each, its key and whether it is
    /// there.
    pub(super) fn one_of(
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

    /// A secret that stands in the file or in a variable.
    pub(super) fn secret(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Secret> {
        let value = self.value(place, node)?;
        if value.text.is_empty() {
            let from = value.variable.map(|name| format!(": the environment variable {name} holds nothing"));
            self.report(place, format!("is empty{}", from.unwrap_or_default()));
            return None;
        }
        Some(Secret::new(value.text))
    }

    /// A secret in a file of its own, less one trailing newline. The path is not quoted: it may be the secret,
    /// put under the wrong key.
    pub(super) fn secret_file(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Secret> {
        let path = self.path(place, node)?;
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LONGEST_SECRET_FILE + 1).read_to_string(&mut text));
        let length = match read {
            Ok(length) => length,
            Err(error) => {
                self.report(place, format!("the file cannot be read: {error}"));
                return None;
            }
        };
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if length as u64 > LONGEST_SECRET_FILE {
            self.report(place, "the file is longer than 64 KiB");
            None
        } else if line.is_empty() {
            self.report(place, "the file is empty");
            None
        } else {
            Some(Secret::new(line))
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
