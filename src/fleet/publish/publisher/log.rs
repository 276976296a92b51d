//! Logs a sink's problems: each once, and once more when it is over.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::refusals::Refusals;
use crate::fleet::publish::sink_error::SinkError;

/// How often drift is logged, and how often refusals are.
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Log {
    sink: String,
    is_down: bool,
    drifted: usize,
    drift_reported_at: Option<Instant>,
    refusal_reported_at: Option<Instant>,
}

impl Log {
    pub(super) fn of(sink: &str) -> Self {
        Self { sink: sink.to_owned(), ..Self::default() }
    }

    pub(super) fn up(&mut self, accounts: usize) {
        self.is_down = false;
        let sink = self.sink.as_str();
        info!(event = "redis_up", sink, accounts, "tokens are published to {sink}");
    }

    pub(super) fn down(&mut self, trouble: &SinkError) {
        if !std::mem::replace(&mut self.is_down, true) {
            let sink = self.sink.as_str();
            warn!(
                event = "redis_down",
                sink,
                error = %trouble,
                "tokens cannot be published to {sink}; they are, when it is back: {trouble}"
            );
        }
    }

    /// Counts more accounts that another program had changed.
    pub(super) fn drift(&mut self, accounts: usize) {
        self.drifted += accounts;
    }

    /// Logs drift, unless that was logged recently.
    pub(super) fn report_drift(&mut self) {
        if self.drifted == 0 || !may_report(&mut self.drift_reported_at) {
            return;
        }
        let (sink, accounts) = (self.sink.as_str(), std::mem::take(&mut self.drifted));
        warn!(
            event = "redis_drift",
            sink,
            accounts,
            "somebody else deleted or overwrote tokens in {sink}; ours are put back. An SDK does so when it meets 40001, \
             or fetches tokens itself: find who else has the AppSecrets"
        );
    }

    /// Logs accounts that were not refused before, unless that was logged recently or the whole sink is
    /// logged as down.
    pub(super) fn report_refusals(&mut self, refusals: &mut Refusals) {
        let Some(refusal) = refusals.last().filter(|_| !self.is_down) else { return };
        let (code, trouble) = (refusal.code.as_str(), &refusal.trouble);
        let (sink, accounts) = (self.sink.as_str(), refusals.count());
        if refusals.has_unreported() && may_report(&mut self.refusal_reported_at) {
            warn!(
                event = "redis_refused",
                sink,
                accounts,
                code,
                "{sink} does not take some keys, which are tried again (accounts: {accounts}): {trouble}"
            );
            refusals.mark_reported();
        }
    }
}

fn may_report(reported_at: &mut Option<Instant>) -> bool {
    let may = reported_at.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
    if may {
        *reported_at = Some(Instant::now());
    }
    may
}
