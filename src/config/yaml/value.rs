//! Scalar values: substitution of environment variables, and rules that many keys share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::node::Node;
use super::place::Place;
use super::reader::{ConfigReader, is_harmless};
use crate::config::invisible;

/// How to write an environment variable.
pub(crate) const WITH_BRACES: &str = "an environment variable is written with braces: ${NAME}";

/// A scalar value after substitution.
pub(crate) struct Value {
    pub(crate) text: String,
    /// The environment variable that it came from.
    variable: Option<String>,
}

impl Value {
    /// The environment variable that it came from.
    pub(crate) fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }

    /// The value in a form that messages may show: never the value of a variable, nor anything that could be
    /// a secret under the wrong key.
    pub(crate) fn quoted(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if is_harmless(&self.text) => format!("\"{}\"", self.text),
            None => "this value".to_owned(),
        }
    }
}

/// Why `text` is not a single line, as a reader would see it.
pub(crate) fn not_one_line(text: &str) -> Option<&'static str> {
    if invisible::is_not_one_line(text) {
        Some("must be one line without control characters")
    } else if invisible::has_invisible_ends(text) {
        Some("must not begin or end with a blank or an invisible character")
    } else {
        None
    }
}

impl ConfigReader<'_> {
    /// The value of a required key; `needed` says why it is needed.
    pub(crate) fn required(&mut self, place: &Place<'_>, node: Node<String>, needed: &str) -> Option<Value> {
        if node.is_absent() {
            self.report(place, format!("is missing; {needed}"));
        }
        self.value(place, node)
    }

    /// A scalar value after substitution. A key without a value is a problem: to keep the default, leave the
    /// key out.
    pub(crate) fn value(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Value> {
        let value = self.secret_value(place, node)?;
        if value.variable.is_none() && value.text.strip_prefix('$').is_some_and(is_variable) {
            self.warn(place, format!("is used as it is; {WITH_BRACES}"));
        }
        Some(value)
    }

    /// A secret after substitution. There is no warning here about a `$NAME` without braces: placeholders in
    /// secrets are looked for later, wherever the secret comes from.
    pub(crate) fn secret_value(&mut self, place: &Place<'_>, node: Node<String>) -> Option<Value> {
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
        let named = if looks_like_variable(name) { name } else { "that is named here" };
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

    /// A value converted by `parse`. The error of `parse` follows the quoted value: `is not …`.
    pub(crate) fn parsed<T, E: ToString>(
        &mut self,
        place: &Place<'_>,
        node: Node<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.value(place, node)?;
        self.convert(place, &value, parse)
    }

    /// Replaces `setting` by the value of `node`. Without a value, or with an invalid one, which is reported,
    /// it stays as it is.
    pub(crate) fn set<T, E: ToString>(
        &mut self,
        setting: &mut T,
        place: &Place<'_>,
        node: Node<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) {
        if let Some(value) = self.parsed(place, node, parse) {
            *setting = value;
        }
    }

    /// Converts an existing value by `parse`, and reports its error.
    pub(crate) fn convert<T, E: ToString>(
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

    /// A human-readable label: one line, not empty.
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

    /// A path. A relative one is resolved against the file's own folder.
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
        Some(self.resolve(Path::new(&path)))
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether `name` looks like a variable's name, and not like a secret between the braces: upper case, and no
/// long word with digits.
fn looks_like_variable(name: &str) -> bool {
    let upper = !name.contains(|char: char| char.is_ascii_lowercase());
    upper && name.split('_').all(|word| word.len() < 16 || !word.contains(|char: char| char.is_ascii_digit()))
}
