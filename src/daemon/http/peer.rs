//! The client at the other end of a connection: where it calls from, and what keys it has shown.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::Connection;
use super::slots::{ConnectionSlot, SlotId};

tokio::task_local! {
    /// The one whose requests this task answers.
    pub(super) static CURRENT: Arc<Peer>;
}

/// One client. By default one without a socket.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connection: Arc<Connection>,
    /// Among the others of its listener, if it came by one.
    place: Option<SlotId>,
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
        false => {
            // Once for a request: its key may be looked at more than once.
            if !peer.has_guessed.swap(true, Ordering::Relaxed)
                && let Some(place) = &peer.place
            {
                place.guessed();
            }
        }
    });
}

impl Peer {
    pub(super) fn at(slot: &ConnectionSlot) -> Self {
        let (connection, place) = (Arc::clone(&slot.place.connection), Some(slot.place.clone()));
        Self { connection, place, has_guessed: AtomicBool::new(false) }
    }

    /// Whether the last request had a wrong key.
    pub(super) fn take_guess(&self) -> bool {
        self.has_guessed.swap(false, Ordering::Relaxed)
    }

    /// How long a key has to wait before it is looked at.
    pub(super) fn key_waits(&self) -> Duration {
        self.place.as_ref().map_or(Duration::ZERO, SlotId::key_waits)
    }

    /// The client's address; none without a socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.place.as_ref().map(SlotId::address)
    }
}
