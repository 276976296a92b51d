//! Settings of one account, after validation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::ticket::TicketKinds;

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

/// The WeChat call that mints the token. Tokens of the two endpoints are separate and do not invalidate each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /cgi-bin/stable_token`: returns the same token until its last 5 minutes.
    #[default]
    StableToken,
    /// `GET /cgi-bin/token`: returns a new token with each call; the previous one works for 5 more minutes.
    Token,
}

impl Endpoint {
    /// The endpoint's name in `accounts.yaml`, the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StableToken => "stable_token",
            Self::Token => "token",
        }
    }
}

/// How long before expiry an account on [`Endpoint::Token`] is refreshed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RefreshAhead {
    /// A share of the token's lifetime, greater than 0 and at most 0.5.
    Share(f64),
    /// A fixed time, capped at half of the lifetime.
    Fixed(Duration),
}

/// Bounds of the back-off after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The shortest wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
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
    /// The call that mints its token.
    pub endpoint: Endpoint,
    /// Token calls that may be spent in any 24 h; at least 4. WeChat allows 2000 a day.
    pub daily_budget: u32,
    /// How long before expiry its token is refreshed, on [`Endpoint::Token`].
    pub refresh_ahead: RefreshAhead,
    /// Back-off after a failed call.
    pub retry: Retry,
    /// Whether a rejected token is checked against WeChat before it is replaced.
    pub verify_rejections: bool,
    /// How long after the decision on a rejection the next one is investigated.
    pub rejection_cooldown: Duration,
    /// The tickets that are kept fresh for it.
    pub tickets: TicketKinds,
}

impl Account {
    /// An account with the default settings, with its appid as its name and without tags.
    #[must_use]
    pub fn new(appid: Appid, secret: Secret) -> Self {
        Self {
            name: appid.as_str().to_owned(),
            appid,
            secret,
            tags: Vec::new(),
            tickets: TicketKinds::default(),
            endpoint: Endpoint::StableToken,
            daily_budget: 2000,
            refresh_ahead: RefreshAhead::Share(0.25),
            retry: Retry { initial: Duration::from_secs(2), max: Duration::from_secs(60) },
            verify_rejections: true,
            rejection_cooldown: Duration::from_secs(5),
        }
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Account {
    /// An account with the file's defaults.
    #[must_use]
    pub fn example(endpoint: Endpoint) -> Self {
        Self {
            appid: Appid("wx0123456789abcdef".into()),
            name: "Flower Shop".to_owned(),
            secret: Secret::new("app-secret"),
            tags: Vec::new(),
            tickets: TicketKinds::default(),
            endpoint,
            daily_budget: 2000,
            refresh_ahead: RefreshAhead::Share(0.25),
            retry: Retry { initial: Duration::from_secs(2), max: Duration::from_secs(60) },
            verify_rejections: true,
            rejection_cooldown: Duration::from_secs(5),
        }
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
