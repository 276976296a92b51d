//! A Redis key with its content, and the promise that both are made from.

use std::fmt;

use crate::secret::Secret;

/// A Redis key with its content. A key can contain an AppSecret, so it is as secret as the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Secret,
    /// The content.
    pub content: Content,
}

/// What is stored at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A string.
    Text(Secret),
    /// A hash of two fields.
    Hash {
        /// Name of the field that holds the token or ticket.
        field: &'static str,
        /// Value of that field.
        value: Secret,
        /// The field `expired_at`: when it ends, in seconds of Unix time.
        expired_at: i64,
    },
}

impl Content {
    /// The part that distinguishes our content from what another program has written.
    #[must_use]
    pub fn mark(&self) -> &Secret {
        match self {
            Self::Text(text) => text,
            Self::Hash { value, .. } => value,
        }
    }
}

/// A token or ticket with its promise.
#[derive(Clone, Copy)]
pub struct Promised<'a> {
    /// The access_token, or the ticket.
    pub value: &'a str,
    /// How long it may be relied on, in whole seconds.
    pub expires_in_s: u64,
    /// When the promise ends, in seconds of Unix time.
    pub expires_at_s: i64,
}

impl fmt::Debug for Promised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promised").field("expires_in_s", &self.expires_in_s).finish_non_exhaustive()
    }
}
