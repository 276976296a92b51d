//! The tokens that an account had before its newest, by their digests.
//!
//! An application keeps a token for as long as it was promised, whatever becomes of it meanwhile. By what is kept
//! here a request that still carries an old one is known to be the account's, and can be given the current one.
//! A digest reveals nothing of a token, which is random.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::token::HeldToken;

/// How many earlier tokens of an account are known at most. Usually there are two or three that ended less than two
/// hours ago; more come of tokens that die early, again and again.
pub const MAX_HANDED_OUT: usize = 64;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// The tokens that an account had before its newest, oldest first. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandedOut(Arc<[EarlierToken]>);

/// A token that another has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct EarlierToken {
    #[serde(with = "crate::secret::in_hex")]
    sha256: TokenDigest,
    /// When it would have expired. It may have died sooner.
    expires_at: Moment,
}

impl HandedOut {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a token that is replaced now, and drops those that ended `stale` ago.
    pub(super) fn add(&mut self, token: &HeldToken, stale: Duration, now: Moment) {
        let added = EarlierToken { sha256: token.value.sha256(), expires_at: token.expires_at };
        let is_kept = |earlier: &&EarlierToken| {
            !(earlier.expires_at + stale).is_over(now) && earlier.sha256 != added.sha256
        };
        let kept: Vec<_> = self.0.iter().filter(is_kept).copied().chain([added]).collect();
        self.0 = kept[kept.len().saturating_sub(MAX_HANDED_OUT)..].into();
    }

    /// The digests, oldest first.
    pub fn digests(&self) -> impl Iterator<Item = TokenDigest> {
        self.0.iter().map(|earlier| earlier.sha256)
    }

    /// When the token with this digest would have expired; `None` if it is none of these.
    pub(super) fn expiry_of(&self, sha256: &TokenDigest) -> Option<Moment> {
        self.0.iter().find(|earlier| earlier.sha256 == *sha256).map(|earlier| earlier.expires_at)
    }

    /// Converts the instants to the clocks of another boot.
    #[must_use]
    pub(super) fn rebased(self, now: Moment) -> Self {
        let rebased =
            |earlier: &EarlierToken| EarlierToken { expires_at: earlier.expires_at.rebased(now), ..*earlier };
        if self.is_empty() { self } else { Self(self.0.iter().map(rebased).collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, Endpoint};
    use crate::secret::Secret;
    use crate::token::state::AccountState;

    const HOUR: u64 = 3600;
    const STALE: Duration = Duration::from_secs(2 * HOUR);

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000 } + Duration::from_secs(seconds)
    }

    /// A token that lives for two hours.
    fn token(value: &str, sent_s: u64) -> HeldToken {
        let account = Account::example(Endpoint::Token);
        let example = HeldToken::example(&account, at(sent_s), Duration::from_secs(2 * HOUR));
        HeldToken { value: Secret::new(value), ..example }
    }

    /// An account whose tokens came at these times, each replacing the one before.
    fn state(tokens: &[(&str, u64)]) -> AccountState {
        let mut state = AccountState::default();
        for (value, sent_s) in tokens {
            state.replace_token(token(value, *sent_s), STALE, at(*sent_s));
        }
        state
    }

    fn known(state: &AccountState, value: &str, now: Moment) -> bool {
        state.has_handed_out(&Secret::new(value).sha256(), STALE, now)
    }

    #[test]
    fn a_token_is_known_until_stale_after_its_own_end_however_early_it_was_replaced() {
        let state = state(&[("a", 0), ("b", 60), ("c", 100)]);
        for (value, seconds, expected) in [
            ("a", 100, true),
            ("a", 4 * HOUR - 1, true),
            ("a", 4 * HOUR, false),
            ("b", 4 * HOUR + 59, true),
            ("b", 4 * HOUR + 60, false),
            ("c", 4 * HOUR + 99, true),
            ("c", 4 * HOUR + 100, false),
            ("d", 100, false),
            ("", 100, false),
        ] {
            assert_eq!(known(&state, value, at(seconds)), expected, "{value} at {seconds}");
        }
        let ahead = Moment { wall_ms: at(4 * HOUR).wall_ms, ..at(100) };
        let woken = Moment { boot_ms: at(4 * HOUR).boot_ms, ..at(100) };
        assert!(!known(&state, "a", ahead) && !known(&state, "a", woken), "by whichever clock");
        assert_eq!(state.handed_out.digests().count(), 2);
    }

    #[test]
    fn the_oldest_go_first_and_those_that_are_over_when_another_comes() {
        let names: Vec<_> = (0..70).map(|index| index.to_string()).collect();
        let often: Vec<_> = names.iter().zip(1..).map(|(name, at)| (name.as_str(), at)).collect();
        let state_of_many = state(&often);
        assert_eq!(state_of_many.handed_out.digests().count(), MAX_HANDED_OUT);
        let first_known = names.iter().position(|name| known(&state_of_many, name, at(71)));
        assert_eq!(first_known, Some(70 - 1 - MAX_HANDED_OUT));
        let rarely = state(&[("a", 0), ("b", HOUR), ("c", 4 * HOUR), ("d", 9 * HOUR)]);
        assert_eq!(rarely.handed_out.digests().collect::<Vec<_>>(), [Secret::new("c").sha256()]);
        let again = state(&[("a", 0), ("b", 1), ("a", 2), ("c", 3)]);
        assert_eq!(again.handed_out.digests().count(), 2, "one that has come again counts once");
        assert!(known(&again, "a", at(4 * HOUR + 1)));
    }

    #[test]
    fn they_outlive_the_process_and_the_boot_and_no_removal_nor_another_upstream() {
        let state = state(&[("a", 0), ("b", 60)]);
        let text = serde_json::to_string(&state).unwrap();
        let read: AccountState = serde_json::from_str(&text).unwrap();
        assert_eq!(read.handed_out, state.handed_out);
        let digest = crate::secret::hex(&Secret::new("a").sha256());
        assert!(
            text.contains(&format!("\"handed_out\":[{{\"sha256\":\"{digest}\",\"expires_at\":")),
            "{text}"
        );
        let rebooted = Moment { wall_ms: at(HOUR).wall_ms, boot_ms: 0 };
        let rebased = read.rebased(rebooted);
        let later = |seconds| rebooted + Duration::from_secs(seconds);
        assert!(known(&rebased, "a", later(3 * HOUR - 1)) && !known(&rebased, "a", later(3 * HOUR)));
        let mut forgotten = state.clone();
        forgotten.forget_token();
        for gone in [&state.tombstone(), &forgotten] {
            assert!(!known(gone, "a", at(60)) && !known(gone, "b", at(60)));
            assert!(
                !serde_json::to_string(gone).unwrap().contains("handed_out"),
                "nothing is written of none"
            );
        }
        let old_format: AccountState = serde_json::from_str(
            r#"{"version":7,"token":null,"doubt":null,"audit_at":null,"intent":null,"ledger":{},"forced":[]}"#,
        )
        .unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(old_format.handed_out.is_empty());
    }
}
