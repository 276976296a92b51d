//! Wrong keys: each is counted, and all are reported in one log line now and then.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;
use tracing::warn;

/// Minimum interval between two log lines, however many keys are tried.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Requests with a key that no client has.
pub(super) struct WrongKeys {
    counter: Counter,
    unreported: Mutex<Unreported>,
    sign_in_logged: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Unreported {
    requests: u64,
    last_from: Option<IpAddr>,
    last_logged: Option<Instant>,
}

impl WrongKeys {
    pub(super) fn new(counter: Counter) -> Self {
        Self { counter, unreported: Mutex::default(), sign_in_logged: Mutex::default() }
    }

    /// Records a request with a wrong key from the address `from`.
    pub(super) fn note(&self, from: Option<IpAddr>) {
        self.counter.increment(1);
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.requests += 1;
        unreported.last_from = from;
    }

    /// Logs wrong keys that have not been reported yet. Call this about every second.
    pub(super) fn log_unreported(&self) {
        if let Some((requests, from)) = self.take_unreported() {
            warn!(
                event = "wrong_keys",
                requests,
                last_from = from.map(tracing::field::display),
                "requests came with keys that no client has: somebody has an old key, or guesses"
            );
        }
    }

    fn take_unreported(&self) -> Option<(u64, Option<IpAddr>)> {
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        if unreported.requests == 0 || !is_due(&mut unreported.last_logged) {
            return None;
        }
        Some((std::mem::take(&mut unreported.requests), unreported.last_from))
    }

    /// Whether a wrong key on the status page should be logged now.
    pub(super) fn should_log_sign_in(&self) -> bool {
        is_due(&mut self.sign_in_logged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_due(last_logged: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due = last_logged.is_none_or(|last_logged| last_logged + LOG_INTERVAL <= now);
    if is_due {
        *last_logged = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_keys_are_tried_one_line_a_minute_reports_them_all() {
        let keys = WrongKeys::new(Counter::noop());
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(keys.take_unreported(), None);
        keys.note(None);
        assert_eq!(keys.take_unreported(), Some((1, None)), "the first at once");
        for _ in 0..59 {
            keys.note(from);
            advance(Duration::from_secs(1)).await;
            assert_eq!(keys.take_unreported(), None);
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!(keys.take_unreported(), Some((59, from)));
        assert!(keys.should_log_sign_in() && !keys.should_log_sign_in());
        advance(LOG_INTERVAL).await;
        assert!(keys.take_unreported().is_none() && keys.should_log_sign_in());
    }
}
