//! Redis, as a place where others look for tokens.
//!
//! A connection is used by one task alone, so that what is read back is what that task has written, or somebody else.

mod connection;
mod stream;
mod trouble;

pub(crate) use connection::{Change, Connection, Expected};
pub(crate) use trouble::{Refusal, Trouble};
