//! The actors, and the face that hides them.
//!
//! One `token_actor` per account decides and acts for it alone; the `supervisor` starts them, restarts those
//! that crash, applies a reloaded configuration and ends them in order. What readers see of an account is its
//! `cell`: one immutable value, swapped atomically, so that a read meets no lock, no mailbox and no refresh.
//! `handle` is what a program that embeds us holds.

mod actor_log;
mod answers;
mod call_state;
mod cell;
mod child;
mod clock_watch;
mod directory;
mod event;
mod exchange;
mod flight;
mod handle;
mod history;
mod holders;
mod journal;
mod lifecycle;
mod mailbox;
mod outbox;
mod pending;
mod publication;
mod publisher;
mod publishers;
mod release;
mod reports;
mod shared;
mod slot;
mod supervisor;
mod surroundings;
mod tally;
mod ticket_actor;
mod ticket_cell;
mod tickets;
mod token_actor;
mod trials;
mod view;
mod waiters;
mod wanted;
mod watch;
mod withheld;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod tests;

pub use answers::{Rejected, ReloadError, Reloaded, StartError, TicketError, TokenError, Unavailable};
pub(crate) use cell::{AccountCell, Snapshot};
pub(crate) use event::Event;
pub use handle::Fleet;
pub(crate) use history::Follow;
pub(crate) use outbox::Outbox;
pub use tally::{RejectionOutcome, Tally};
pub use view::{AccountView, BudgetView, FaultView, HostView, TicketView};
pub use watch::Watch;
