//! What happens to accounts, as histories and the event stream show it. Never contains a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::last_failure::LastFailure;
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::state::Reason;

use crate::fleet::cells::tally::RejectionOutcome;
use crate::fleet::cells::view::{FaultView, HostView};
use crate::wechat::HostState;

/// One event.
pub(crate) struct Event {
    /// Its sequence number in this process, from 1.
    pub(crate) seq: u64,
    /// The sequence number of the same account's previous event; 0 if there is none.
    pub(crate) previous: u64,
    pub(crate) at: Moment,
    /// The account it happened to; `None` for the fleet as a whole.
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) what: EventKind,
}

/// What happened.
pub(crate) enum EventKind {
    /// There is a new token.
    Token {
        version: u64,
        reason: Option<Reason>,
        issued_at: Moment,
        expires_at: Moment,
        next_at: Option<Moment>,
        duration_ms: u64,
    },
    /// WeChat handed out the token that we already have.
    TokenUnchanged { version: u64, reason: Option<Reason>, duration_ms: u64 },
    /// There is a new ticket.
    Ticket { kind: TicketKind, version: u64, expires_at: Moment, next_at: Option<Moment>, duration_ms: u64 },
    /// A call for a ticket succeeded after one that failed, and brought the ticket that we already have.
    TicketUnchanged { kind: TicketKind, version: u64, duration_ms: u64 },
    /// A call for a ticket failed, or was not made.
    TicketFault { kind: TicketKind, trouble: Box<LastFailure>, duration_ms: Option<u64> },
    /// A token call failed, or was not made.
    Fault { fault: Arc<Fault>, reason: Option<Reason>, duration_ms: Option<u64> },
    /// WeChat was asked whether it honours the token.
    Check { result: &'static str, errcode: Option<i64>, message: Option<String> },
    /// A client said that WeChat refused a token, or an operator asked for a token call.
    ClientRequest(ClientRequest),
    /// The account's phase has changed, or another call has failed.
    State { state: Phase, was: Phase, trouble: Option<Box<LastFailure>>, next_at: Option<Moment> },
    /// Its settings were changed by a reload.
    Configured,
    /// A host of the upstream has gone down, or has recovered.
    Host(HostState),
    /// The configuration was read again; if it was valid, accounts may have been added and removed.
    Reload { successful: bool },
}

/// What one client requested and the outcome. Requests with the same outcome shortly after each other are
/// one.
pub(crate) struct ClientRequest {
    /// Whether a refresh was forced; `None` for a rejection.
    force: Option<bool>,
    outcome: &'static str,
    by: Option<Box<str>>,
    times: AtomicU64,
    last_wall_ms: AtomicI64,
}

impl ClientRequest {
    /// A report that WeChat refused a token.
    pub(crate) fn report(by: Option<&str>, outcome: Option<RejectionOutcome>, at: Moment) -> Self {
        Self {
            force: None,
            outcome: outcome_label(outcome),
            by: by.map(Box::from),
            times: AtomicU64::new(1),
            last_wall_ms: AtomicI64::new(at.wall_ms),
        }
    }

    /// An operator's request for a refresh.
    pub(crate) fn refresh(
        by: Option<&str>,
        force: bool,
        outcome: Option<RejectionOutcome>,
        at: Moment,
    ) -> Self {
        Self { force: Some(force), ..Self::report(by, outcome, at) }
    }

    /// Counts `other` with this one, if they are alike.
    pub(crate) fn merge(&self, other: &Self) -> bool {
        let alike = (self.force, self.outcome, &self.by) == (other.force, other.outcome, &other.by);
        if alike {
            self.times.fetch_add(1, Ordering::Relaxed);
            self.last_wall_ms.store(other.last_wall_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        alike
    }
}

/// The outcome's label; without an outcome there was no token to hand out.
pub(crate) fn outcome_label(outcome: Option<RejectionOutcome>) -> &'static str {
    outcome.map_or("unavailable", RejectionOutcome::as_str)
}

impl Event {
    /// Its name in the history, the stream and the log.
    pub(crate) fn name(&self) -> &'static str {
        match self.what {
            EventKind::Token { .. } => "token",
            EventKind::TokenUnchanged { .. } => "token_unchanged",
            EventKind::Ticket { .. } => "ticket",
            EventKind::TicketUnchanged { .. } => "ticket_unchanged",
            EventKind::TicketFault { .. } => "ticket_fault",
            EventKind::Fault { .. } => "fault",
            EventKind::Check { .. } => "check",
            EventKind::ClientRequest(ClientRequest { force: None, .. }) => "rejection",
            EventKind::ClientRequest(_) => "refresh",
            EventKind::State { .. } => "state",
            EventKind::Configured => "configured",
            EventKind::Host(_) => "host",
            EventKind::Reload { .. } => "reload",
        }
    }

    /// Whether it is streamed as it happens; the rest are details for the account's history.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(
            self.what,
            EventKind::Token { .. }
                | EventKind::Ticket { .. }
                | EventKind::TicketFault { .. }
                | EventKind::TicketUnchanged { .. }
                | EventKind::State { .. }
                | EventKind::Host(_)
                | EventKind::Reload { .. }
        )
    }

    /// Whether it belongs in the history. That each refresh makes an account `refreshing` and `fresh` again
    /// does not.
    pub(crate) fn is_history(&self) -> bool {
        match &self.what {
            EventKind::State { state, was, .. } => {
                *state != Phase::Refreshing
                    && (*was, *state) != (Phase::Refreshing, Phase::Fresh)
                    && state != was
            }
            _ => true,
        }
    }
}

/// The same JSON in the history and in the stream.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let body = EventBody {
            event: self.name(),
            at: self.at.timestamp(),
            appid: self.account.as_ref().map(|account| &account.appid),
            what: EventDetails::of(&self.what),
        };
        body.serialize(to)
    }
}

#[derive(Serialize)]
struct EventBody<'a> {
    event: &'static str,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    appid: Option<&'a Appid>,
    #[serde(flatten)]
    what: EventDetails<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EventDetails<'a> {
    Token {
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        issued_at: Timestamp,
        expires_at: Timestamp,
        next_refresh_at: Option<Timestamp>,
        duration_ms: u64,
    },
    Unchanged {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#type: Option<TicketKind>,
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        duration_ms: u64,
    },
    Ticket {
        r#type: TicketKind,
        version: u64,
        expires_at: Timestamp,
        next_refresh_at: Option<Timestamp>,
        duration_ms: u64,
    },
    Fault {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#type: Option<TicketKind>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        kind: &'static str,
        errcode: Option<i64>,
        message: &'a str,
        advice: &'a str,
        rid: Option<&'a str>,
        /// What is wrong with a parked ticket, when this call did not get as far.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_fault: Option<FaultView>,
        duration_ms: Option<u64>,
    },
    Check {
        told: &'static str,
        errcode: Option<i64>,
        message: Option<&'a str>,
    },
    ClientRequest {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        by: Option<&'a str>,
        times: u64,
        last_at: Option<Timestamp>,
    },
    State {
        state: Phase,
        was: Phase,
        consecutive_failures: u32,
        last_fault: Option<FaultView>,
        obstacle: Option<FaultView>,
        next_refresh_at: Option<Timestamp>,
    },
    Configured {},
    Host(HostView),
    Reload {
        successful: bool,
    },
}

impl<'a> EventDetails<'a> {
    fn fault(
        fault: &'a Fault,
        reason: Option<Reason>,
        duration_ms: Option<u64>,
        of_ticket: Option<(TicketKind, &LastFailure)>,
    ) -> Self {
        let trouble = of_ticket.map(|(_, trouble)| trouble).filter(|trouble| trouble.obstacle().is_some());
        Self::Fault {
            r#type: of_ticket.map(|(kind, _)| kind),
            reason,
            last_fault: FaultView::of(trouble),
            kind: fault.kind.as_str(),
            errcode: fault.errcode,
            message: &fault.message,
            advice: &fault.advice,
            rid: fault.rid.as_deref(),
            duration_ms,
        }
    }

    fn of(what: &'a EventKind) -> Self {
        match what {
            &EventKind::Token { version, reason, issued_at, expires_at, next_at, duration_ms } => {
                Self::Token {
                    version,
                    reason,
                    issued_at: issued_at.timestamp(),
                    expires_at: expires_at.timestamp(),
                    next_refresh_at: next_at.map(Moment::timestamp),
                    duration_ms,
                }
            }
            &EventKind::TokenUnchanged { version, reason, duration_ms } => {
                Self::Unchanged { r#type: None, version, reason, duration_ms }
            }
            &EventKind::TicketUnchanged { kind, version, duration_ms } => {
                Self::Unchanged { r#type: Some(kind), version, reason: None, duration_ms }
            }
            &EventKind::Ticket { kind, version, expires_at, next_at, duration_ms } => Self::Ticket {
                r#type: kind,
                version,
                expires_at: expires_at.timestamp(),
                next_refresh_at: next_at.map(Moment::timestamp),
                duration_ms,
            },
            EventKind::TicketFault { kind, trouble, duration_ms } => {
                Self::fault(&trouble.fault, None, *duration_ms, Some((*kind, trouble)))
            }
            EventKind::Fault { fault, reason, duration_ms } => {
                Self::fault(fault, *reason, *duration_ms, None)
            }
            EventKind::Check { result, errcode, message } => {
                Self::Check { told: result, errcode: *errcode, message: message.as_deref() }
            }
            EventKind::ClientRequest(ClientRequest { force, outcome, by, times, last_wall_ms }) => {
                Self::ClientRequest {
                    outcome,
                    force: *force,
                    by: by.as_deref(),
                    times: times.load(Ordering::Relaxed),
                    last_at: Timestamp::from_millisecond(last_wall_ms.load(Ordering::Relaxed)).ok(),
                }
            }
            EventKind::State { state, was, trouble, next_at } => Self::State {
                state: *state,
                was: *was,
                consecutive_failures: trouble.as_ref().map_or(0, |trouble| trouble.failures),
                last_fault: FaultView::of(trouble.as_deref()),
                obstacle: FaultView::of_obstacle(trouble.as_deref()),
                next_refresh_at: next_at.map(Moment::timestamp),
            },
            EventKind::Configured => Self::Configured {},
            EventKind::Host(host) => Self::Host(HostView::of(host)),
            &EventKind::Reload { successful } => Self::Reload { successful },
        }
    }
}
