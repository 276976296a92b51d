//! Events as the history, the stream and the library show them. They never contain a token.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::Serialize;
use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::{Fault, FaultKind};
use wxtokend_core::last_failure::LastFailure;
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::state::{HintSource, Reason};

use super::event::{ClientRequest, Event, EventKind};
use crate::fleet::cells::view::{FaultView, HostView};

/// Something that happened to an account or to the fleet. Instants are on the wall clock.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct EventView {
    /// Its name: `token`, `token_unchanged`, `ticket`, `ticket_unchanged`, `fault`, `ticket_fault`, `check`,
    /// `rejection`, `refresh`, `state`, `configured`, `host`, `reload`, `gap`.
    pub event: &'static str,
    /// When it happened.
    pub at: Timestamp,
    /// The account that it happened to; `None` for the fleet as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appid: Option<Appid>,
    /// What happened.
    #[serde(flatten)]
    pub details: EventDetails,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum EventDetails {
    /// There is a new token.
    #[non_exhaustive]
    Token {
        /// Its version.
        version: u64,
        /// Why the call was made.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// When the call was sent.
        issued_at: Timestamp,
        /// When the token ends.
        expires_at: Timestamp,
        /// When WeChat is called next.
        next_refresh_at: Option<Timestamp>,
        /// How long the call took, in milliseconds.
        duration_ms: u64,
    },
    /// WeChat handed out the token or ticket that we already have.
    #[non_exhaustive]
    Unchanged {
        /// The ticket; `None` for a token.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        ticket: Option<TicketKind>,
        /// Its version.
        version: u64,
        /// Why the call was made.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// How long the call took, in milliseconds.
        duration_ms: u64,
    },
    /// There is a new ticket.
    #[non_exhaustive]
    Ticket {
        /// Its kind.
        #[serde(rename = "type")]
        ticket: TicketKind,
        /// Its version.
        version: u64,
        /// Until when it is trusted.
        expires_at: Timestamp,
        /// When WeChat is called next.
        next_refresh_at: Option<Timestamp>,
        /// How long the call took, in milliseconds.
        duration_ms: u64,
    },
    /// A call for a token or ticket failed, or was not made.
    #[non_exhaustive]
    Fault {
        /// The ticket; `None` for a token.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        ticket: Option<TicketKind>,
        /// Why the call was made.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// How the failure is treated.
        kind: FaultKind,
        /// WeChat's code, where it gave one.
        errcode: Option<i64>,
        /// What went wrong.
        message: String,
        /// What to do.
        advice: String,
        /// WeChat's request ID.
        rid: Option<String>,
        /// What is wrong with a parked ticket, when this call did not get as far.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_fault: Option<FaultView>,
        /// How long the call took, in milliseconds; `None` if it was not made.
        duration_ms: Option<u64>,
    },
    /// WeChat was asked whether it honours the token.
    #[non_exhaustive]
    Check {
        /// What the check told.
        told: &'static str,
        /// The hint that it followed, as `wxtokend_hints_total` names it: `ask`, `drift` or `audit`.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'static str>,
        /// WeChat's code, where it gave one.
        errcode: Option<i64>,
        /// What went wrong, if something did.
        message: Option<String>,
    },
    /// A client said that WeChat refused a token, or an operator asked for a refresh.
    #[non_exhaustive]
    Request {
        /// How it was decided.
        outcome: &'static str,
        /// Whether a refresh was forced; `None` for a report of a refused token.
        #[serde(skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        /// The client's name.
        by: Option<String>,
        /// How many such requests came shortly after each other.
        times: u64,
        /// When the last of them came.
        last_at: Option<Timestamp>,
    },
    /// The account's phase has changed, or another call has failed.
    #[non_exhaustive]
    State {
        /// The phase now.
        state: Phase,
        /// The phase before.
        was: Phase,
        /// How many calls have failed in a row.
        consecutive_failures: u32,
        /// What is wrong.
        last_fault: Option<FaultView>,
        /// What keeps a parked account from being tried again.
        obstacle: Option<FaultView>,
        /// When WeChat is called next.
        next_refresh_at: Option<Timestamp>,
    },
    /// The account's settings were changed.
    Configured {},
    /// A host of the upstream has gone down, or has recovered.
    Host(HostView),
    /// The configuration file was read again.
    #[non_exhaustive]
    Reload {
        /// Whether all of it is in force.
        successful: bool,
    },
    /// Events were lost, since they were read too slowly: look at the accounts again.
    Gap {},
}

impl EventView {
    pub(crate) fn of(event: &Event) -> Self {
        Self {
            event: event.name(),
            at: event.at.timestamp(),
            appid: event.account.as_ref().map(|account| account.appid.clone()),
            details: EventDetails::of(&event.what),
        }
    }

    pub(crate) fn gap(at: Moment) -> Self {
        Self { event: "gap", at: at.timestamp(), appid: None, details: EventDetails::Gap {} }
    }
}

impl EventDetails {
    fn fault(
        fault: &Fault,
        reason: Option<Reason>,
        duration_ms: Option<u64>,
        of_ticket: Option<(TicketKind, &LastFailure)>,
    ) -> Self {
        let last_failure =
            of_ticket.map(|(_, failure)| failure).filter(|failure| failure.obstacle().is_some());
        Self::Fault {
            ticket: of_ticket.map(|(kind, _)| kind),
            reason,
            last_fault: FaultView::of(last_failure),
            kind: fault.kind,
            errcode: fault.errcode,
            message: fault.message.clone(),
            advice: fault.advice.clone(),
            rid: fault.rid.clone(),
            duration_ms,
        }
    }

    fn of(what: &EventKind) -> Self {
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
                Self::Unchanged { ticket: None, version, reason, duration_ms }
            }
            &EventKind::TicketUnchanged { kind, version, duration_ms } => {
                Self::Unchanged { ticket: Some(kind), version, reason: None, duration_ms }
            }
            &EventKind::Ticket { kind, version, expires_at, next_at, duration_ms } => Self::Ticket {
                ticket: kind,
                version,
                expires_at: expires_at.timestamp(),
                next_refresh_at: next_at.map(Moment::timestamp),
                duration_ms,
            },
            EventKind::TicketFault { kind, last_failure, duration_ms } => {
                Self::fault(&last_failure.fault, None, *duration_ms, Some((*kind, last_failure)))
            }
            EventKind::Fault { fault, reason, duration_ms } => {
                Self::fault(fault, *reason, *duration_ms, None)
            }
            EventKind::Check { result, hint, errcode, message } => Self::Check {
                told: result,
                hint: hint.map(HintSource::as_str),
                errcode: *errcode,
                message: message.clone(),
            },
            EventKind::ClientRequest(ClientRequest { force, outcome, by, times, last_wall_ms }) => {
                Self::Request {
                    outcome,
                    force: *force,
                    by: by.as_deref().map(str::to_owned),
                    times: times.load(Ordering::Relaxed),
                    last_at: Timestamp::from_millisecond(last_wall_ms.load(Ordering::Relaxed)).ok(),
                }
            }
            EventKind::State { state, was, last_failure, next_at } => Self::State {
                state: *state,
                was: *was,
                consecutive_failures: last_failure.as_ref().map_or(0, |failure| failure.failures),
                last_fault: FaultView::of(last_failure.as_deref()),
                obstacle: FaultView::of_obstacle(last_failure.as_deref()),
                next_refresh_at: next_at.map(Moment::timestamp),
            },
            EventKind::Configured => Self::Configured {},
            EventKind::Host(host) => Self::Host(HostView::of(host)),
            &EventKind::Reload { successful } => Self::Reload { successful },
        }
    }
}
