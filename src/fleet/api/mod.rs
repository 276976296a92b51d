//! What a program that embeds the library holds: a [`Fleet`](handle::Fleet), and the types of its answers.

pub(super) mod answers;
pub(super) mod builder;
mod call;
pub(super) mod handle;
#[cfg(any(feature = "axum", feature = "internals"))]
pub(super) mod hints;
pub(super) mod history;
mod lifecycle;
mod reports;
pub(super) mod subscription;
mod tickets;
mod watch;
