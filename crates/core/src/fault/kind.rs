//! How a failure is treated, whose trouble it is and how long to wait after it.

use std::time::Duration;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// How often a parked account is asked: a whitelist entry takes about 5 minutes to work.
pub(super) const PARKED: Wait = Wait::Every(Duration::from_secs(5 * 60));

/// How a failure is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Passes by itself: asked again with back-off.
    Transient,
    /// A quota, WeChat's or ours, is used up: waited out.
    Throttled,
    /// Needs a person: asked slowly, shown loudly, never given up.
    Parked,
    /// The call may have minted a token, but its answer did not reach us.
    UnknownOutcome,
}

impl FaultKind {
    /// The name in the API, the logs and the metrics.
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

/// FaultScope trouble a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultScope {
    /// This account's alone.
    Account,
    /// Every account's that uses the host.
    Host,
    /// Ours: the account has spent its own daily budget.
    Budget,
}

/// How long to wait before the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// From `retry.initial` to `retry.max`, sooner near expiry.
    BackOff,
    /// Always this long.
    For(Duration),
    /// This long, and sooner while a living token nears its end.
    Every(Duration),
    /// Doubling from `retry.initial` up to this.
    UpTo(Duration),
    /// As `BackOff`, and never sooner than this: whoever answered has asked for it.
    NotBefore(Duration),
}
