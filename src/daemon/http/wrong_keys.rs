//! Wrong keys: counted one by one, told in a line now and then.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;
use tracing::warn;

/// There is no more than a line in this time, however many keys are tried.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Of all requests whose key was nobody's.
pub(super) struct WrongKeys {
    counter: Counter,
    untold: Mutex<Unreported>,
    sign_in_told: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Unreported {
    requests: u64,
    last_from: Option<IpAddr>,
    told: Option<Instant>,
}

impl WrongKeys {
    pub(super) fn new(counter: Counter) -> Self {
        Self { counter, untold: Mutex::default(), sign_in_told: Mutex::default() }
    }

    /// A request from there had a wrong key.
    pub(super) fn note(&self, from: Option<IpAddr>) {
        self.counter.increment(1);
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.requests += 1;
        untold.last_from = from;
    }

    /// To be called every second or so.
    pub(super) fn tell(&self) {
        if let Some((requests, from)) = self.news() {
            warn!(
                event = "wrong_keys",
                requests,
                last_from = from.map(tracing::field::display),
                "requests came with keys of nobody's: somebody has an old key, or guesses"
            );
        }
    }

    fn news(&self) -> Option<(u64, Option<IpAddr>)> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.requests == 0 || !is_due(&mut untold.told) {
            return None;
        }
        Some((std::mem::take(&mut untold.requests), untold.last_from))
    }

    /// Whether a wrong key on the status page is to be told by itself.
    pub(super) fn is_sign_in_told(&self) -> bool {
        is_due(&mut self.sign_in_told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_due(told: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due = told.is_none_or(|told| told + TOLD_EVERY <= now);
    if is_due {
        *told = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_keys_are_tried_a_line_a_minute_tells_of_all() {
        let keys = WrongKeys::new(Counter::noop());
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(keys.news(), None);
        keys.note(None);
        assert_eq!(keys.news(), Some((1, None)), "the first at once");
        for _ in 0..59 {
            keys.note(from);
            advance(Duration::from_secs(1)).await;
            assert_eq!(keys.news(), None);
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!(keys.news(), Some((59, from)));
        assert!(keys.is_sign_in_told() && !keys.is_sign_in_told());
        advance(TOLD_EVERY).await;
        assert!(keys.news().is_none() && keys.is_sign_in_told());
    }
}
