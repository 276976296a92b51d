//! What an account, or a ticket of its, looks like from outside.

use serde::Serialize;

use crate::last_failure::LastFailure;

/// What the account looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The first attempt has not ended.
    Starting,
    /// Valid token.
    Fresh,
    /// Valid token, call in flight.
    Refreshing,
    /// Valid token, last call failed.
    Degraded,
    /// No valid token.
    Unavailable,
    /// Needs a person; may still hold a valid token.
    Parked,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Fresh, Self::Refreshing, Self::Degraded, Self::Unavailable, Self::Parked];

    /// That of a credential: what is wrong with it, whether it may be served, whether a call is under way.
    #[must_use]
    pub fn of(trouble: Option<&LastFailure>, is_usable: bool, is_busy: bool, attempts_ended: u64) -> Self {
        match (trouble.map(LastFailure::is_parked), is_usable) {
            (Some(true), _) => Self::Parked,
            (_, true) if is_busy => Self::Refreshing,
            (Some(_), true) => Self::Degraded,
            (None, true) => Self::Fresh,
            (None, false) if attempts_ended == 0 => Self::Starting,
            (_, false) => Self::Unavailable,
        }
    }

    /// The name in the API and the metrics.
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

    /// Whether something is wrong; that a call is under way, or the first one, is not.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Degraded | Self::Unavailable | Self::Parked)
    }
}
