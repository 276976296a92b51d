//! Where an account's call is: none, one in flight, one that has ended and is to be taken in.

use wxtokend_core::token::transition::{CheckEnd, FetchEnd};

/// Whether an account has a call under way, and how the last one ended until its actor has taken that in.
#[derive(Debug, Default)]
pub(crate) enum CallState {
    /// Nothing is under way.
    #[default]
    Idle,
    /// Queued, or sent.
    InFlight,
    /// The same, and what it brings is not wanted any more.
    Abandoned,
    /// Over.
    Finished(CallEnd),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum CallEnd {
    Fetch {
        end: FetchEnd,
        /// A second call was charged and not made.
        spare_left: bool,
    },
    Check(CheckEnd),
    /// A fetch, of which nothing counts but that it was made.
    Abandoned {
        force: bool,
        was_sent: bool,
    },
}

impl CallEnd {
    /// That of a call whose upstream or account is not the one of then: a token that it brought is none of ours.
    pub(crate) fn abandoned(self) -> Self {
        match self {
            Self::Fetch { end, .. } => Self::Abandoned { force: end.force, was_sent: end.sent_at.is_some() },
            told => told,
        }
    }
}
