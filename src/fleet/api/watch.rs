//! Follows one account's tokens.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::Instant;
use wxtokend_core::clock::Clock;
use wxtokend_core::token::Token;

use crate::fleet::actor::context::ActorContext;
use crate::fleet::cells::cell::{AccountCell, Snapshot};

/// Yields each new token of one account, the current one first: a [`Stream`] that ends when there will be no
/// more, since the account is removed or the fleet shuts down. Tokens that are replaced before they are read
/// are skipped.
pub struct Watch(Pin<Box<dyn Stream<Item = Token> + Send>>);

/// The longest wait for a token, 100 years: without limit, and safe to add to any instant.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Watch {
    /// Holds nothing that keeps the store open once the fleet has ended.
    pub(crate) fn new(cell: Arc<AccountCell>, shared: &ActorContext) -> Self {
        let (clock, draining) = (Arc::clone(&shared.clock), shared.draining().clone());
        let tokens = stream::unfold(None, move |seen| {
            let (cell, clock, draining) = (Arc::clone(&cell), Arc::clone(&clock), draining.clone());
            async move {
                let token = tokio::select! {
                    token = newer(&cell, &clock, seen) => token?,
                    () = draining.cancelled() => return None,
                };
                let version = token.version();
                Some((token, Some(version)))
            }
        });
        Self(Box::pin(tokens.fuse()))
    }

    /// Waits until there is a valid token that this watch has not yielded yet; `None` when there will be none.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Token> {
        self.0.next().await
    }
}

/// The valid token, once its version exceeds `seen`.
async fn newer(cell: &AccountCell, clock: &Clock, seen: Option<u64>) -> Option<Token> {
    let find_newer = |snapshot: &Arc<Snapshot>| {
        let token = snapshot.state.read(clock.now())?;
        (seen.is_none_or(|seen| token.version() > seen)).then_some(token)
    };
    cell.published.wait_until(Instant::now() + MAX_WAIT, find_newer).await
}

impl Stream for Watch {
    type Item = Token;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Token>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
