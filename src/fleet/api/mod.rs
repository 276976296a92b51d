//! What a program that embeds us holds: a [`Fleet`](handle::Fleet), and what it answers.

pub(super) mod answers;
pub(super) mod handle;
pub(super) mod history;
mod lifecycle;
mod reports;
mod tickets;
pub(super) mod watch;
