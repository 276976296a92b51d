//! Request durations, by route and status.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::StatusCode;
use metrics::Histogram;
use wxtokend_core::reference::routes::{ALL, Route};

use crate::daemon::telemetry::metrics::Metrics;

/// The label of requests that match no route.
const UNMATCHED: &str = "unmatched";
/// The statuses that the API uses; any other is looked up each time.
const STATUSES: [u16; 14] = [200, 204, 304, 400, 401, 403, 404, 405, 413, 415, 500, 502, 503, 504];

/// Cached histograms, since looking one up in the registry costs more than answering from memory.
pub(super) struct Timing {
    metrics: Metrics,
    /// By route, by status; the last of routes is none of them.
    cached: [[OnceLock<Histogram>; STATUSES.len()]; ALL.len() + 1],
}

impl Timing {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, cached: Default::default() }
    }

    /// Records that a request to `route`, or to none, took `time`.
    pub(super) fn note(&self, route: Option<&Route>, status: StatusCode, time: Duration) {
        let label = route.map_or(UNMATCHED, |route| route.path);
        let status = status.as_u16();
        let row = ALL.iter().position(|known| known.path == label).unwrap_or(ALL.len());
        let histograms = &self.cached[row];
        match STATUSES.iter().position(|known| *known == status) {
            Some(column) => {
                histograms[column].get_or_init(|| self.metrics.request_durations(label, status)).record(time)
            }
            None => self.metrics.request_durations(label, status).record(time),
        }
    }
}
