//! Following one account's tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cell::AccountCell;
use crate::clock::Clock;
use crate::token::Token;

/// Yields each new token of one account, the current one first.
pub struct Watch {
    cell: Arc<AccountCell>,
    clock: Clock,
    seen: Option<u64>,
}

/// Far enough to stand for "without limit".
const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Watch {
    pub(super) fn new(cell: Arc<AccountCell>, clock: Clock, seen: Option<u64>) -> Self {
        Self { cell, clock, seen }
    }

    /// Waits until there is a valid token that this watch has not yielded yet. Tokens that are replaced while
    /// nobody waits are skipped.
    pub async fn next(&mut self) -> Token {
        loop {
            if let Some(token) = self.next_within(A_CENTURY).await {
                return token;
            }
        }
    }

    /// [`Watch::next`], for at most `limit`.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Token> {
        let (clock, seen) = (&self.clock, self.seen);
        let look = |snapshot: &Arc<super::cell::Snapshot>| {
            let token = snapshot.state.read(clock.now())?;
            (seen.is_none_or(|seen| token.version() > seen)).then_some(token)
        };
        let token = self.cell.wait_until(Instant::now() + limit, look).await?;
        self.seen = Some(token.version());
        Some(token)
    }
}
