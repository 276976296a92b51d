//! The program around the library: its command line, the HTTP API with the status page, logs and metrics.

#[cfg(feature = "daemon")]
mod cli;
pub(crate) mod http;
pub(crate) mod telemetry;

#[cfg(feature = "daemon")]
pub use cli::main;
