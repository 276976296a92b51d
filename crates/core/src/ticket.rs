//! Tickets: what pages in WeChat (`jsapi`) and card coupons (`wx_card`) are signed with.
//!
//! They are fetched with an account's token and outlive it. WeChat returns the same ticket until it ends, and
//! always reports a whole lifetime, so a ticket's age must be derived from when it was first seen. If the age
//! is not known, because another program may have fetched the ticket before us, we poll WeChat until it
//! returns another one.

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

/// A credential that is kept fresh: an account's token, or one of its tickets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// The account it belongs to.
    pub appid: Appid,
    /// The kind of ticket; `None` for the token.
    pub ticket: Option<TicketKind>,
}

impl Credential {
    /// The account's token.
    #[must_use]
    pub fn token(appid: Appid) -> Self {
        Self { appid, ticket: None }
    }

    /// One of the account's tickets.
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
    /// When it was issued, at the earliest; if that is not known, when it was first seen.
    pub issued_at: Moment,
    /// Until when it is trusted.
    pub expires_at: Moment,
    /// Earliest instant at which it may end.
    pub ends_from: Moment,
    /// Latest instant at which it may end.
    pub ends_by: Moment,
    /// When the last call that returned it was sent.
    pub seen_at: Moment,
    /// Whether it is known when it was issued.
    pub is_age_known: bool,
    /// Lifetime of a ticket according to WeChat.
    pub lifetime: Duration,
    /// When to ask again.
    pub ask_at: Moment,
    /// SHA-256 of the previous ticket.
    #[serde(default)]
    pub before: Option<[u8; 32]>,
}

impl HeldTicket {
    /// How often a ticket of unknown age is polled: every 5 min at WeChat's 2 h.
    fn poll_interval(&self) -> Duration {
        poll_interval(self.lifetime)
    }
}

/// Shortest pause between two polls, however short-lived the ticket.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

fn poll_interval(lifetime: Duration) -> Duration {
    (lifetime / 24).max(SHORTEST_PAUSE)
}

/// A live ticket. Cheap to clone.
#[derive(Clone)]
pub struct Ticket {
    held: Arc<HeldTicket>,
    expires_in: Duration,
}

impl Ticket {
    /// Returns the ticket as it is kept.
    #[must_use]
    pub fn held(&self) -> &Arc<HeldTicket> {
        &self.held
    }

    /// The same ticket, promised for `longest` at most.
    #[must_use]
    pub fn promised_at_most(self, longest: Duration) -> Self {
        Self { expires_in: self.expires_in.min(longest), ..self }
    }

    /// The ticket to sign with.
    #[must_use]
    pub fn value(&self) -> &str {
        self.held.value.expose()
    }

    /// How long it may be relied on, counted from when this was read.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// Until when it is trusted, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.held.expires_at.timestamp()
    }

    /// Counts the account's tickets of this kind: +1 for each new value, never decreases.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.held.version
    }

    /// Identifies this value without revealing it: `<version>-<8 hex of its SHA-256>`.
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
