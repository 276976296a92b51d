//! The fleet's recent past: one bounded ring of events for all accounts, which serves histories and streams.
//!
//! A stream has a position in the ring and no queue of its own, so that a slow client costs nothing: one that
//! falls behind the oldest event is notified that it has missed some. Each event refers to its account's
//! previous one, so that reading a history costs its length and not the ring's.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wxtokend_core::clock::Moment;
use wxtokend_core::phase::Phase;

use super::event::{ClientRequest, Event, EventKind};
use crate::fleet::cells::cell::AccountCell;

/// How many events are kept: half a day of 3000 accounts, some 10 MB.
const CAPACITY: usize = 65_536;
/// How many events a stream gets at a time.
const BATCH: usize = 256;
/// Requests with the same outcome within this time are one event. Otherwise a client that hammers one account
/// would push out the past of all others.
const MERGE_WINDOW: Duration = Duration::from_secs(60);
/// How many of an account's events are searched for a similar request: more than any fleet has clients.
const SEARCH_DEPTH: usize = 256;

/// The ring.
pub(crate) struct Journal {
    ring: Mutex<Ring>,
    appended: Notify,
    /// Distinguishes this process's events from another's.
    epoch: i64,
}

struct Ring {
    /// The sequence number of the next event.
    next: u64,
    events: VecDeque<Arc<Event>>,
}

/// What a stream reads at a time.
pub(crate) struct EventBatch {
    pub(crate) events: Vec<Arc<Event>>,
    /// Whether earlier events were missed that the ring no longer holds.
    pub(crate) missed: bool,
    /// The id of the event before these.
    pub(crate) behind: String,
}

impl Journal {
    pub(crate) fn new(started: Moment) -> Self {
        let ring = Ring { next: 1, events: VecDeque::new() };
        Self { ring: Mutex::new(ring), appended: Notify::new(), epoch: started.wall_ms }
    }

    /// Records an event of an account.
    pub(crate) fn note(&self, cell: &AccountCell, at: Moment, what: EventKind) {
        let account = Some(Arc::clone(&cell.load().account));
        let mut ring = self.ring();
        let seq = ring.next;
        let previous = cell.last_event.swap(seq, Ordering::Relaxed);
        ring.push(Event { seq, previous, at, account, what });
        drop(ring);
        self.appended.notify_waiters();
    }

    /// Records an event of the fleet as a whole.
    pub(crate) fn note_of_all(&self, at: Moment, what: EventKind) {
        let mut ring = self.ring();
        let seq = ring.next;
        ring.push(Event { seq, previous: 0, at, account: None, what });
        drop(ring);
        self.appended.notify_waiters();
    }

    /// Records a client's request; returns whether it is the first of its kind for a while.
    pub(crate) fn note_request(&self, cell: &AccountCell, at: Moment, request: ClientRequest) -> bool {
        let ring = self.ring();
        let recent = ring.history(cell).take(SEARCH_DEPTH);
        let mut recent = recent.take_while(|event| event.at.elapsed(at) < MERGE_WINDOW);
        if recent
            .any(|event| matches!(&event.what, EventKind::ClientRequest(earlier) if earlier.merge(&request)))
        {
            return false;
        }
        drop(recent);
        drop(ring);
        self.note(cell, at, EventKind::ClientRequest(request));
        true
    }

    /// Records the account's phase, if that has changed since it was last recorded. To be called whenever it
    /// may have changed.
    pub(crate) fn note_state(&self, cell: &AccountCell, now: Moment) -> Option<PhaseChange> {
        let snapshot = cell.load();
        let (state, failures) = (snapshot.state.phase(now), snapshot.state.failures());
        let mut noted = cell.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let was = noted.replace((state, failures));
        drop(noted);
        // The first phase is no change.
        let (was, failures_then) = was?;
        if (was, failures_then) == (state, failures) {
            return None;
        }
        let last_failure = snapshot.state.last_failure.clone();
        self.note(cell, now, EventKind::State { state, was, last_failure, next_at: snapshot.state.next_at });
        (state != was).then_some(PhaseChange { state, was })
    }

    /// An account's events, newest first.
    pub(crate) fn history(&self, cell: &AccountCell, limit: usize) -> Vec<Arc<Event>> {
        let ring = self.ring();
        ring.history(cell).filter(|event| event.is_history()).take(limit).map(Arc::clone).collect()
    }

    /// The position after the newest event.
    pub(crate) fn end(&self) -> u64 {
        self.ring().next
    }

    /// The id of an event, from which a client that returns can continue.
    pub(crate) fn id(&self, event: &Event) -> String {
        self.id_before(event.seq + 1)
    }

    /// The id of the event before `place`, whether or not there is one.
    pub(crate) fn id_before(&self, place: u64) -> String {
        format!("{:x}-{}", self.epoch, place - 1)
    }

    /// The position after the event with that id; `None` if the event is not one of this process.
    pub(crate) fn place_after(&self, id: &str) -> Option<u64> {
        let (epoch, seq) = id.split_once('-')?;
        let ours = i64::from_str_radix(epoch, 16) == Ok(self.epoch);
        let place = seq.parse::<u64>().ok()?.checked_add(1)?;
        (ours && place <= self.end()).then_some(place)
    }

    /// The next events from `place` on, which is moved past them; waits until there are any.
    pub(crate) async fn next(&self, place: &mut u64) -> EventBatch {
        loop {
            let appended = self.appended.notified();
            tokio::pin!(appended);
            // Before the ring is read, so that an event in between is not missed.
            appended.as_mut().enable();
            let (events, missed) = self.ring().from(place);
            if missed || !events.is_empty() {
                let behind = self.id_before(*place - events.len() as u64);
                return EventBatch { events, missed, behind };
            }
            appended.await;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of an account's phase.
pub(crate) struct PhaseChange {
    pub(crate) state: Phase,
    pub(crate) was: Phase,
}

impl Ring {
    fn push(&mut self, event: Event) {
        if self.events.len() == CAPACITY {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
        self.next += 1;
    }

    /// The position of the oldest event.
    fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    fn at(&self, seq: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(seq.checked_sub(self.first())?).ok()?)
    }

    /// The next events from `place` on, which is moved past them, and whether earlier ones are gone.
    fn from(&self, place: &mut u64) -> (Vec<Arc<Event>>, bool) {
        let missed = *place < self.first();
        *place = (*place).max(self.first());
        let skipped = usize::try_from(*place - self.first()).unwrap_or(usize::MAX);
        let events: Vec<_> = self.events.iter().skip(skipped).take(BATCH).map(Arc::clone).collect();
        *place += events.len() as u64;
        (events, missed)
    }

    fn history(&self, cell: &AccountCell) -> impl Iterator<Item = &Arc<Event>> {
        let newest = self.at(cell.last_event.load(Ordering::Relaxed));
        std::iter::successors(newest, |event| self.at(event.previous))
    }
}
