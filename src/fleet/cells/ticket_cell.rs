//! What readers load of one ticket.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::ticket::{Credential, Ticket, TicketKind, TicketState};

use super::tally::Tally;
use super::wanted_settings::WantedSettings;
use super::watched::{Progress, Watched};

/// One ticket, as seen by everything but its actor.
pub(crate) struct TicketCell {
    pub(crate) kind: TicketKind,
    pub(crate) of: Credential,
    pub(crate) published: Watched<TicketState>,
    pub(crate) wanted: WantedSettings,
    /// The upstream that it comes from, by the store's count.
    pub(crate) upstream: AtomicU64,
    pub(crate) tally: Tally,
}

impl TicketCell {
    pub(crate) fn new(of: Credential, kind: TicketKind, state: TicketState, upstream: u64) -> Arc<Self> {
        Arc::new(Self {
            kind,
            of,
            published: Watched::new(state),
            wanted: WantedSettings::default(),
            upstream: AtomicU64::new(upstream),
            tally: Tally::default(),
        })
    }

    /// The current state.
    pub(crate) fn load(&self) -> Arc<TicketState> {
        self.published.load()
    }

    /// The ticket, if one may be served now.
    pub(crate) fn read(&self, now: Moment) -> Option<Ticket> {
        self.published.with(|state| state.read(now))
    }

    /// See [`Watched::read_or_wait`].
    pub(crate) async fn read_or_wait(
        &self,
        clock: &Clock,
        timeout: Duration,
    ) -> Result<Ticket, Arc<TicketState>> {
        let progress = |state: &TicketState| {
            let is_busy = state.activity.is_some();
            Progress { attempts_ended: state.attempts_ended, is_busy, next_at: state.next_at }
        };
        self.published.read_or_wait(clock, timeout, TicketState::read, progress).await
    }
}
