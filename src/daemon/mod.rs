//! The program around the library: its command line, the HTTP API with the status page, logs and metrics.

mod cli;
mod http;
mod telemetry;

pub use cli::main;
pub use http::{ApiServer, BindError, Clients, Listeners};
pub use telemetry::metrics::Metrics;
