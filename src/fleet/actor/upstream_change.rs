//! Replaces the upstream: what must be on disk at once, and when the old one's tokens are no longer served.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::ticket::TicketState;

use super::context::ActorContext;
use crate::store::Stored;

/// The longest that a change of upstream waits for the actors. One that crashes over the reload applies it
/// after its restart.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

impl ActorContext {
    /// Returns when no token or ticket of an earlier upstream is served any more.
    pub(crate) async fn until_exchanged(&self) {
        let (upstream, deadline) = (self.store.upstream(), Instant::now() + EXCHANGE_TIMEOUT);
        for cell in self.directory.load_full().by_appid.values() {
            let is_done = |done: u64| (done == upstream).then_some(());
            cell.published.wait_until(deadline, |_| is_done(cell.upstream())).await;
            for ticket in cell.tickets() {
                ticket
                    .published
                    .wait_until(deadline, |_| is_done(ticket.upstream.load(Ordering::SeqCst)))
                    .await;
            }
        }
    }

    /// Everything that must survive the process.
    pub(crate) fn everything(&self) -> Stored {
        let mut all = Stored::default();
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        all.accounts.extend(removed.iter().map(|(appid, left)| (appid.clone(), left.state.clone())));
        drop(removed);
        let removed = self.removed_tickets.lock().unwrap_or_else(PoisonError::into_inner);
        all.tickets.extend(removed.iter().map(|(of, state)| (of.clone(), state.clone())));
        drop(removed);
        for (appid, cell) in &self.directory.load().by_appid {
            all.accounts.insert(appid.clone(), cell.load().state.clone());
            let tickets = cell.tickets();
            all.tickets.extend(tickets.map(|ticket| (ticket.of.clone(), TicketState::clone(&ticket.load()))));
        }
        all
    }
}
