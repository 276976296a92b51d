//! Finds the account of a token, for callers that send a token and name no account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::{HeldToken, Validity};

type TokenDigest = [u8; 32];

/// The tokens of all accounts: the newest of each, and the one before it while WeChat honours that.
#[derive(Default)]
pub(crate) struct TokenIndex {
    known: Mutex<IndexedTokens>,
}

#[derive(Default)]
struct IndexedTokens {
    by_digest: HashMap<TokenDigest, Appid>,
    before: HashMap<Appid, (TokenDigest, Moment)>,
}

impl TokenIndex {
    /// Records that an account's token has been replaced.
    pub(crate) fn note(
        &self,
        appid: &Appid,
        old: Option<&Arc<HeldToken>>,
        new: Option<&Arc<HeldToken>>,
        now: Moment,
    ) {
        let is_same = |old: &Arc<HeldToken>| new.is_some_and(|new| Arc::ptr_eq(old, new));
        if old.is_some_and(is_same) {
            return;
        }
        let digest = |token: &Arc<HeldToken>| token.value.sha256();
        let (old, new) = (old.map(|old| (old, digest(old))), new.map(digest));
        if old.map(|(_, old)| old) == new {
            return;
        }
        let mut known = self.lock();
        if let Some((gone, _)) = known.before.remove(appid) {
            known.by_digest.remove(&gone);
        }
        match (old, new) {
            // A successor does not end the old token at once, unless that was dead before.
            (Some((old, digest)), Some(_))
                if old.validity == Validity::Good && !old.expires_at.is_over(now) =>
            {
                let until = (now + old.grace()).min(old.expires_at);
                known.before.insert(appid.clone(), (digest, until));
            }
            (Some((_, digest)), _) => drop(known.by_digest.remove(&digest)),
            (None, _) => {}
        }
        if let Some(new) = new {
            known.by_digest.insert(new, appid.clone());
        }
    }

    /// The account whose token this is, or was until a moment ago.
    pub(crate) fn of(&self, token: &Secret, now: Moment) -> Option<Appid> {
        let digest = token.sha256();
        let known = self.lock();
        let appid = known.by_digest.get(&digest)?;
        match known.before.get(appid) {
            Some((before, until)) if *before == digest && until.is_over(now) => None,
            _ => Some(appid.clone()),
        }
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

    #[test]
    fn a_token_is_known_until_its_successors_overlap_is_over() {
        let at = |seconds| Moment { wall_ms: 1_790_000_000_000, boot_ms: 0 } + Duration::from_secs(seconds);
        let account = Account::example(Endpoint::Token);
        let token = |value: &str| {
            let example = HeldToken::example(&account, at(0), Duration::from_secs(7200));
            Arc::new(HeldToken { value: Secret::new(value), ..example })
        };
        let (token_index, appid) = (TokenIndex::default(), &account.appid);
        let of = |value: &str, seconds| token_index.of(&Secret::new(value), at(seconds)).is_some();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(token);
        token_index.note(appid, None, Some(&a), at(0));
        assert!(of("a", 9999) && !of("b", 0));
        token_index.note(appid, Some(&a), Some(&b), at(100));
        assert!(of("b", 100) && of("a", 339) && !of("a", 340), "four fifths of 5 min");
        token_index.note(appid, Some(&b), Some(&c), at(101));
        assert!(of("c", 101) && of("b", 101) && !of("a", 101), "one before is enough");
        let dead = Arc::new(HeldToken { validity: Validity::Refused, ..HeldToken::clone(&c) });
        token_index.note(appid, Some(&c), Some(&dead), at(102));
        token_index.note(appid, Some(&dead), Some(&d), at(103));
        assert!(of("d", 103) && !of("c", 103), "WeChat refuses it");
        token_index.note(appid, Some(&d), None, at(104));
        assert!(!of("d", 104));
        assert!(token_index.lock().by_digest.is_empty() && token_index.lock().before.is_empty());
    }

    #[test]
    fn a_token_that_has_ended_is_not_revived_by_its_successor() {
        let at = |seconds| Moment { wall_ms: 1_790_000_000_000, boot_ms: 0 } + Duration::from_secs(seconds);
        let account = Account::example(Endpoint::StableToken);
        let token = |value: &str, sent| {
            let example = HeldToken::example(&account, at(sent), Duration::from_secs(7200));
            Arc::new(HeldToken { value: Secret::new(value), ..example })
        };
        let (token_index, appid) = (TokenIndex::default(), &account.appid);
        let of = |value: &str, now| token_index.of(&Secret::new(value), now).is_some();
        let [a, b, c] = [("a", 0), ("b", 9000), ("c", 16_100)].map(|(value, sent)| token(value, sent));
        token_index.note(appid, None, Some(&a), at(0));
        token_index.note(appid, Some(&a), Some(&b), at(9000));
        assert!(!of("a", at(9000)), "it ended half an hour ago");
        token_index.note(appid, Some(&b), Some(&c), at(16_100));
        assert!(of("b", at(16_199)) && !of("b", at(16_200)), "its own end is sooner than the overlap's");
        let ahead = Moment { wall_ms: at(16_200).wall_ms, ..at(16_150) };
        assert!(!of("b", ahead), "by the other clock");
    }
}
