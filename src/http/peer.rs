//! The client at the other end of a connection: where it calls from, and what keys it has shown.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::Connection;
use super::slots::{Place, Slot};

tokio::task_local! {
    /// The one whose requests this task answers.
    pub(super) static CURRENT: Arc<Peer>;
}

/// One client. By default one without a socket.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connection: Arc<Connection>,
    /// Among the others of its listener, if it came by one.
    place: Option<Place>,
    has_guessed: AtomicBool,
}

/// Notes that a key was shown on the connection that this task serves.
pub(super) fn note_key(is_right: bool) {
    // Fails where there is none.
    let _ = CURRENT.try_with(|peer| match is_right {
        true => {
            if let Some(place) = &peer.place {
                place.prove();
            }
        }
        false => peer.has_guessed.store(true, Ordering::Relaxed),
    });
}

impl Peer {
    pub(super) fn at(slot: &Slot) -> Self {
        let (connection, place) = (Arc::clone(&slot.place.connection), Some(slot.place.clone()));
        Self { connection, place, has_guessed: AtomicBool::new(false) }
    }

    /// Whether the last request had a wrong key, and how long its answer is to be held back for that.
    pub(super) fn take_guess(&self) -> Option<Duration> {
        let has_guessed = self.has_guessed.swap(false, Ordering::Relaxed);
        has_guessed.then(|| self.place.as_ref().map_or(Duration::ZERO, Place::guessed))
    }

    /// The client's address; none without a socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.place.as_ref().map(Place::address)
    }
}
