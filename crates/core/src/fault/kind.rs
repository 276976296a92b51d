//! How a failure is treated, whom it affects, and how long to wait after it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// How often a parked account is retried: a whitelist entry takes about 5 minutes to take effect.
pub(super) const PARKED: Wait = Wait::Every(Duration::from_secs(5 * 60));

/// How a failure is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// Passes by itself: retried with back-off.
    Transient,
    /// A quota, WeChat's or ours, is used up: waited out.
    Throttled,
    /// Needs an operator: retried slowly, shown prominently, never given up.
    Parked,
    /// The call may have minted a token, but its answer did not reach us.
    UnknownOutcome,
}

impl FaultKind {
    /// The kind's name in the API, the logs and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Parked => "parked",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a failure affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultScope {
    /// This account only.
    Account,
    /// Every account that uses the host.
    Host,
    /// The account, which has spent its own daily budget.
    Budget,
}

/// How long to wait before the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// From `retry.initial` to `retry.max`, sooner near expiry.
    BackOff,
    /// Always this long.
    For(Duration),
    /// This long, and sooner as a live token nears its end.
    Every(Duration),
    /// Doubling from `retry.initial` up to this.
    UpTo(Duration),
    /// Like `BackOff`, but never sooner than this, as the answer requested.
    NotBefore(Duration),
}
