//! Publishes tokens to Redis, where SDKs read them.
//!
//! A connection is used by one task only, so that what is read back was written by that task or by another
//! program.

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
