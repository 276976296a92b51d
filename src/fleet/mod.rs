//! The actors, and the API that hides them.
//!
//! | folder | contents | depends on |
//! |---|---|---|
//! | `cells` | what readers load and what outlives an actor: one immutable value of each account, swapped atomically, so that a read meets no lock, no mailbox and no refresh | |
//! | `journal` | recent events, and the same as log lines | `cells` |
//! | `publish` | what readers get, copied to Redis | `cells` |
//! | `actor` | one `token_actor` per account, which alone decides and acts for it; the `supervisor` that starts them, restarts those that crash, applies a reloaded configuration and ends them in order | all of these |
//! | `api` | what a program that embeds the library holds | all of these |

mod actor;
mod api;
mod cells;
mod journal;
mod publish;

#[cfg(test)]
pub(crate) mod tests;

#[cfg(feature = "internals")]
pub use actor::environment::{Environment, Jitter, MakeTransport};
pub use api::answers::{
    RefreshResponse, ReloadError, Reloaded, StartError, TicketError, TokenError, Unavailable,
};
pub use api::builder::{FleetBuilder, Store};
pub use api::handle::Fleet;
#[cfg(any(feature = "axum", feature = "internals"))]
pub(crate) use api::hints::Asker;
#[cfg(feature = "axum")]
pub(crate) use api::history::Follow;
pub use api::subscription::Subscription;
#[cfg(feature = "axum")]
pub(crate) use cells::cell::{AccountCell, Snapshot};
#[cfg(feature = "internals")]
pub(crate) use cells::mailbox::Notice;
pub use cells::tally::RejectionOutcome;
#[cfg(feature = "axum")]
pub(crate) use cells::tally::Tally;
pub use cells::view::{AccountView, BudgetView, FaultView, HostView, TicketView};
#[cfg(feature = "axum")]
pub(crate) use journal::event::Event;
pub use journal::view::{EventDetails, EventView};
#[cfg(all(feature = "axum", feature = "redis"))]
pub(crate) use publish::outbox::Outbox;
