//! The answers and errors of the library's API.

use std::time::Duration;

use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::Token;

use crate::config::InvalidSetting;
use crate::fleet::cells::tally::RejectionOutcome;
use crate::fleet::cells::view::FaultView;
use crate::store::StoreError;
use crate::wechat::TransportError;

/// Why the fleet cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// `publish` names a Redis, and the library was built without Redis support.
    #[error("publish to Redis: the library was built without its feature \"redis\"")]
    NoRedis,
    /// A setting that was built in Rust breaks a rule.
    #[error("invalid setting: {0}")]
    Invalid(#[from] InvalidSetting),
}

/// Why a reload was refused; the fleet runs on unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// `publish` names a Redis, and the library was built without Redis support.
    #[error("publish to Redis: the library was built without its feature \"redis\"")]
    NoRedis,
    /// A setting that was built in Rust breaks a rule.
    #[error("invalid setting: {0}")]
    Invalid(#[from] InvalidSetting),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// How many accounts were added.
    pub added: usize,
    /// How many accounts were removed.
    pub removed: usize,
    /// How many accounts have changed settings.
    pub changed: usize,
}

/// Why there is no token to hand out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No account with that appid is configured.
    #[error("no account {0:?} is configured")]
    UnknownAccount(String),
    /// The account has no valid token.
    #[error("the account has no valid token ({}){}", .0.state.as_str(), .0.because())]
    Unavailable(Box<Unavailable>),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

impl TokenError {
    /// Whether the same call may succeed later, without anybody doing something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.unavailable().is_some_and(Unavailable::is_transient)
    }

    /// When to ask again; `None` if that does not help. A parked account is tried again, too, as somebody may
    /// have fixed it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.unavailable().map(|why| why.retry_after)
    }

    fn unavailable(&self) -> Option<&Unavailable> {
        if let Self::Unavailable(why) = self { Some(why) } else { None }
    }
}

/// Why there is no ticket to hand out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// No account with that appid is configured.
    #[error("no account {0:?} is configured")]
    UnknownAccount(String),
    /// The account is not configured to have this ticket.
    #[error("no {name} ticket is kept for this account: add tickets: [{name}] to it", name = .0.as_str())]
    NotKept(TicketKind),
    /// The account has no valid ticket of this kind.
    #[error("the account has no valid ticket ({}){}", .0.state.as_str(), .0.because())]
    Unavailable(Box<Unavailable>),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

impl TicketError {
    /// Whether the same call may succeed later, without anybody doing something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.unavailable().is_some_and(Unavailable::is_transient)
    }

    /// When to ask again; `None` if that does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.unavailable().map(|why| why.retry_after)
    }

    fn unavailable(&self) -> Option<&Unavailable> {
        if let Self::Unavailable(why) = self { Some(why) } else { None }
    }
}

/// Why an account has no valid token or ticket, and when it may have one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unavailable {
    /// The phase of the account, or of its ticket.
    pub state: Phase,
    /// Why the last call failed.
    pub last_fault: Option<FaultView>,
    /// When to ask again.
    pub retry_after: Duration,
    /// Whether our own daily budget is the reason.
    pub budget_exhausted: bool,
}

impl Unavailable {
    /// Whether waiting may help: the account is not parked, so nobody needs to do anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.state != Phase::Parked
    }

    fn because(&self) -> String {
        let describe = |fault: &FaultView| format!(": {}; {}", fault.message, fault.advice);
        self.last_fault.as_ref().map(describe).unwrap_or_default()
    }
}

/// The outcome of [`Fleet::reject`](crate::fleet::Fleet::reject) and [`Fleet::refresh`](crate::fleet::Fleet::refresh).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshResponse {
    /// How it was decided.
    pub outcome: RejectionOutcome,
    /// The version of the newest token.
    pub version: u64,
    /// The current token, where one may be served.
    pub token: Option<Token>,
    /// Why the last call failed, if it did.
    pub last_fault: Option<FaultView>,
}
