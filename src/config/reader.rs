//! Takes values out of the mirror and notes what is wrong with them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file;
use super::node::{Content, Mapping, Node, TAGGED};
use super::place::Place;
use super::problem::{Position, Problem};
use super::regular_file::Files;
use super::unseen;

/// How much text may be read again to find the lines of problems: each costs one reading of the file.
const READ_AGAIN_BYTES: usize = 64 << 20;
/// The same for warnings, which a start must not wait for.
const READ_AGAIN_TO_WARN_BYTES: usize = 16 << 20;

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// One run over a file.
pub(super) struct Reader<'a> {
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
}

/// What is wrong, or perhaps not meant.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// A single value with its variable put in.
pub(super) struct Value {
    pub(super) text: String,
    /// The variable that it came from.
    variable: Option<String>,
}

impl Value {
    /// The variable that it came from.
    pub(super) fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }

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

/// Whether `text` can be a key of ours, misspelt: `secret:abc`, whose blank is missing, shows the secret.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// What keeps `text` from being one line, as people see it.
pub(super) fn not_one_line(text: &str) -> Option<&'static str> {
    if unseen::is_no_line(text) {
        Some("must be one line without control characters")
    } else if unseen::at_the_ends(text) {
        Some("must not begin or end with a blank or an invisible character")
    } else {
        None
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, env: Env<'a>, files: Files) -> Self {
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
        }
    }

    pub(super) fn finish(self) -> Findings {
        Findings { problems: self.problems, warnings: self.warnings }
    }

    /// The files that the text names.
    pub(super) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Notes that a secret stands in the text itself.
    pub(super) fn note_secret_in_text(&mut self) {
        self.holds_secrets = true;
    }

    /// Whether a secret stands in the text itself.
    pub(super) fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Notes a problem. `what` must hold nothing that could be a secret.
    pub(super) fn report(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let position = locate(self.text, place, &mut self.may_read_again);
        self.problems.push(Problem { position, key: place.to_string(), what: what.into() });
    }

    /// Notes what is allowed and probably not meant, in words like those of a problem.
    pub(super) fn warn(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let key = place.to_string();
        let position =
            if key.is_empty() { None } else { locate(self.text, place, &mut self.may_read_again_to_warn) };
        self.warnings.push(Problem { position, key, what: what.into() });
    }

    /// Reports every tagged value, wherever it stands.
    pub(super) fn refuse_tags(&mut self) {
        let what = "must not be a tagged value: a YAML tag (!…) means nothing here; write the value itself";
        self.tags_are_told = file::tagged(self.text, &mut |place| self.report(place, what));
    }

    /// What stands there, if anything does and it has the right form.
    fn form<T: Content>(&mut self, place: &Place<'_>, node: Node<T>) -> Option<T> {
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
    pub(super) fn mapping<T: Mapping>(&mut self, place: &Place<'_>, node: Node<T>) -> T {
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
        if text.strip_prefix('$').is_some_and(is_variable) {
            self.warn(
                place,
                "is taken as it stands; an environment variable is written with braces: ${NAME}",
            );
        }
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
        let named = if may_be_shown(name) { name } else { "that is named here" };
        match (self.env)(name).map(OsString::into_string) {
            Some(Ok(value)) => Some(Value { text: value, variable: Some(name.to_owned()) }),
            Some(Err(_)) => {
                self.report(place, format!("the environment variable {named} is not UTF-8"));
                None
            }
            None => {
                self.report(place, format!("the environment variable {named} is not set"));
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
        } else if let Some(what) = not_one_line(&value.text) {
            self.report(place, what);
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
        if let Some(what) = not_one_line(&path) {
            self.report(place, what);
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
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether `name` is a variable's by all appearance, and no secret that somebody has put into the braces: upper case,
/// and no long word with digits in it.
fn may_be_shown(name: &str) -> bool {
    let upper = !name.contains(|char: char| char.is_ascii_lowercase());
    upper && name.split('_').all(|word| word.len() < 16 || !word.contains(|char: char| char.is_ascii_digit()))
}

/// The position of `place`, while `may_read_again` lasts.
fn locate(text: &str, place: &Place<'_>, may_read_again: &mut usize) -> Option<Position> {
    *may_read_again = may_read_again.checked_sub(text.len())?;
    file::locate(text, place)
}
