//! What an account is busy with: one thing at a time.
//!
//! | from | when | to |
//! |---|---|---|
//! | `Idle` | a call is due | `Queued` |
//! | `Queued` | its turn has come | `Checking`; `Fetching`; `AwaitingSlot`, if the call can end a token |
//! | `Queued` | its turn has come, and the call needs more of the hosts than the one it queued for | `Queued` |
//! | `AwaitingSlot` | a concurrency slot is free | `Fetching`, `Checking` |
//! | `Queued`, `AwaitingSlot` | the call is refused: the hosts are down, the budget is spent | `Idle` |
//! | `Queued`, `AwaitingSlot` | no call is due any more | `Idle` |
//! | `Fetching`, `Checking` | the call has ended | `Idle` |
//!
//! [`next_step`](crate::token::decide::next_step) decides: when the account is idle, and again when its turn
//! has come. A call that can end a token waits for its slot before it is charged, since what it puts at risk
//! is written down right before it is sent. A call in flight outlives the actor that made it, and the
//! account's removal from the configuration; a call that is only waiting outlives neither.

/// What an account is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// Nothing, until [`next_at`](super::AccountState::next_at) or until the host is back.
    #[default]
    Idle,
    /// Waits in the call queue for its turn at the global limits.
    Queued,
    /// Has been admitted; waits for a concurrency slot.
    AwaitingSlot,
    /// The token call is in flight.
    Fetching,
    /// The check call is in flight.
    Checking,
}

impl Activity {
    /// Whether anything is being done.
    #[must_use]
    pub fn is_busy(self) -> bool {
        self != Self::Idle
    }

    /// What remains when the account loses its actor: only a call in flight.
    #[must_use]
    pub fn left_behind(self) -> Self {
        match self {
            Self::Fetching | Self::Checking => self,
            Self::Idle | Self::Queued | Self::AwaitingSlot => Self::Idle,
        }
    }
}
