//! One account, after validation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

mod settings;

pub use settings::{AccountSettings, Endpoint, RefreshAhead, Retry};

/// A WeChat account's ID: 1 to 64 characters of `[A-Za-z0-9_-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Appid(Arc<str>);

/// Error for a string that is not an appid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an appid is 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidAppid;

impl Appid {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`InvalidAppid`] if it is empty, longer than 64 characters, or contains anything but `[A-Za-z0-9_-]`.
    pub fn new(text: &str) -> Result<Self, InvalidAppid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.into())) } else { Err(InvalidAppid) }
    }

    /// Returns the appid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Appid {
    type Error = InvalidAppid;
    fn try_from(text: String) -> Result<Self, InvalidAppid> {
        Self::new(&text)
    }
}

impl std::str::FromStr for Appid {
    type Err = InvalidAppid;
    fn from_str(text: &str) -> Result<Self, InvalidAppid> {
        Self::new(text)
    }
}

impl From<Appid> for String {
    fn from(appid: Appid) -> Self {
        appid.as_str().to_owned()
    }
}

impl AsRef<str> for Appid {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Appid {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Appid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Appid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One account of `accounts.yaml` with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The account's ID at WeChat.
    pub appid: Appid,
    /// Display name; the appid if the file gives none.
    pub name: String,
    /// The account's AppSecret.
    pub secret: Secret,
    /// Labels that client grants and list filters refer to.
    pub tags: Vec<String>,
    /// What may be different for each account.
    pub settings: AccountSettings,
}

impl AccountSettings {
    /// An account with these settings, with its appid as its name and without tags.
    #[must_use]
    pub fn account(&self, appid: Appid, secret: Secret) -> Account {
        Account { name: appid.as_str().to_owned(), appid, secret, tags: Vec::new(), settings: *self }
    }
}

impl Account {
    /// An account with the default settings, with its appid as its name and without tags.
    #[must_use]
    pub fn new(appid: Appid, secret: Secret) -> Self {
        AccountSettings::default().account(appid, secret)
    }

    /// The account with its settings changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut AccountSettings)) -> Self {
        change(&mut self.settings);
        self
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Account {
    /// An account with the default settings.
    #[must_use]
    pub fn example(endpoint: Endpoint) -> Self {
        let settings = AccountSettings { endpoint, ..AccountSettings::default() };
        let account = settings.account(Appid("wx0123456789abcdef".into()), Secret::new("app-secret"));
        Self { name: "Flower Shop".to_owned(), ..account }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appid_is_1_to_64_safe_characters() {
        for good in ["wx0123456789abcdef", "a", "A_b-9", &"x".repeat(64)] {
            assert_eq!(Appid::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "wx\n", "微信", &"x".repeat(65)] {
            assert_eq!(Appid::new(bad), Err(InvalidAppid), "{bad:?}");
        }
    }
}
