//! Counters for the metrics.
//!
//! An account's own counters are kept with it and vanish with it. Those over all accounts must not fall when
//! one is removed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use metrics::counter;
use serde::Serialize;
use wxtokend_core::fault::Fault;
use wxtokend_core::reference::metrics::HINTS;
use wxtokend_core::token::state::{HintSource, HintVerdict};
use wxtokend_core::token::transition::Fetched;

/// Counters of one account, or of all, since the program started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    refreshed: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
    rejections: [AtomicU64; 4],
    failures: Mutex<BTreeMap<(&'static str, Option<i64>), u64>>,
}

/// How a rejection or a request to refresh was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionOutcome {
    /// There is a new token.
    Refreshed,
    /// The token named was not the current one.
    Superseded,
    /// WeChat honours the current token.
    StillValid,
    /// Not now: cool-down, spacing or the budget forbid it.
    Limited,
}

impl fmt::Display for RejectionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RejectionOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Refreshed, Self::Superseded, Self::StillValid, Self::Limited];

    /// The name in the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Superseded => "superseded",
            Self::StillValid => "still_valid",
            Self::Limited => "limited",
        }
    }
}

/// Counts what became of a hint that a token may be dead. Only the fleet's sum is kept.
pub(crate) fn count_hint(source: HintSource, verdict: HintVerdict) {
    counter!(HINTS.name, "source" => source.as_str(), "verdict" => verdict.as_str()).increment(1);
}

impl Tally {
    pub(crate) fn count_fetch(&self, fetched: Fetched, fault: Option<&Fault>) {
        let counter = match fetched {
            Fetched::New => &self.refreshed,
            Fetched::Same => &self.unchanged,
            Fetched::Failed => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let (Fetched::Failed, Some(fault)) = (fetched, fault) {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            *failures.entry((fault.kind.as_str(), fault.errcode)).or_default() += 1;
        }
    }

    pub(crate) fn count_rejection(&self, outcome: RejectionOutcome) {
        self.rejections[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Token calls by how they ended: `refreshed`, `unchanged` (WeChat handed out the same token) or `failed`.
    #[must_use]
    pub(crate) fn refreshes(&self) -> [(&'static str, u64); 3] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("refreshed", read(&self.refreshed)),
            ("unchanged", read(&self.unchanged)),
            ("failed", read(&self.failed)),
        ]
    }

    /// Rejections by outcome.
    #[must_use]
    pub(crate) fn rejections(&self) -> [(&'static str, u64); 4] {
        RejectionOutcome::ALL
            .map(|outcome| (outcome.as_str(), self.rejections[outcome as usize].load(Ordering::Relaxed)))
    }

    /// Failed token calls by kind and errcode.
    #[must_use]
    pub(crate) fn failures(&self) -> Vec<(&'static str, Option<i64>, u64)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|((kind, errcode), count)| (*kind, *errcode, *count)).collect()
    }
}
