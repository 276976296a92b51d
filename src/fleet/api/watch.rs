//! Follows one account's tokens.

use std::sync::Arc;

use futures_util::stream;
use tokio::time::Instant;
use wxtokend_core::clock::Clock;
use wxtokend_core::token::Token;

use super::answers::TokenError;
use super::handle::{Fleet, MAX_WAIT};
use super::subscription::Subscription;
use crate::fleet::cells::cell::{AccountCell, Snapshot};

impl Fleet {
    /// Follows the tokens of `appid`, starting with the current one, until the account is removed or the fleet
    /// shuts down. Tokens that are replaced before they are read are skipped.
    ///
    /// # Errors
    /// [`TokenError::UnknownAccount`].
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet) -> Result<(), wxtokend::TokenError> {
    /// let mut tokens = fleet.watch("wx0123456789abcdef")?;
    /// while let Some(token) = tokens.next().await {
    ///     println!("version {} from now on", token.version());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, appid: impl AsRef<str>) -> Result<Subscription<Token>, TokenError> {
        let (cell, shared) = (self.cell(appid.as_ref())?, &self.inner.shared);
        // Holds nothing that keeps the store open once the fleet has ended.
        let (clock, draining) = (Arc::clone(&shared.clock), shared.draining().clone());
        Ok(Subscription::new(stream::unfold(None, move |seen| {
            let (cell, clock, draining) = (Arc::clone(&cell), Arc::clone(&clock), draining.clone());
            async move {
                let token = tokio::select! {
                    token = newer(&cell, &clock, seen) => token?,
                    () = draining.cancelled() => return None,
                };
                let version = token.version();
                Some((token, Some(version)))
            }
        })))
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
