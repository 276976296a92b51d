//! Records what an account's actor does, as log lines and as journal events of the same names.
//!
//! Each notable thing is recorded once, where it is handled.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};
use wxtokend_core::account::Account;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::{Fault, FaultKind};
use wxtokend_core::ticket::{TicketKind, TicketState};
use wxtokend_core::token::state::{AccountState, Hint, HintSource, Reason};
use wxtokend_core::token::transition::{CheckEnd, Fetched, is_strangely_long};

use super::event::EventKind;
use super::ring::{Journal, PhaseChange};
use crate::fleet::cells::cell::AccountCell;

/// Writes the log lines and events of one account in its current state.
pub(crate) struct EventLog<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) cell: &'a AccountCell,
    pub(crate) account: &'a Account,
    pub(crate) state: &'a AccountState,
    pub(crate) now: Moment,
}

impl EventLog<'_> {
    /// A token call has ended and the account's next step is known.
    pub(crate) fn fetch_ended(&self, fetched: Fetched, duration_ms: u64) {
        let (appid, version, reason) = (self.account.appid.as_str(), self.state.version, self.state.reason);
        match (fetched, &self.state.token, &self.state.last_failure) {
            (Fetched::New, Some(token), _) => {
                info!(
                    event = "token",
                    appid,
                    version,
                    reason = reason.map(Reason::as_str),
                    endpoint = self.account.settings.endpoint.as_str(),
                    expires_in_s = token.expires_at.until(self.now).as_secs(),
                    duration_ms,
                    next_refresh_in_s = self.seconds_to_next(),
                    "token refreshed"
                );
                let (issued_at, expires_at) = (token.issued_at, token.expires_at);
                let next_at = self.state.next_at;
                self.note(EventKind::Token { version, reason, issued_at, expires_at, next_at, duration_ms });
            }
            (Fetched::Same, _, None) => {
                info!(
                    event = "token_unchanged",
                    appid,
                    version,
                    reason = reason.map(Reason::as_str),
                    duration_ms,
                    next_refresh_in_s = self.seconds_to_next(),
                    "WeChat handed out the same token"
                );
                self.note(EventKind::TokenUnchanged { version, reason, duration_ms });
            }
            (_, _, Some(last_failure)) => self.failed(&last_failure.fault, Some(duration_ms)),
            (_, _, None) => {}
        }
    }

    /// Warns when WeChat states an unusually long lifetime for the token.
    pub(crate) fn note_stated_lifetime(&self, expires_in: Duration) {
        if is_strangely_long(expires_in) {
            warn!(
                event = "strange_lifetime",
                appid = self.account.appid.as_str(),
                expires_in_s = expires_in.as_secs(),
                next_refresh_in_s = self.seconds_to_next(),
                "WeChat says that the token lives {} s, and 7200 s are usual: on stable_token 2 h of it are believed, \
                 on token a day",
                expires_in.as_secs()
            );
        }
    }

    /// The token call failed, or was not made.
    pub(crate) fn failed(&self, fault: &Arc<Fault>, duration_ms: Option<u64>) {
        warn!(
            event = "fault",
            appid = self.account.appid.as_str(),
            name = self.account.name,
            reason = self.state.reason.map(Reason::as_str),
            fault = fault.kind.as_str(),
            errcode = fault.errcode_label(),
            rid = fault.rid.as_deref(),
            failures = self.state.failures(),
            duration_ms,
            next_refresh_in_s = self.seconds_to_next(),
            valid_for_s = self.state.usable_for(self.now).as_secs(),
            advice = fault.advice,
            "{}: {}",
            if fault.kind == FaultKind::Parked { "account needs a person" } else { "refresh failed" },
            fault.message
        );
        self.note(EventKind::Fault { fault: Arc::clone(fault), reason: self.state.reason, duration_ms });
    }

    /// A check has ended. One that nobody asked for is news only if it found something.
    pub(crate) fn check_ended(&self, end: &CheckEnd, hint: Option<Hint>) {
        let (appid, hint) = (self.account.appid.as_str(), hint.map(|hint| hint.source));
        let (result, fault) = match end {
            CheckEnd::Honoured => ("honoured", None),
            CheckEnd::Refused => ("refused", None),
            CheckEnd::Inconclusive(fault) => ("inconclusive", Some(fault)),
        };
        let because = hint.map(HintSource::as_str);
        match end {
            CheckEnd::Honoured if hint.is_some() => {
                debug!(event = "check", appid, told = result, hint = because, "WeChat honours the token");
            }
            CheckEnd::Honoured => info!(event = "check", appid, told = result, "WeChat honours the token"),
            CheckEnd::Refused => {
                warn!(
                    event = "check",
                    appid,
                    told = result,
                    hint = because,
                    "WeChat refuses the token; it is replaced"
                );
            }
            CheckEnd::Inconclusive(fault) => {
                let (errcode, rid) = (fault.errcode_label(), fault.rid.as_deref());
                let tells = format!("the check of the token tells nothing: {}", fault.message);
                match because {
                    Some(hint) => {
                        debug!(event = "check", appid, told = result, hint, errcode, rid, "{tells}")
                    }
                    None => warn!(event = "check", appid, told = result, errcode, rid, "{tells}"),
                }
            }
        }
        if hint.is_some() && !matches!(end, CheckEnd::Refused) {
            return;
        }
        self.note(EventKind::Check {
            result,
            hint,
            errcode: fault.and_then(|fault| fault.errcode),
            message: fault.map(|fault| fault.message.clone()),
        });
    }

    /// A reload has changed the account's settings.
    pub(crate) fn configured(&self) {
        debug!(
            event = "configured",
            appid = self.account.appid.as_str(),
            "the account's settings have changed"
        );
        self.note(EventKind::Configured);
    }

    /// Records the account's phase, if it has changed.
    pub(crate) fn record_phase(&self) {
        let Some(PhaseChange { state, was }) = self.journal.note_state(self.cell, self.now) else {
            return;
        };
        let appid = self.account.appid.as_str();
        let (state_name, was_name) = (state.as_str(), was.as_str());
        // Each refresh makes an account refreshing and fresh again.
        let usual = [state, was].iter().all(|phase| !phase.is_trouble());
        if usual {
            debug!(event = "state", appid, state = state_name, was = was_name, "the account is {state_name}");
        } else {
            info!(
                event = "state",
                appid,
                name = self.account.name,
                state = state_name,
                was = was_name,
                "the account is {state_name}"
            );
        }
    }

    fn note(&self, what: EventKind) {
        self.journal.note(self.cell, self.now, what);
    }

    fn seconds_to_next(&self) -> Option<u64> {
        self.state.next_at.map(|at| at.until(self.now).as_secs())
    }
}

/// Writes the log lines and events of one ticket in its current state.
pub(crate) struct TicketEventLog<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) cell: &'a AccountCell,
    pub(crate) kind: TicketKind,
    pub(crate) state: &'a TicketState,
    /// Whether the call before this one failed.
    pub(crate) was_failing: bool,
    pub(crate) now: Moment,
}

impl TicketEventLog<'_> {
    /// Warns when WeChat states an unusually long lifetime for the ticket.
    pub(crate) fn note_stated_lifetime(&self, expires_in: Duration) {
        if is_strangely_long(expires_in) {
            warn!(
                event = "strange_lifetime",
                appid = self.cell.load().account.appid.as_str(),
                ticket = self.kind.as_str(),
                expires_in_s = expires_in.as_secs(),
                "WeChat says that the ticket lives {} s, and 7200 s are usual: 2 h of it are believed",
                expires_in.as_secs()
            );
        }
    }

    /// A call has ended, or was not made.
    pub(crate) fn ended(&self, fetched: Fetched, duration_ms: Option<u64>) {
        let (account, kind, version) = (&self.cell.load().account, self.kind, self.state.version);
        let (appid, ticket) = (account.appid.as_str(), kind.as_str());
        let next_in_s = self.state.next_at.map(|at| at.until(self.now).as_secs());
        let what = match (fetched, &self.state.ticket, &self.state.last_failure) {
            (Fetched::New, Some(held), _) => {
                let expires_in_s = held.expires_at.until(self.now).as_secs();
                info!(
                    event = "ticket",
                    appid, ticket, version, expires_in_s, duration_ms, next_in_s, "ticket fetched"
                );
                let (expires_at, next_at) = (held.expires_at, self.state.next_at);
                EventKind::Ticket {
                    kind,
                    version,
                    expires_at,
                    next_at,
                    duration_ms: duration_ms.unwrap_or_default(),
                }
            }
            (Fetched::Failed, _, Some(last_failure)) => {
                let fault = &last_failure.fault;
                warn!(
                    event = "ticket_fault",
                    appid,
                    name = account.name,
                    ticket,
                    fault = fault.kind.as_str(),
                    errcode = fault.errcode_label(),
                    rid = fault.rid.as_deref(),
                    failures = last_failure.failures,
                    duration_ms,
                    next_in_s,
                    valid_for_s = self.state.usable_for(self.now).as_secs(),
                    advice = fault.advice,
                    "no ticket: {}",
                    fault.message
                );
                EventKind::TicketFault { kind, last_failure: last_failure.clone(), duration_ms }
            }
            _ => {
                debug!(
                    event = "ticket_unchanged",
                    appid, ticket, version, next_in_s, "WeChat has the same ticket"
                );
                if !self.was_failing {
                    return;
                }
                EventKind::TicketUnchanged { kind, version, duration_ms: duration_ms.unwrap_or_default() }
            }
        };
        self.journal.note(self.cell, self.now, what);
    }
}
