//! The state of an account, or of one of its tickets, as seen from outside.

use std::fmt;

use serde::Serialize;

use crate::last_failure::LastFailure;

/// The state of an account as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The first attempt has not finished.
    Starting,
    /// Has a valid token.
    Fresh,
    /// Has a valid token; a call is in flight.
    Refreshing,
    /// Has a valid token, but the last call failed.
    Degraded,
    /// Has no valid token.
    Unavailable,
    /// Needs an operator to act; may still hold a valid token.
    Parked,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Fresh, Self::Refreshing, Self::Degraded, Self::Unavailable, Self::Parked];

    /// Derives a credential's phase from its last failure, whether it is usable, and whether a call is under way.
    #[must_use]
    pub fn of(
        last_failure: Option<&LastFailure>,
        is_usable: bool,
        is_busy: bool,
        attempts_ended: u64,
    ) -> Self {
        match (last_failure.map(LastFailure::is_parked), is_usable) {
            (Some(true), _) => Self::Parked,
            (_, true) if is_busy => Self::Refreshing,
            (Some(_), true) => Self::Degraded,
            (None, true) => Self::Fresh,
            (None, false) if attempts_ended == 0 => Self::Starting,
            (_, false) => Self::Unavailable,
        }
    }

    /// The phase's name in the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Fresh => "fresh",
            Self::Refreshing => "refreshing",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Parked => "parked",
        }
    }

    /// Whether something is wrong. A call in flight, or a first attempt that has not finished, does not
    /// count.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Degraded | Self::Unavailable | Self::Parked)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
