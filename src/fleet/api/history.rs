//! Reads a fleet's recent events and follows new ones.

use std::sync::Arc;

use super::handle::Fleet;
use crate::fleet::journal::event::{Event, EventKind};
use crate::fleet::journal::ring::EventBatch;

/// A position among a fleet's events, from which they are followed.
pub(crate) struct Follow {
    fleet: Fleet,
    place: u64,
    /// Whether it is already known that events were missed.
    missed: bool,
}

impl Fleet {
    /// The recent events of `appid`, the newest first; `None` when there is no such account.
    pub(crate) fn history(&self, appid: &str, limit: usize) -> Option<Vec<Arc<Event>>> {
        Some(self.inner.shared.journal.history(&*self.cell(appid).ok()?, limit))
    }

    /// Follows events from now on, or from the named event on.
    pub(crate) fn follow(&self, last_event: Option<&str>) -> Follow {
        let journal = &self.inner.shared.journal;
        let place = last_event.map(|id| journal.place_after(id));
        Follow {
            place: place.flatten().unwrap_or_else(|| journal.end()),
            missed: place == Some(None),
            fleet: self.clone(),
        }
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
        let journal = &self.fleet.inner.shared.journal;
        if std::mem::take(&mut self.missed) {
            return EventBatch { events: Vec::new(), missed: true, behind: self.id_of_place() };
        }
        journal.next(&mut self.place).await
    }

    /// Whether it is already known that events were missed.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed
    }

    /// The id of an event.
    pub(crate) fn id(&self, event: &Event) -> String {
        self.fleet.inner.shared.journal.id(event)
    }

    /// The id of this position, before anything has happened.
    pub(crate) fn id_of_place(&self) -> String {
        self.fleet.inner.shared.journal.id_before(self.place)
    }
}
