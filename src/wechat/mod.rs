//! Talking to WeChat.
//!
//! `client` makes the calls an account asks for and knows about hosts; `requests` is what they send; `answers` and `body` read what comes back; `gate`
//! holds all accounts to the global limits; `hosts` keeps the trouble of a host apart from an account's;
//! `transport` is the edge of the process, and `http` the real one; `date` reads the dates of both. Nothing here retries a call: the account's
//! decision does.

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

pub(crate) use call_queue::Permit;
pub(crate) use client::{FetchReport, Require, WeChat};
pub(crate) use hosts::{HostState, upstream_label};
pub use http::{HttpTransport, TransportError};
pub use transport::{ResponseFuture, Transport};
