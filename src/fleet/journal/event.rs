//! What happens to accounts, as it is recorded. Never contains a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use wxtokend_core::account::Account;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::last_failure::LastFailure;
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::state::{HintSource, Reason};

use crate::fleet::cells::tally::RejectionOutcome;
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
    TicketFault { kind: TicketKind, last_failure: Box<LastFailure>, duration_ms: Option<u64> },
    /// A token call failed, or was not made.
    Fault { fault: Arc<Fault>, reason: Option<Reason>, duration_ms: Option<u64> },
    /// WeChat was asked whether it honours the token, perhaps because of a hint.
    Check { result: &'static str, hint: Option<HintSource>, errcode: Option<i64>, message: Option<String> },
    /// A client said that WeChat refused a token, or an operator asked for a token call.
    ClientRequest(ClientRequest),
    /// The account's phase has changed, or another call has failed.
    State { state: Phase, was: Phase, last_failure: Option<Box<LastFailure>>, next_at: Option<Moment> },
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
    pub(crate) force: Option<bool>,
    pub(crate) outcome: &'static str,
    pub(crate) by: Option<Box<str>>,
    pub(crate) times: AtomicU64,
    pub(crate) last_wall_ms: AtomicI64,
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
