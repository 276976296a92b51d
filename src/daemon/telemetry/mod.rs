//! Logs and metrics of the running program.

pub(super) mod logging;
pub(super) mod metrics;
