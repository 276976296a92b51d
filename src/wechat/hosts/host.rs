//! One host and what is known of its health.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Url;
use tokio::task::AbortHandle;
use wxtokend_core::clock::Moment;

/// The state of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostState {
    /// `host` or `host:port`.
    pub host: String,
    /// Since when it has been down, and why; `None` while it is not known to be. The sentence contains no
    /// secrets.
    pub down: Option<(Moment, String)>,
}

/// One of `upstream.base_urls`.
pub(super) struct Host {
    pub(super) url: Url,
    pub(super) label: String,
    health: Mutex<Health>,
}

/// What calls and probes have shown about a host.
#[derive(Default)]
pub(super) struct Health {
    pub(super) down: bool,
    /// When it last went down.
    pub(super) down_at: Option<Moment>,
    pub(super) failed_at: Option<Moment>,
    pub(super) answered_at: Option<Moment>,
    pub(super) why: String,
    pub(super) probe: Option<AbortHandle>,
    /// Whether it has answered a real call while probes failed, and no probe since.
    pub(super) probes_misled: bool,
}

/// What showed that a host answers or fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wechat) enum Evidence {
    /// A check; probes are checks, too.
    Check,
    /// Any other call.
    Call,
}

impl Health {
    /// Whether failed probes are ignored, because real calls succeed.
    pub(super) fn distrusts_probes(&self) -> bool {
        self.probes_misled && self.failed_at.is_none()
    }
}

impl Host {
    pub(super) fn new(url: &Url) -> Self {
        Self { url: url.clone(), label: host_label(url), health: Mutex::default() }
    }

    pub(super) fn state(&self, health: &Health) -> HostState {
        let down = health.down_at.filter(|_| health.down).map(|at| (at, health.why.clone()));
        HostState { host: self.label.clone(), down }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `host` or `host:port`, as shown in logs and metrics.
pub(in crate::wechat) fn host_label(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
