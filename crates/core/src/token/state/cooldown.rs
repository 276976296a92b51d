//! The outcome of past rejections, and the cool-down during which none is investigated.

use std::time::Duration;

use crate::account::Account;
use crate::clock::Moment;

/// The longest cool-down between replacements of tokens that keep being refused.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(10 * 60);

/// The outcome of past rejections of the current token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections {
    /// No rejection is investigated before this.
    pub cool_until: Option<Moment>,
    /// How many tokens in a row were found dead.
    pub refused_in_a_row: u32,
    /// Result of the last check of the current token.
    pub verdict: Option<Verdict>,
}

/// Result of a check that did not find the current token dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// WeChat honours it.
    Honoured,
    /// The check was inconclusive.
    Inconclusive,
}

impl Rejections {
    /// Returns the state after a check found the current token dead.
    #[must_use]
    pub fn refused(self) -> Self {
        Self { refused_in_a_row: self.refused_in_a_row.saturating_add(1), verdict: None, ..self }
    }

    /// Returns the state after a check that did not find it dead.
    #[must_use]
    pub fn checked(self, verdict: Verdict, account: &Account, now: Moment) -> Self {
        Self {
            cool_until: Some(now + account.settings.rejection_cooldown),
            refused_in_a_row: if verdict == Verdict::Honoured { 0 } else { self.refused_in_a_row },
            verdict: Some(verdict),
        }
    }

    /// Returns the state for a new token that replaces a refused one.
    #[must_use]
    pub fn replaced(self, account: &Account, now: Moment) -> Self {
        let doublings = self.refused_in_a_row.saturating_sub(1);
        let longest = LONGEST_COOLDOWN.max(account.settings.rejection_cooldown);
        let cooldown =
            account.settings.rejection_cooldown.saturating_mul(2_u32.saturating_pow(doublings)).min(longest);
        Self { cool_until: Some(now + cooldown), verdict: None, ..self }
    }
}
