//! Finds the account of a token, for callers that send a token and name no account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::token::Validity;
use wxtokend_core::token::handed_out::TokenDigest;
use wxtokend_core::token::state::AccountState;

/// The tokens of all accounts: the newest of each, and those before it that its state remembers.
///
/// Lookups are not constant-time. What they compare are digests of what a caller has sent: however long a comparison
/// takes, it says nothing about a token, of which WeChat has drawn every bit.
#[derive(Default)]
pub(crate) struct TokenIndex {
    known: Mutex<IndexedTokens>,
}

#[derive(Default)]
struct IndexedTokens {
    by_digest: HashMap<TokenDigest, Appid>,
    /// The token before the newest, while WeChat honours it.
    before: HashMap<Appid, (TokenDigest, Moment)>,
}

impl TokenIndex {
    /// Records that an account's state has been replaced.
    pub(crate) fn note(&self, appid: &Appid, old: &AccountState, new: &AccountState, now: Moment) {
        let (before, after) = (&old.token, &new.token);
        // Nearly always nothing has changed, and the two share what they hold.
        if old.handed_out == new.handed_out
            && before.as_ref().map(Arc::as_ptr) == after.as_ref().map(Arc::as_ptr)
        {
            return;
        }
        let newest = |state: &AccountState| state.token.as_ref().map(|token| token.value.sha256());
        let (old_newest, new_newest) = (newest(old), newest(new));
        let all = |state: &AccountState| {
            newest(state).into_iter().chain(state.handed_out.digests()).collect::<Vec<_>>()
        };
        let (gone, all) = (all(old), all(new));
        let mut known = self.lock();
        if old_newest != new_newest {
            known.before.remove(appid);
            // A successor does not end the old token at once, unless that was dead before.
            let honoured = before.as_ref().filter(|token| token.validity == Validity::Good);
            let honoured = honoured.filter(|token| new_newest.is_some() && !token.expires_at.is_over(now));
            if let Some(token) = honoured {
                let until = (now + token.grace()).min(token.expires_at);
                known.before.insert(appid.clone(), (token.value.sha256(), until));
            }
        }
        for digest in gone.iter().filter(|digest| !all.contains(digest)) {
            known.by_digest.remove(digest);
        }
        known.by_digest.extend(all.into_iter().map(|digest| (digest, appid.clone())));
    }

    /// The account that has, or had, the token with this digest. Its state says until when that counts.
    pub(crate) fn account_of(&self, sha256: &TokenDigest) -> Option<Appid> {
        self.lock().by_digest.get(sha256).cloned()
    }

    /// Whether the token with this digest is the one before the account's newest, and WeChat still honours it.
    pub(crate) fn is_in_overlap(&self, appid: &Appid, sha256: &TokenDigest, now: Moment) -> bool {
        let known = self.lock();
        known.before.get(appid).is_some_and(|(before, until)| before == sha256 && !until.is_over(now))
    }

    fn lock(&self) -> MutexGuard<'_, IndexedTokens> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use wxtokend_core::account::{Account, Endpoint};
    use wxtokend_core::secret::Secret;
    use wxtokend_core::token::HeldToken;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: 1_790_000_000_000, boot_ms: 0 } + Duration::from_secs(seconds)
    }

    /// One account, whose state changes as its actor would change it.
    struct Indexed {
        token_index: TokenIndex,
        account: Account,
        state: AccountState,
    }

    impl Indexed {
        fn new(endpoint: Endpoint) -> Self {
            Self {
                token_index: TokenIndex::default(),
                account: Account::example(endpoint),
                state: AccountState::default(),
            }
        }

        fn note(&mut self, new: AccountState, seconds: u64) {
            self.token_index.note(&self.account.appid, &self.state, &new, at(seconds));
            self.state = new;
        }

        /// A token with this value comes, by a call that was sent then.
        fn gets(&mut self, value: &str, seconds: u64) {
            let example = HeldToken::example(&self.account, at(seconds), Duration::from_secs(7200));
            let token = HeldToken { value: Secret::new(value), ..example };
            let mut new = self.state.clone();
            new.replace_token(token, Duration::from_secs(60), at(seconds));
            self.note(new, seconds);
        }

        fn is_known(&self, value: &str) -> bool {
            self.token_index.account_of(&Secret::new(value).sha256()).is_some()
        }

        fn is_in_overlap(&self, value: &str, now: Moment) -> bool {
            self.token_index.is_in_overlap(&self.account.appid, &Secret::new(value).sha256(), now)
        }
    }

    #[test]
    fn the_token_before_the_newest_is_honoured_until_the_overlap_is_over() {
        let mut indexed = Indexed::new(Endpoint::Token);
        indexed.gets("a", 0);
        assert!(indexed.is_known("a") && !indexed.is_known("b") && !indexed.is_in_overlap("a", at(0)));
        indexed.gets("b", 100);
        assert!(!indexed.is_in_overlap("b", at(100)), "it is the newest");
        let overlap = |value, seconds| indexed.is_in_overlap(value, at(seconds));
        assert!(overlap("a", 339) && !overlap("a", 340), "four fifths of 5 min");
        indexed.gets("c", 101);
        let overlap = |value, seconds| indexed.is_in_overlap(value, at(seconds));
        assert!(overlap("b", 101) && !overlap("a", 101), "one before is enough");
        let held = HeldToken::clone(indexed.state.token.as_ref().unwrap());
        let dead = HeldToken { validity: Validity::Refused, ..held };
        indexed.note(AccountState { token: Some(dead.into()), ..indexed.state.clone() }, 102);
        assert!(indexed.is_in_overlap("b", at(102)), "the same tokens");
        indexed.gets("d", 103);
        assert!(
            !indexed.is_in_overlap("c", at(103)) && !indexed.is_in_overlap("b", at(103)),
            "WeChat refuses it"
        );
        assert!(["a", "b", "c", "d"].iter().all(|value| indexed.is_known(value)), "they are remembered");
        indexed.note(indexed.state.tombstone(), 104);
        let known = indexed.token_index.lock();
        assert!(known.by_digest.is_empty() && known.before.is_empty());
    }

    #[test]
    fn a_token_that_has_ended_is_not_revived_by_its_successor_and_is_forgotten_in_time() {
        let mut indexed = Indexed::new(Endpoint::StableToken);
        indexed.gets("a", 0);
        indexed.gets("b", 7230);
        assert!(indexed.is_known("a") && !indexed.is_in_overlap("a", at(7230)), "it ended half a minute ago");
        indexed.gets("c", 14_330);
        assert!(!indexed.is_known("a"), "it ended two hours ago");
        let overlap = |now| indexed.is_in_overlap("b", now);
        assert!(overlap(at(14_429)) && !overlap(at(14_430)), "its own end is sooner than the overlap's");
        let ahead = Moment { wall_ms: at(14_430).wall_ms, ..at(14_380) };
        assert!(!overlap(ahead), "by the other clock");
    }
}
