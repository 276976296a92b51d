//! The part of an account that may be shown: everything but its token.

use jiff::Timestamp;
use serde::Serialize;
use wxtokend_core::account::{Appid, Endpoint};
use wxtokend_core::budget::{Bucket, Ledger};
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::{Fault, FaultKind};
use wxtokend_core::last_failure::LastFailure;
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;

use super::cell::{AccountCell, Snapshot};
use super::ticket_cell::TicketCell;
use crate::wechat::HostState;

/// An account as the API, the library and the command line show it. Instants are on the wall clock.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct AccountView {
    /// Its appid at WeChat.
    pub appid: Appid,
    /// Its display name.
    pub name: String,
    /// Its labels.
    pub tags: Vec<String>,
    /// Which call mints its token.
    pub endpoint: Endpoint,
    /// Its phase now.
    pub state: Phase,
    /// Version of the newest token; 0 before the first.
    pub version: u64,
    /// When the call that first brought the valid token was sent.
    pub issued_at: Option<Timestamp>,
    /// When the valid token ends.
    pub expires_at: Option<Timestamp>,
    /// When WeChat is called next; `None` while that depends on a host that is down.
    pub next_refresh_at: Option<Timestamp>,
    /// How many calls have failed in a row.
    pub consecutive_failures: u32,
    /// What is wrong: why the last call failed or, for a parked account, what an operator must fix. `None`
    /// once a call has succeeded.
    pub last_fault: Option<FaultView>,
    /// What keeps a parked account from being tried again: a host that is down, a spent budget.
    pub obstacle: Option<FaultView>,
    /// The daily budget.
    pub budget: BudgetView,
    /// The tickets that are kept.
    pub tickets: Vec<TicketView>,
}

/// A ticket as the API and the library show it, without its value.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TicketView {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: TicketKind,
    /// Its phase now.
    pub state: Phase,
    /// Version of the newest ticket; 0 before the first.
    pub version: u64,
    /// When the valid ticket was made, as far as is known.
    pub issued_at: Option<Timestamp>,
    /// Until when it is trusted.
    pub expires_at: Option<Timestamp>,
    /// When WeChat is called next; `None` while that depends on the token or on a host that is down.
    pub next_refresh_at: Option<Timestamp>,
    /// How many calls have failed in a row.
    pub consecutive_failures: u32,
    /// What is wrong: why the last call failed or, for a parked ticket, what an operator must fix. `None`
    /// once a call has succeeded.
    pub last_fault: Option<FaultView>,
    /// What keeps a parked ticket from being tried again: a host that is down, a spent budget.
    pub obstacle: Option<FaultView>,
    /// Its own daily budget.
    pub budget: BudgetView,
}

/// A failure as it is shown.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FaultView {
    /// How it is treated.
    pub kind: FaultKind,
    /// WeChat's code, where it gave one.
    pub errcode: Option<i64>,
    /// What happened.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// When it happened.
    pub at: Timestamp,
    /// WeChat's request id.
    pub rid: Option<String>,
}

/// A host of the upstream as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HostView {
    /// `host` or `host:port`, as in `upstream.base_urls`.
    pub host: String,
    /// Whether it is not known to be down.
    pub up: bool,
    /// Since when it has been down.
    pub down_since: Option<Timestamp>,
    /// Why it is down.
    pub reason: Option<String>,
}

/// The daily budget as it is shown.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct BudgetView {
    /// Token calls that may be made in any 24 h.
    pub limit: u32,
    /// Token calls that may be made right now; half of the limit when nothing was spent.
    pub remaining: u32,
}

impl HostView {
    pub(crate) fn of(state: &HostState) -> Self {
        Self {
            host: state.host.clone(),
            up: state.down.is_none(),
            down_since: state.down.as_ref().map(|(at, _)| at.timestamp()),
            reason: state.down.as_ref().map(|(_, why)| why.clone()),
        }
    }
}

impl BudgetView {
    pub(crate) fn new(ledger: &Ledger, daily_budget: u32, now: Moment) -> Self {
        Self { limit: daily_budget, remaining: ledger.remaining(Bucket::Calls, daily_budget, now) }
    }
}

/// When something is done next, converted with the wall clock's current reading, whatever that was when it
/// was planned.
fn next_at(at: Option<Moment>, now: Moment) -> Option<Timestamp> {
    at.map(|at| (now + at.until(now)).timestamp())
}

impl FaultView {
    /// What is wrong, if anything is.
    pub(crate) fn of(last_failure: Option<&LastFailure>) -> Option<Self> {
        last_failure.map(LastFailure::cause).map(|(fault, at)| Self::new(fault, at))
    }

    /// What keeps WeChat from being called again about that.
    pub(crate) fn of_obstacle(last_failure: Option<&LastFailure>) -> Option<Self> {
        last_failure.and_then(|failure| Some(Self::new(failure.obstacle()?, failure.at)))
    }

    pub(crate) fn new(fault: &Fault, at: Moment) -> Self {
        Self {
            kind: fault.kind,
            errcode: fault.errcode,
            message: fault.message.clone(),
            advice: fault.advice.clone(),
            at: at.timestamp(),
            rid: fault.rid.clone(),
        }
    }
}

impl AccountCell {
    pub(crate) fn view(&self, now: Moment) -> AccountView {
        let snapshot = self.load();
        let (account, state) = (&snapshot.account, &snapshot.state);
        let token = state.token.as_deref().filter(|_| state.is_usable(now));
        AccountView {
            appid: account.appid.clone(),
            name: account.name.clone(),
            tags: account.tags.clone(),
            endpoint: account.settings.endpoint,
            state: state.phase(now),
            version: state.version,
            issued_at: token.map(|token| token.issued_at.timestamp()),
            expires_at: token.map(|token| token.expires_at.timestamp()),
            next_refresh_at: next_at(state.next_at, now),
            consecutive_failures: state.failures(),
            last_fault: snapshot.last_fault(),
            obstacle: FaultView::of_obstacle(state.last_failure.as_deref()),
            budget: BudgetView::new(&state.ledger, account.settings.daily_budget, now),
            tickets: self.tickets().map(|ticket| ticket.view(account.settings.daily_budget, now)).collect(),
        }
    }
}

impl TicketCell {
    pub(crate) fn view(&self, daily_budget: u32, now: Moment) -> TicketView {
        let state = self.load();
        let ticket = state.ticket.as_deref().filter(|_| state.is_usable(now));
        TicketView {
            kind: self.kind,
            state: state.phase(now),
            version: state.version,
            issued_at: ticket.map(|ticket| ticket.issued_at.timestamp()),
            expires_at: ticket.map(|ticket| ticket.expires_at.timestamp()),
            next_refresh_at: next_at(state.next_at, now),
            consecutive_failures: state.last_failure.as_deref().map_or(0, |failure| failure.failures),
            last_fault: FaultView::of(state.last_failure.as_deref()),
            obstacle: FaultView::of_obstacle(state.last_failure.as_deref()),
            budget: BudgetView::new(&state.ledger, daily_budget, now),
        }
    }
}

impl Snapshot {
    pub(crate) fn last_fault(&self) -> Option<FaultView> {
        FaultView::of(self.state.last_failure.as_deref())
    }
}
