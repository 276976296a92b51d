//! The client at the other end of a connection: its address, and the keys it has shown.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::Connection;
use super::slots::{ConnectionSlot, SlotId};

tokio::task_local! {
    /// The client whose requests this task answers.
    pub(super) static CURRENT: Arc<Peer>;
}

/// One client. The default has no socket.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connection: Arc<Connection>,
    /// Its slot among the connections of the listener, if it came through one.
    place: Option<SlotId>,
    has_guessed: AtomicBool,
}

/// Records that a key was shown on the connection that this task serves.
pub(super) fn note_key(is_right: bool) {
    // Fails outside a connection's task.
    let _ = CURRENT.try_with(|peer| match is_right {
        true => {
            if let Some(place) = &peer.place {
                place.prove();
            }
        }
        false => {
            // Count one per request, since its key may be checked more than once.
            if !peer.has_guessed.swap(true, Ordering::Relaxed)
                && let Some(place) = &peer.place
            {
                place.record_guess();
            }
        }
    });
}

impl Peer {
    pub(super) fn at(slot: &ConnectionSlot) -> Self {
        let (connection, place) = (Arc::clone(&slot.place.connection), Some(slot.place.clone()));
        Self { connection, place, has_guessed: AtomicBool::new(false) }
    }

    /// Whether the last request had a wrong key; resets the flag.
    pub(super) fn take_guess(&self) -> bool {
        self.has_guessed.swap(false, Ordering::Relaxed)
    }

    /// How long a key has to wait before it is checked.
    pub(super) fn key_waits(&self) -> Duration {
        self.place.as_ref().map_or(Duration::ZERO, SlotId::key_waits)
    }

    /// The client's address; `None` without a socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.place.as_ref().map(SlotId::address)
    }
}
