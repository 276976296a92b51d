//! Tickets: what pages in WeChat (`jsapi`) and card coupons (`wx_card`) are signed with.
//!
//! They are fetched with an account's token and outlive it. WeChat answers with the same ticket until it ends, and
//! says each time that it lives a whole lifetime: how old it is must be known from when it was seen first. Where that is
//! not known, because somebody may have fetched it before us, WeChat is asked again and again whether it still has
//! that ticket, until it has another.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::Appid;
use crate::clock::Moment;
use crate::secret::{Secret, etag};

mod kind;
mod state;

pub use kind::{InvalidTicketKind, TicketKind, TicketKinds};
pub use state::{TicketActivity, TicketCallEnd, TicketState, TicketStep};

/// One thing that is kept fresh: an account's token, or a ticket of its.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// FaultScope it is.
    pub appid: Appid,
    /// Which ticket; `None` for the token.
    pub ticket: Option<TicketKind>,
}

impl Credential {
    /// The account's token.
    #[must_use]
    pub fn token(appid: Appid) -> Self {
        Self { appid, ticket: None }
    }

    /// One of its tickets.
    #[must_use]
    pub fn ticket(appid: Appid, kind: TicketKind) -> Self {
        Self { appid, ticket: Some(kind) }
    }
}

/// `appid`, or `appid/kind` for a ticket.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ticket {
            None => write!(f, "{}", self.appid),
            Some(kind) => write!(f, "{}/{}", self.appid, kind.as_str()),
        }
    }
}

/// A ticket as WeChat handed it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTicket {
    /// The ticket.
    #[serde(with = "crate::secret::on_disk")]
    pub value: Secret,
    /// Counts the account's tickets of this kind, +1 for each new value.
    pub version: u64,
    /// When it was made, at the earliest; where that is not known, when it was first seen.
    pub issued_at: Moment,
    /// Until when it is trusted.
    pub expires_at: Moment,
    /// It ends at this instant or later,
    pub ends_from: Moment,
    /// and at this one or earlier.
    pub ends_by: Moment,
    /// When the last call that brought it was sent.
    pub seen_at: Moment,
    /// Whether it is known when it was made.
    pub is_age_known: bool,
    /// How long WeChat says that one lives.
    pub lifetime: Duration,
    /// When to ask again.
    pub ask_at: Moment,
    /// The SHA-256 of the one before.
    #[serde(default)]
    pub before: Option<[u8; 32]>,
}

impl HeldTicket {
    /// How often a ticket of unknown age is looked after: 5 min at WeChat's 2 h.
    fn look(&self) -> Duration {
        look(self.lifetime)
    }
}

/// However short a ticket's life is, no two looks after it follow each other faster.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

fn look(lifetime: Duration) -> Duration {
    (lifetime / 24).max(SHORTEST_PAUSE)
}

/// A live ticket. Clones cheaply.
#[derive(Clone)]
pub struct Ticket {
    held: Arc<HeldTicket>,
    expires_in: Duration,
}

impl Ticket {
    /// What is kept.
    #[must_use]
    pub fn held(&self) -> &Arc<HeldTicket> {
        &self.held
    }

    /// The ticket to sign with.
    #[must_use]
    pub fn value(&self) -> &str {
        self.held.value.expose()
    }

    /// How long, from the moment this was read, it may be relied on.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// Until when it is trusted, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.held.expires_at.timestamp()
    }

    /// Counts the account's tickets of this kind, +1 for each new value; never goes back.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.held.version
    }

    /// Names this value without telling it: `<version>-<8 hex of its SHA-256>`.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.held.version, &self.held.value)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("version", &self.held.version)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
