//! One key in Redis and what stands there, and the promise that it is made from.

use crate::secret::Secret;

/// One key in Redis. A key can hold an AppSecret, and so is as secret as what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Secret,
    /// What it holds.
    pub content: Content,
}

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A string.
    Text(Secret),
    /// A hash of two fields.
    Hash {
        /// The name of the one that holds the token or ticket.
        field: &'static str,
        /// What that holds.
        value: Secret,
        /// The field `expired_at`: when it ends, in seconds of unix time.
        expired_at: i64,
    },
}

impl Content {
    /// The part by which ours is told from what somebody else has written.
    #[must_use]
    pub fn mark(&self) -> &Secret {
        match self {
            Self::Text(text) => text,
            Self::Hash { value, .. } => value,
        }
    }
}

/// A token or ticket for which there is a promise.
#[derive(Clone, Copy)]
pub struct Promised<'a> {
    /// The access_token, or the ticket.
    pub value: &'a str,
    /// How long it may be relied on, in whole seconds.
    pub expires_in_s: u64,
    /// When that ends, in seconds of unix time.
    pub expires_at_s: i64,
}
