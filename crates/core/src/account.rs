//! What the operator says about one account, checked.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::ticket::TicketKinds;

/// The id of a WeChat account: 1 to 64 characters of `[A-Za-z0-9_-]`. Clones cheaply.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Appid(Arc<str>);

/// A string that is no appid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an appid is 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidAppid;

impl Appid {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`InvalidAppid`] when it is empty, longer than 64 characters or has others than `[A-Za-z0-9_-]`.
    pub fn new(text: &str) -> Result<Self, InvalidAppid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.into())) } else { Err(InvalidAppid) }
    }

    /// The id as text.
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

/// Which WeChat call mints the token. The tokens of the two are separate and do not invalidate each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /cgi-bin/stable_token`: the same token until its last 5 minutes.
    #[default]
    StableToken,
    /// `GET /cgi-bin/token`: a new token with each call, the previous one works 5 more minutes.
    Token,
}

impl Endpoint {
    /// The name in `accounts.yaml`, the API and the metrics.
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
    /// A share of the token's lifetime, above 0 and at most 0.5.
    Share(f64),
    /// A fixed time, never taken as more than half of the lifetime.
    Fixed(Duration),
}

/// The bounds between which the wait after a failed call grows.
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
    /// Its id at WeChat.
    pub appid: Appid,
    /// What people call it; the appid when the file names none.
    pub name: String,
    /// Its AppSecret.
    pub secret: Secret,
    /// Labels that clients' grants and list filters refer to.
    pub tags: Vec<String>,
    /// Which call mints its token.
    pub endpoint: Endpoint,
    /// Token calls that may be spent in any 24 h; at least 4. WeChat allows 2000 a day.
    pub daily_budget: u32,
    /// When it is refreshed on [`Endpoint::Token`].
    pub refresh_ahead: RefreshAhead,
    /// The wait after a failed call.
    pub retry: Retry,
    /// Whether a rejected token is checked against WeChat before it is replaced.
    pub verify_rejections: bool,
    /// How long after a rejection was decided the next one is looked into.
    pub rejection_cooldown: Duration,
    /// The tickets that are kept for it.
    pub tickets: TicketKinds,
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
