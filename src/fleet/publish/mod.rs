//! Redis, as a place where others look for tokens.
//!
//! A connection is used by one task alone, so that what is read back is what that task has written, or somebody else.

#[cfg(feature = "redis")]
mod connection;
#[cfg(not(feature = "redis"))]
mod disabled;
#[cfg(feature = "redis")]
pub(super) mod outbox;
#[cfg(feature = "redis")]
mod publication;
#[cfg(feature = "redis")]
mod publisher;
#[cfg(feature = "redis")]
mod publishers;
#[cfg(feature = "redis")]
mod sink_error;
#[cfg(feature = "redis")]
mod stream;

#[cfg(not(feature = "redis"))]
pub(super) use disabled::Publishers;
#[cfg(feature = "redis")]
pub(super) use publishers::Publishers;
