//! Follows one account's tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::token::Token;

use crate::fleet::actor::context::ActorContext;
use crate::fleet::cells::cell::{AccountCell, Snapshot};

/// Yields each new token of one account, the current one first.
pub struct Watch {
    cell: Arc<AccountCell>,
    shared: Arc<ActorContext>,
    seen: Option<u64>,
}

/// Long enough to mean "without limit".
const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Watch {
    pub(crate) fn new(cell: Arc<AccountCell>, shared: Arc<ActorContext>) -> Self {
        Self { cell, shared, seen: None }
    }

    /// Waits until there is a valid token that this watch has not yielded yet.
    ///
    /// `None` when there will be none: the account is removed, or the fleet shuts down. Tokens that are
    /// replaced between two calls are skipped.
    pub async fn next(&mut self) -> Option<Token> {
        let (shared, seen) = (&self.shared, self.seen);
        let find_newer = |snapshot: &Arc<Snapshot>| {
            let token = snapshot.state.read(shared.now())?;
            (seen.is_none_or(|seen| token.version() > seen)).then_some(token)
        };
        let token = tokio::select! {
            token = self.cell.slot.wait_until(Instant::now() + A_CENTURY, find_newer) => token?,
            () = shared.until_draining() => return None,
        };
        self.seen = Some(token.version());
        Some(token)
    }
}
