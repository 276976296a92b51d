//! Logs and metrics of the running program.

#[cfg(feature = "daemon")]
pub(super) mod logging;
pub(crate) mod metrics;
