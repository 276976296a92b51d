//! Replaces Redis in a library built without it: nothing is published.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wxtokend_core::account::Appid;
use wxtokend_core::clock::Clock;
use wxtokend_core::ticket::TicketKind;

use crate::config::Sink;
use crate::fleet::cells::directory::Directory;

/// No sinks: a fleet that has some does not start.
pub(crate) struct Publishers;

impl Publishers {
    pub(crate) fn new(_: Arc<ArcSwap<Directory>>, _: Clock) -> Self {
        Self
    }

    pub(crate) fn can_publish_to(sinks: &[Sink]) -> bool {
        sinks.is_empty()
    }

    pub(crate) fn set(&self, sinks: &[Sink]) {
        debug_assert!(sinks.is_empty(), "refused before");
    }

    pub(crate) fn note(&self, _: &Appid) {}

    pub(crate) fn note_ticket(&self, _: &Appid, _: TicketKind) {}

    pub(crate) fn stop(&self) {}

    pub(crate) async fn stopped(&self) {}
}
