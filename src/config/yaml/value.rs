//! Single values: a variable put in for its name, and the rules that many places share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::node::Node;
use super::place::Place;
use super::reader::{ConfigReader, is_harmless};
use crate::config::unseen;

/// How a variable is put in.
pub(crate) const WITH_BRACES: &str = "an environment variable is written with braces: ${NAME}";

/// A single value with its variable put in.
pub(crate) struct Value {
    pub(crate) text: String,
    /// The variable that it came from.
    variable: Option<String>,
}

impl Value {
    /// The variable that it came from.
    pub(crate) fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }

    /// The value as a message may show it: never what came from a variable, nor what could be a secret that
    /// slipped into the wrong place.
    pub(crate) fn quoted(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if is_harmless(&self.text) => format!("\"{}\"", self.text),
            None => "this value".to_owned(),
        }
    }
}

/// What keeps `text` from being one line, as people see it.
pub(crate) fn not_one_line(text: &str) -> Option<&'static str> {
    if unseen::is_no_line(text) {
        Some("must be one line without control characters")
    } else if unseen::at_the_ends(text) {
        Some("must not begin or end with a blank or an invisible character")
    } else {
        None
    }
}

impl ConfigReader<'_> {
    /// The value of a key that must be there; `needed` says why.
    pub(crate) fn required(&mut self, place: &Place<'_>, node: Node<String>, needed: &str) -> Option<Value> {
        if node.is_absent() {
            self.report(place, format!("is missing; {needed}"));
        }
        self.value(place, node)
    }

    /// A single value with its variable put in. A key without a value is a problem: to keep the default, the key
    /// is left out.
    pub(crate) fn value(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Value> {
        let value = self.value_of_a_secret(place, node)?;
        if value.variable.is_none() && value.text.strip_prefix('$').is_some_and(is_variable) {
            self.warn(place, format!("is taken as it stands; {WITH_BRACES}"));
        }
        Some(value)
    }

    /// The same for a secret, whose placeholders are looked for wherever it comes from.
    pub(crate) fn value_of_a_secret(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Value> {
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
        let named = if may_be_shown(name) { name } else { "that is named here" };
        match self.variable(name).map(OsString::into_string) {
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
    pub(crate) fn parsed<T, E: ToString>(
        &mut self,
        place: &Place<'_>,
        node: Node<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.value(place, node)?;
        self.understood(place, &value, parse)
    }

    /// What `parse` makes of a value that is there.
    pub(crate) fn understood<T, E: ToString>(
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
    pub(crate) fn label(&mut self, place: &Place<'_>, value: Value) -> Option<String> {
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
    pub(crate) fn path(&mut self, place: &Place<'_>, node: Node<String>) -> Option<PathBuf> {
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
