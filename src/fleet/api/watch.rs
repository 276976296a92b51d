//! Follows one account's tokens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::time::Instant;
use wxtokend_core::clock::Clock;
use wxtokend_core::token::Token;

use super::answers::TokenError;
use super::handle::Fleet;
use super::subscription::Subscription;
use crate::fleet::cells::cell::{AccountCell, Snapshot};

/// How often a subscription shows that the token is in use, which counts for 15 min.
const STILL_IN_USE: Duration = Duration::from_secs(10 * 60);

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
    loop {
        // Whoever waits for the next token relies on this one.
        cell.note_use(clock.now());
        let found = cell.published.wait_until(Instant::now() + STILL_IN_USE, find_newer).await;
        if found.is_some() || cell.published.is_gone() {
            return found;
        }
    }
}
