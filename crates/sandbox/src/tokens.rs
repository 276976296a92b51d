//! The tokens that this WeChat has issued, and until when each is honoured.
//!
//! The tokens of the two endpoints form separate lines: what happens in one never affects the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wxtokend_core::account::{Appid, Endpoint};
use wxtokend_core::secret::Secret;

/// The truth about one token. Instants count from the sandbox's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTruth {
    /// Its value.
    pub access_token: Secret,
    /// The account it belongs to.
    pub appid: Appid,
    /// The call that minted it.
    pub endpoint: Endpoint,
    /// When it was minted.
    pub minted_at: Duration,
    /// When it would end according to its `expires_in`.
    pub expires_at: Duration,
    /// From when on it is refused: `expires_at`, or sooner if a later mint cut it short.
    pub dies_at: Duration,
}

impl TokenTruth {
    /// Whether WeChat honours it.
    #[must_use]
    pub fn is_alive(&self, now: Duration) -> bool {
        now < self.dies_at
    }
}

/// What a mint does to the tokens before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MintEffect {
    /// The previous token dies at this instant, unless it dies sooner anyway.
    pub(super) previous_until: Duration,
    /// The tokens before the previous one die at this instant, unless they die sooner anyway.
    pub(super) older_until: Duration,
}

/// All tokens, by value and by line.
#[derive(Default)]
pub(super) struct Tokens {
    by_value: HashMap<Arc<str>, TokenTruth>,
    lines: HashMap<(Appid, Endpoint), Vec<Arc<str>>>,
}

impl Tokens {
    /// Returns the truth about `value`; `None` if it was never minted or has been dead for more than a
    /// lifetime.
    pub(super) fn get(&self, value: &str) -> Option<&TokenTruth> {
        self.by_value.get(value)
    }

    /// Returns the newest token of a line, dead or alive.
    pub(super) fn newest(&self, appid: &Appid, endpoint: Endpoint) -> Option<&TokenTruth> {
        self.lines.get(&(appid.clone(), endpoint))?.last().and_then(|value| self.by_value.get(value))
    }

    /// Iterates over the remembered tokens of an account, oldest first within each endpoint.
    pub(super) fn of<'a>(&'a self, appid: &'a Appid) -> impl Iterator<Item = &'a TokenTruth> {
        [Endpoint::StableToken, Endpoint::Token]
            .into_iter()
            .filter_map(|endpoint| self.lines.get(&(appid.clone(), endpoint)))
            .flatten()
            .filter_map(|value| self.by_value.get(value))
    }

    /// Adds a token to its line. Tokens that have been dead for the new one's lifetime are forgotten.
    pub(super) fn mint(&mut self, token: TokenTruth, effect: MintEffect) {
        let line = self.lines.entry((token.appid.clone(), token.endpoint)).or_default();
        let lifetime = token.expires_at.saturating_sub(token.minted_at);
        for (age, value) in line.iter().rev().enumerate() {
            if let Some(earlier) = self.by_value.get_mut(value) {
                let until = if age == 0 { effect.previous_until } else { effect.older_until };
                earlier.dies_at = earlier.dies_at.min(until);
            }
        }
        line.retain(|value| {
            let remembered =
                self.by_value.get(value).is_some_and(|earlier| earlier.dies_at + lifetime >= token.minted_at);
            if !remembered {
                self.by_value.remove(value);
            }
            remembered
        });
        let value: Arc<str> = token.access_token.expose().into();
        line.push(Arc::clone(&value));
        self.by_value.insert(value, token);
    }

    /// Ends all of an account's tokens at `now`.
    pub(super) fn kill(&mut self, appid: &Appid, now: Duration) {
        let values: Vec<Arc<str>> = self.of(appid).map(|token| token.access_token.expose().into()).collect();
        for value in values {
            if let Some(token) = self.by_value.get_mut(&value) {
                token.dies_at = token.dies_at.min(now);
            }
        }
    }
}
