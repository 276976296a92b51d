//! The token that an account holds, and the one that a reader gets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::Endpoint;
use crate::clock::Moment;
use crate::secret::{Secret, etag, on_disk, push_etag};

pub mod decide;
pub mod handed_out;
pub mod hint;
pub mod hint_sources;
pub mod rejection;
pub mod schedule;
pub mod state;
pub mod transition;

/// What checks have found out about a held token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Nothing is known against it.
    #[default]
    Good,
    /// WeChat refused it in a check: it is in no answer.
    Refused,
    /// WeChat refused it, and handed out the same one again in normal mode: only a forced call replaces it.
    RefusedAgain,
}

/// An access_token as the account keeps it and the store writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldToken {
    /// The access_token itself.
    #[serde(with = "on_disk")]
    pub value: Secret,
    /// Number of this token in the account's sequence.
    pub version: u64,
    /// The call that minted it.
    pub endpoint: Endpoint,
    /// When the call that first returned it was sent.
    pub issued_at: Moment,
    /// When it expires according to WeChat, counted from when the request was sent.
    pub expires_at: Moment,
    /// How long it keeps working after its successor is minted: `upstream.overlap`, but at most a quarter of
    /// its lifetime.
    pub overlap: Duration,
    /// When to fetch its successor; drawn once.
    pub refresh_at: Moment,
    /// Whether WeChat has refused it in a check.
    #[serde(rename = "standing")]
    pub validity: Validity,
}

impl HeldToken {
    /// Margin subtracted from every expiry before it is promised: 1 s, or a tenth of the overlap if that is
    /// less.
    #[must_use]
    pub fn margin(&self) -> Duration {
        margin(self.overlap)
    }

    /// How long a copy certainly keeps working if the token is replaced right after it was read. Four fifths
    /// of the overlap; the remaining fifth is left for the answer's way to the reader.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.overlap / 5 * 4
    }
}

/// See [`HeldToken::margin`].
#[must_use]
pub fn margin(overlap: Duration) -> Duration {
    (overlap / 10).min(Duration::from_secs(1))
}

/// A live access_token. Cheap to clone.
#[derive(Clone)]
pub struct Token {
    held: Arc<HeldToken>,
    expires_in: Duration,
}

impl Token {
    /// Makes a token that readers may rely on for `expires_in`.
    #[must_use]
    pub fn new(held: Arc<HeldToken>, expires_in: Duration) -> Self {
        Self { held, expires_in }
    }

    /// The same token, promised for `longest` at most.
    #[must_use]
    pub fn promised_at_most(self, longest: Duration) -> Self {
        Self { expires_in: self.expires_in.min(longest), ..self }
    }

    /// Returns the token as the account holds it.
    #[must_use]
    pub fn held(&self) -> &Arc<HeldToken> {
        &self.held
    }

    /// The access_token to put into calls to WeChat's API; URL-encode it there.
    #[must_use]
    pub fn access_token(&self) -> &str {
        self.held.value.expose()
    }

    /// How long the token may be relied on, counted from when this was read. It outlives a scheduled refresh
    /// for that long.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// How long a copy may be kept without asking again. It stays alive that long whatever happens to its
    /// account, short of a leak.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.expires_in.min(self.held.grace())
    }

    /// When it expires according to WeChat, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.held.expires_at.timestamp()
    }

    /// Counts the account's tokens: +1 for each new value, never decreases.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.held.version
    }

    /// Identifies this value without revealing it: `<version>-<8 hex of its SHA-256>`.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.held.version, &self.held.value)
    }

    /// Appends the [`etag`](Self::etag) to `text`.
    pub fn push_etag(&self, text: &mut String) {
        push_etag(text, self.held.version, &self.held.value);
    }
}

/// The access_token, so that a token can be passed to a rejection as it is.
impl AsRef<str> for Token {
    fn as_ref(&self) -> &str {
        self.access_token()
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

#[cfg(any(test, feature = "test-util"))]
impl HeldToken {
    /// A token of `account` that arrived new, with `lifetime` left, by a call sent at `sent_at`.
    #[must_use]
    pub fn example(account: &crate::account::Account, sent_at: Moment, lifetime: Duration) -> Self {
        let overlap = schedule::overlap_of(lifetime, schedule::Rules::EXAMPLE);
        Self {
            value: Secret::new("access-token-1"),
            version: 1,
            endpoint: account.settings.endpoint,
            issued_at: sent_at,
            expires_at: sent_at + lifetime,
            overlap,
            refresh_at: schedule::refresh_at(account, sent_at, lifetime, overlap, false, 0.5),
            validity: Validity::Good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::secret::hex;

    const ISSUED: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000 };

    fn held(lifetime_s: u64) -> HeldToken {
        HeldToken::example(&Account::example(Endpoint::Token), ISSUED, Duration::from_secs(lifetime_s))
    }

    #[test]
    fn the_margin_is_a_second_or_a_tenth_of_a_short_overlap() {
        assert_eq!(held(7200).margin(), Duration::from_secs(1));
        assert_eq!(held(20).margin(), Duration::from_millis(500));
        assert_eq!(margin(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_copy_is_kept_no_longer_than_it_may_be_relied_on_nor_than_four_fifths_of_the_overlap() {
        let token = |expires_in_s| Token {
            held: Arc::new(held(7200)),
            expires_in: Duration::from_secs(expires_in_s),
        };
        assert_eq!(token(7000).max_age(), Duration::from_secs(240));
        assert_eq!(token(100).max_age(), Duration::from_secs(100));
        let capped = |token: Token| {
            let token = token.promised_at_most(Duration::from_secs(60));
            (token.expires_in().as_secs(), token.max_age().as_secs(), token.expires_at())
        };
        let expires_at = token(0).expires_at();
        assert_eq!(capped(token(7000)), (60, 60, expires_at));
        assert_eq!(capped(token(50)), (50, 50, expires_at));
    }

    #[test]
    fn an_etag_names_the_version_and_the_value_without_telling_it() {
        let token = Token { held: Arc::new(held(7200)), expires_in: Duration::ZERO };
        assert_eq!(token.etag(), format!("1-{}", &hex(&Secret::new("access-token-1").sha256())[..8]));
        assert_eq!(format!("{token:?}"), "Token { version: 1, expires_in: 0ns, .. }");
        assert_eq!(token.expires_at().as_millisecond(), ISSUED.wall_ms + 7_200_000);
    }

    #[test]
    fn a_token_read_back_from_the_store_is_the_one_that_was_written() {
        let written = held(7200);
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<HeldToken>(&text).unwrap(), written);
        assert!(text.ends_with(r#","standing":"good"}"#), "the names on disk do not change: {text}");
        assert!(!format!("{written:?}").contains("access-token-1"));
    }
}
