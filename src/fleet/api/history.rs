//! Reads a fleet's recent events and follows new ones.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::handle::Fleet;
use super::subscription::Subscription;
use crate::fleet::journal::event::{Event, EventKind};
use crate::fleet::journal::ring::{EventBatch, Journal};
use crate::fleet::journal::view::EventView;

/// A position among a fleet's events, from which they are followed.
///
/// Holds nothing that keeps the store open once the fleet has ended.
pub(crate) struct Follow {
    journal: Arc<Journal>,
    place: u64,
    /// Whether it is already known that events were missed.
    missed: bool,
}

impl Fleet {
    /// Follows new tokens and tickets, changes of accounts' phases, failures, hosts that go down and recover,
    /// and reloads, from now on until the fleet shuts down. A reader that is more than 65 536 events behind
    /// gets a `gap` and continues with what is still known.
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet) {
    /// use wxtokend::EventDetails;
    ///
    /// let mut events = fleet.events();
    /// while let Some(event) = events.next().await {
    ///     if let EventDetails::State { state, last_fault: Some(fault), .. } = &event.details {
    ///         eprintln!("{:?} is {state}: {}; {}", event.appid, fault.message, fault.advice);
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Subscription<EventView> {
        let shared = &self.inner.shared;
        let (clock, draining) = (Arc::clone(&shared.clock), shared.draining().clone());
        let batches = stream::unfold(self.follow(None), move |mut follow| {
            let (clock, draining) = (Arc::clone(&clock), draining.clone());
            async move {
                let batch = tokio::select! {
                    batch = follow.next() => batch,
                    () = draining.cancelled() => return None,
                };
                let gap = batch.missed.then(|| EventView::gap(clock.now()));
                let events = batch.events.into_iter().filter(|event| event.is_streamed());
                let views: Vec<_> =
                    gap.into_iter().chain(events.map(|event| EventView::of(&event))).collect();
                Some((stream::iter(views), follow))
            }
        });
        Subscription::new(batches.flatten())
    }

    /// The recent events of `appid`, the newest first and at most `limit`; `None` when there is no such
    /// account. The fleet as a whole remembers 65 536 events, and those of this process only.
    #[must_use]
    pub fn history(&self, appid: impl AsRef<str>, limit: usize) -> Option<Vec<EventView>> {
        let cell = self.cell(appid.as_ref()).ok()?;
        let events = self.inner.shared.journal.history(&cell, limit);
        Some(events.iter().map(|event| EventView::of(event)).collect())
    }

    /// Follows events from now on, or from the named event on.
    pub(crate) fn follow(&self, last_event: Option<&str>) -> Follow {
        let journal = Arc::clone(&self.inner.shared.journal);
        let place = last_event.map(|id| journal.place_after(id));
        let missed = place == Some(None);
        Follow { place: place.flatten().unwrap_or_else(|| journal.end()), missed, journal }
    }

    /// Records that the configuration was read again, and whether all of it is in force.
    ///
    /// A client that sees the event asks at once for what has changed, so it is recorded only once such a
    /// request is checked against the new list of clients.
    pub(crate) fn note_reload(&self, successful: bool) {
        let shared = &self.inner.shared;
        shared.journal.note_of_all(shared.now(), EventKind::Reload { successful });
    }
}

impl Follow {
    /// The next events, once there are any. Cancel safe.
    pub(crate) async fn next(&mut self) -> EventBatch {
        if std::mem::take(&mut self.missed) {
            return EventBatch { events: Vec::new(), missed: true, behind: self.id_of_place() };
        }
        self.journal.next(&mut self.place).await
    }

    /// Whether it is already known that events were missed.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed
    }

    /// The id of an event.
    pub(crate) fn id(&self, event: &Event) -> String {
        self.journal.id(event)
    }

    /// The id of this position, before anything has happened.
    pub(crate) fn id_of_place(&self) -> String {
        self.journal.id_before(self.place)
    }
}
