//! The token an account holds, and the one a reader gets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::Endpoint;
use crate::clock::Moment;
use crate::secret::{Secret, hex, on_disk};

/// What is known of a held token besides its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing speaks against it.
    #[default]
    Good,
    /// A check has found it dead: it appears in no answer.
    Refused,
    /// It is dead, and WeChat handed out the same one again in normal mode: only a forced call replaces it.
    RefusedAgain,
}

/// An access_token as the account keeps it and the store writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldToken {
    /// The access_token itself.
    #[serde(with = "on_disk")]
    pub value: Secret,
    /// Counts the account's tokens.
    pub version: u64,
    /// Which call minted it.
    pub endpoint: Endpoint,
    /// When the call that first brought it was sent.
    pub issued_at: Moment,
    /// Its end as WeChat told it, counted from when the request was sent.
    pub expires_at: Moment,
    /// How long it will still work after its successor is minted: `upstream.overlap`, but never more than a
    /// quarter of its lifetime.
    pub overlap: Duration,
    /// When to fetch its successor; drawn once.
    pub refresh_at: Moment,
    /// Whether a check has refused it.
    pub standing: Standing,
}

impl HeldToken {
    /// What is subtracted from every end before it is promised to anybody: 1 s, or a tenth of the overlap where
    /// that is less.
    #[must_use]
    pub fn margin(&self) -> Duration {
        margin(self.overlap)
    }

    /// Four fifths of the overlap: how long a copy is certain to live on if the token is replaced right after
    /// it was read, with a fifth of the overlap left for the answer's way.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.overlap * 4 / 5
    }
}

/// See [`HeldToken::margin`].
#[must_use]
pub fn margin(overlap: Duration) -> Duration {
    (overlap / 10).min(Duration::from_secs(1))
}

/// A live access_token. Clones cheaply.
#[derive(Clone)]
pub struct Token {
    pub(crate) held: Arc<HeldToken>,
    pub(crate) expires_in: Duration,
}

impl Token {
    /// The access_token to put into calls of WeChat's API; URL-encode it there.
    #[must_use]
    pub fn access_token(&self) -> &str {
        self.held.value.expose()
    }

    /// How long, from the moment this was read, the token may be relied on: it outlives a scheduled refresh for
    /// so long.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// How long a copy may be kept without asking again: it stays alive so long whatever happens to its account
    /// short of a leak.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.expires_in.min(self.held.grace())
    }

    /// The end of its life as WeChat told it, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.held.expires_at.timestamp()
    }

    /// Counts the tokens of the account, +1 for each new value; never goes back.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.held.version
    }

    /// Names this value without telling it: `<version>-<8 hex of its SHA-256>`.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("{}-{}", self.held.version, hex(&self.held.value.sha256()[..4]))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("version", &self.held.version)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}
