//! The actors: who decides and acts for an account or a ticket, and who looks after them.

mod child;
pub(super) mod clock_watch;
mod exchange;
mod flight;
mod pending;
pub(super) mod release;
pub(super) mod shared;
pub(super) mod supervisor;
pub(super) mod surroundings;
mod ticket_actor;
mod token_actor;
pub(super) mod trials;
mod waiters;
pub(super) mod withheld;
