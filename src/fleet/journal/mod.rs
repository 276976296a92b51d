//! EventKind happens to accounts: events that are kept and followed, and lines of the log.

pub(super) mod event;
pub(super) mod event_log;
pub(super) mod ring;
