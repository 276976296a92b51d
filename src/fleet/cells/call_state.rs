//! The state of an account's call: none, in flight, or ended and not yet taken in.

use wxtokend_core::token::transition::{CheckEnd, FetchEnd};

/// Whether an account has a call in flight, or one whose end its actor has not taken in yet.
#[derive(Debug, Default)]
pub(crate) enum CallState {
    /// No call is in flight.
    #[default]
    Idle,
    /// Waiting for a slot, or sent.
    InFlight,
    /// In flight, but its result is no longer wanted.
    Abandoned,
    /// It has ended.
    Finished(CallEnd),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum CallEnd {
    Fetch {
        end: FetchEnd,
        /// Whether a second call was charged and not made.
        spare_left: bool,
    },
    Check(CheckEnd),
    /// A fetch whose result is unwanted: all that counts is that it was made.
    Abandoned {
        force: bool,
        was_sent: bool,
    },
}

impl CallEnd {
    /// The end of a call whose upstream or account has been replaced since. A token that it brought is not
    /// ours.
    pub(crate) fn abandoned(self) -> Self {
        match self {
            Self::Fetch { end, .. } => Self::Abandoned { force: end.force, was_sent: end.sent_at.is_some() },
            other => other,
        }
    }
}
