//! What readers load, and what must outlive an actor.

pub(super) mod call_state;
pub(super) mod cell;
pub(super) mod directory;
pub(super) mod mailbox;
pub(super) mod tally;
pub(super) mod ticket_cell;
pub(super) mod token_index;
pub(super) mod view;
pub(super) mod wanted_settings;
mod watched;
