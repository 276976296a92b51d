//! What an account is busy with: one thing at a time.
//!
//! | from | when | to |
//! |---|---|---|
//! | `Idle` | a call is due | `Queued` |
//! | `Queued` | its turn has come | `Checking`; `Fetching`; `AwaitingSlot`, if the call can end a token |
//! | `Queued` | its turn has come, and the call asks more of the hosts than what it queued for | `Queued` |
//! | `AwaitingSlot` | there is room in flight | `Fetching`, `Checking` |
//! | `Queued`, `AwaitingSlot` | the call is refused: the hosts are down, the budget is spent | `Idle` |
//! | `Queued`, `AwaitingSlot` | no call is due any more | `Idle` |
//! | `Fetching`, `Checking` | the call has ended | `Idle` |
//!
//! [`next_step`](crate::token::decide::next_step) decides: when the account is idle, and again when its turn has come. A call
//! that can end a token waits for its slot before it is charged, since what it puts at risk is written down right before
//! it is sent. A call in flight outlives the actor that made it, and the account's time in the configuration; what only
//! waits outlives neither.

/// What an account is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// Nothing, until [`next_at`](super::AccountState::next_at) or until the host is back.
    #[default]
    Idle,
    /// Waits for its turn at the global limits.
    Queued,
    /// Its turn has come, and it waits for room among the calls in flight.
    AwaitingSlot,
    /// The token call is in flight.
    Fetching,
    /// The check call is in flight.
    Checking,
}

impl Activity {
    /// Whether something is being done.
    #[must_use]
    pub fn is_busy(self) -> bool {
        self != Self::Idle
    }

    /// What is left of it when the account loses its actor: the call in flight.
    #[must_use]
    pub fn left_behind(self) -> Self {
        match self {
            Self::Fetching | Self::Checking => self,
            Self::Idle | Self::Queued | Self::AwaitingSlot => Self::Idle,
        }
    }
}
