//! What readers load, and what must outlive an actor.

pub(super) mod call_state;
pub(super) mod cell;
pub(super) mod directory;
pub(super) mod holders;
pub(super) mod mailbox;
mod slot;
pub(super) mod tally;
pub(super) mod ticket_cell;
pub(super) mod view;
pub(super) mod wanted;
