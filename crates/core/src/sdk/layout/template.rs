//! Templates for keys and values that the operator defines.

use super::entry::Promised;
use crate::account::Account;

/// A text with placeholders that are filled in for each account: `{appid}`, `{name}` and, in values,
/// `{access_token}`, `{expires_in}` and `{expires_at}`. Other braces are literal, so that a value can be
/// JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

/// Why a text is not a valid template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// The key would be the same for all accounts.
    #[error("names the same key for every account; put {{appid}} or {{name}} into it")]
    SameForAll,
    /// The key would change with each token.
    #[error("is not the same for every token; only {{appid}} and {{name}} can stand in a key")]
    Changing,
    /// The value does not contain the token.
    #[error("does not hold {{access_token}}")]
    WithoutToken,
    /// Contains an unknown placeholder.
    #[error(
        "has a word in braces that stands for nothing; known: {{appid}} {{name}} {{access_token}} {{expires_in}} {{expires_at}}"
    )]
    Unknown,
}

const OF_THE_ACCOUNT: [&str; 2] = ["appid", "name"];
const OF_THE_TOKEN: [&str; 3] = ["access_token", "expires_in", "expires_at"];

impl Template {
    /// Parses a key, which must differ between accounts and stay the same for all tokens of one.
    ///
    /// # Errors
    /// [`InvalidTemplate`]
    pub fn key(text: &str) -> Result<Self, InvalidTemplate> {
        let words = words(text)?;
        if words.iter().any(|word| OF_THE_TOKEN.contains(word)) {
            return Err(InvalidTemplate::Changing);
        }
        if words.is_empty() { Err(InvalidTemplate::SameForAll) } else { Ok(Self(text.to_owned())) }
    }

    /// Parses a value, which must contain the token.
    ///
    /// # Errors
    /// [`InvalidTemplate`]
    pub fn value(text: &str) -> Result<Self, InvalidTemplate> {
        let has_token = words(text)?.contains(&"access_token");
        if has_token { Ok(Self(text.to_owned())) } else { Err(InvalidTemplate::WithoutToken) }
    }

    /// The template that is just the token.
    #[must_use]
    pub fn token() -> Self {
        Self("{access_token}".to_owned())
    }

    pub(super) fn fill(&self, account: &Account, promised: Option<Promised<'_>>) -> String {
        let mut filled = String::with_capacity(self.0.len() + 64);
        for part in parts(&self.0) {
            match (part, promised) {
                (Part::Word("appid"), _) => filled.push_str(account.appid.as_str()),
                (Part::Word("name"), _) => filled.push_str(&account.name),
                (Part::Word("access_token"), Some(promised)) => filled.push_str(promised.value),
                (Part::Word("expires_in"), Some(promised)) => {
                    filled.push_str(&promised.expires_in_s.to_string());
                }
                (Part::Word("expires_at"), Some(promised)) => {
                    filled.push_str(&promised.expires_at_s.to_string());
                }
                (Part::Word(_), _) => {}
                (Part::Text(text), _) => filled.push_str(text),
            }
        }
        filled
    }

    /// Returns the template as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

enum Part<'a> {
    Text(&'a str),
    Word(&'a str),
}

/// Splits a template. A placeholder is a pair of braces with only lower-case letters and `_` inside.
fn parts(mut rest: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let Some(open) = rest.find('{') {
        let inside = &rest[open + 1..];
        let length = inside.bytes().take_while(|byte| byte.is_ascii_lowercase() || *byte == b'_').count();
        if length > 0 && inside[length..].starts_with('}') {
            parts.extend([Part::Text(&rest[..open]), Part::Word(&inside[..length])]);
            rest = &inside[length + 1..];
        } else {
            parts.push(Part::Text(&rest[..=open]));
            rest = inside;
        }
    }
    parts.push(Part::Text(rest));
    parts
}

fn words(text: &str) -> Result<Vec<&str>, InvalidTemplate> {
    let words: Vec<_> = parts(text)
        .into_iter()
        .filter_map(|part| if let Part::Word(word) = part { Some(word) } else { None })
        .collect();
    let known = |word: &&str| OF_THE_ACCOUNT.contains(word) || OF_THE_TOKEN.contains(word);
    if words.iter().all(known) { Ok(words) } else { Err(InvalidTemplate::Unknown) }
}
