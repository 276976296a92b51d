//! The actors, which decide and act for one account or ticket each, and the supervisor that runs them.

pub(super) mod audits;
mod call;
mod child;
pub(super) mod clock_watch;
pub(super) mod context;
pub(super) mod environment;
pub(super) mod old_boot_records;
mod pending;
pub(super) mod supervisor;
mod ticket_actor;
mod token_actor;
pub(super) mod trials;
mod upstream_change;
mod waiters;
pub(super) mod withheld;
