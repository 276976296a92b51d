//! Requests still on their way after their clients have given up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::wire::Request;

/// Requests that are carried out later, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Keyed by arrival, then by the order of sending.
    by_arrival: BTreeMap<(Duration, u64), Request>,
    sent: u64,
}

impl Late {
    /// Adds a request that arrives at `due`.
    pub(super) fn add(&mut self, due: Duration, request: Request) {
        self.by_arrival.insert((due, self.sent), request);
        self.sent += 1;
    }

    /// Returns when the next one arrives.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.by_arrival.keys().next().map(|&(due, _)| due)
    }

    /// Removes and returns the next one, if it has arrived by `now`.
    pub(super) fn due_by(&mut self, now: Duration) -> Option<(Duration, Request)> {
        let first = self.by_arrival.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, _), request) = first.remove_entry();
        Some((due, request))
    }
}
