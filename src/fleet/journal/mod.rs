//! What happens to accounts: the events that are kept and followed, and the log lines.

pub(super) mod event;
pub(super) mod event_log;
pub(super) mod ring;
pub(super) mod view;
