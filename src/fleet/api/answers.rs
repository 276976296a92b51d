//! What the face of the library answers and refuses with.

use std::time::Duration;

use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::Token;

use crate::fleet::cells::tally::RejectionOutcome;
use crate::fleet::cells::view::FaultView;
use crate::store::StoreError;
use crate::wechat::TransportError;

/// The fleet cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// `publish` names a Redis, and the library was built without any.
    #[error("publish to Redis: the library was built without its feature \"redis\"")]
    NoRedis,
}

/// A reload was refused; the fleet runs on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// `publish` names a Redis, and the library was built without any.
    #[error("publish to Redis: the library was built without its feature \"redis\"")]
    NoRedis,
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Accounts that are new.
    pub added: usize,
    /// Accounts that are gone.
    pub removed: usize,
    /// Accounts whose settings have changed.
    pub changed: usize,
}

/// There is no token to hand out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// No account of that appid.
    #[error("no account {0:?} is configured")]
    UnknownAccount(String),
    /// The account has no valid token.
    #[error("the account has no valid token ({}){}", .0.state.as_str(), .0.because())]
    Unavailable(Box<Unavailable>),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// There is no ticket to hand out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TicketError {
    /// No account of that appid.
    #[error("no account {0:?} is configured")]
    UnknownAccount(String),
    /// The account is not configured to have it.
    #[error("no {name} ticket is kept for this account: add tickets: [{name}] to it", name = .0.as_str())]
    NotKept(TicketKind),
    /// There is no valid one.
    #[error("the account has no valid ticket ({}){}", .0.state.as_str(), .0.because())]
    Unavailable(Box<Unavailable>),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// Why an account has no valid token or ticket, and when it may have one.
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// What the account looks like.
    pub state: Phase,
    /// Why the last call failed.
    pub last_fault: Option<FaultView>,
    /// When to ask again.
    pub retry_after: Duration,
    /// Whether our own daily budget is the reason.
    pub budget_exhausted: bool,
}

impl Unavailable {
    fn because(&self) -> String {
        let told = |fault: &FaultView| format!(": {}; {}", fault.message, fault.advice);
        self.last_fault.as_ref().map(told).unwrap_or_default()
    }
}

/// The outcome of [`Fleet::reject`](crate::fleet::Fleet::reject) and [`Fleet::refresh`](crate::fleet::Fleet::refresh).
#[derive(Debug, Clone)]
pub struct Rejected {
    /// How it was decided.
    pub outcome: RejectionOutcome,
    /// The version of the newest token.
    pub version: u64,
    /// The current token, where one may be served.
    pub token: Option<Token>,
    /// Why the last call failed, if it did.
    pub last_fault: Option<FaultView>,
}
