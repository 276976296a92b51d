//! Calls WeChat's API.
//!
//! `client` makes the calls that accounts ask for and picks the host; `requests` is what the calls send;
//! `answers` and `body` read what comes back; `call_queue` holds all accounts to the global limits; `hosts`
//! keeps a host's trouble separate from an account's; `transport` is the edge of the process, and `http` the
//! real transport; `date` reads dates in headers. Nothing here retries a call: that is the account's
//! decision.

pub(crate) mod answers;
mod body;
mod call_queue;
mod client;
mod date;
mod hosts;
mod http;
mod requests;
#[cfg(test)]
mod tests;
pub(crate) mod transport;

pub(crate) use call_queue::{Permit, UNASKED};
pub(crate) use client::{FetchReport, Require, WeChat};
pub(crate) use hosts::{HostState, upstream_label};
pub use http::{HttpTransport, TransportError};
pub use transport::{ResponseFuture, Transport};
