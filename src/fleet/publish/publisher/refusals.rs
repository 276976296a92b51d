//! The tokens and tickets whose keys Redis refuses, while it accepts others'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::ticket::Credential;

use crate::fleet::publish::sink_error::RedisRefusal;

/// The delay before the next attempt doubles from this,
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// up to this.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Refused credentials. Each waits on its own, so that a refused one delays no other.
#[derive(Default)]
pub(super) struct Refusals {
    of: BTreeMap<Credential, RefusedKey>,
    last: Option<RedisRefusal>,
    /// Whether one of them has not been refused before.
    has_unreported: bool,
}

struct RefusedKey {
    times: u32,
    retry_at: Instant,
}

impl Refusals {
    /// Records that it was refused.
    pub(super) fn add(&mut self, credential: Credential, refusal: RedisRefusal, now: Instant) {
        let times = self.of.get(&credential).map_or(0, |refused| refused.times);
        let wait = MIN_RETRY_DELAY.saturating_mul(2_u32.saturating_pow(times)).min(MAX_RETRY_DELAY);
        self.of.insert(credential, RefusedKey { times: times.saturating_add(1), retry_at: now + wait });
        self.last = Some(refusal);
        self.has_unreported |= times == 0;
    }

    /// Records that it is no longer refused.
    pub(super) fn lift(&mut self, credential: &Credential) {
        self.of.remove(credential);
    }

    /// How many are refused.
    pub(super) fn count(&self) -> usize {
        self.of.len()
    }

    /// The last refusal, while anything is refused.
    pub(super) fn last(&self) -> Option<&RedisRefusal> {
        self.last.as_ref().filter(|_| !self.of.is_empty())
    }

    /// Whether there are any that have not been logged.
    pub(super) fn has_unreported(&self) -> bool {
        self.has_unreported
    }

    /// Marks them as logged.
    pub(super) fn mark_reported(&mut self) {
        self.has_unreported = false;
    }

    /// How many are not on the list of credentials to write.
    pub(super) fn count_not_in(&self, todo: &BTreeSet<Credential>) -> usize {
        self.of.keys().filter(|credential| !todo.contains(*credential)).count()
    }

    /// The credentials that are due for another attempt.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Credential> {
        self.of.iter().filter(move |(_, refused)| refused.retry_at <= now).map(|(credential, _)| credential)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.of.values().map(|refused| refused.retry_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wxtokend_core::account::Appid;

    fn refusal() -> RedisRefusal {
        RedisRefusal::example("NOPERM")
    }

    #[test]
    fn what_is_refused_waits_longer_each_time_and_alone() {
        let [a, b] = ["wxa", "wxb"].map(|appid| Credential::token(Appid::new(appid).unwrap()));
        let start = Instant::now();
        let mut refusals = Refusals::default();
        let mut now = start;
        let waits: Vec<u64> = (0..8)
            .map(|time| {
                refusals.add(a.clone(), refusal(), now);
                assert_eq!(refusals.has_unreported(), time == 0);
                refusals.mark_reported();
                let next = refusals.next().unwrap();
                assert_eq!(refusals.due(now).count(), 0);
                let wait = (next - now).as_secs();
                now = next;
                assert_eq!(refusals.due(now).collect::<Vec<_>>(), [&a]);
                wait
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);

        refusals.add(b.clone(), refusal(), now);
        assert_eq!((refusals.count(), refusals.count_not_in(&BTreeSet::from([a.clone()]))), (2, 1));
        refusals.lift(&a);
        assert_eq!(refusals.next(), Some(now + MIN_RETRY_DELAY));
        refusals.lift(&b);
        assert_eq!((refusals.count(), refusals.next(), refusals.last()), (0, None, None));
    }
}
