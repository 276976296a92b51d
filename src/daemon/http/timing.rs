//! How long requests take, by route and status.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::StatusCode;
use metrics::Histogram;

use super::paths::ROUTES;
use crate::daemon::telemetry::metrics::Metrics;

/// The label of what no route matches.
const UNMATCHED: &str = "unmatched";
/// The statuses there are; any other is looked up each time.
const STATUSES: [u16; 11] = [200, 304, 400, 401, 403, 404, 405, 413, 415, 500, 503];

/// Histograms at hand, since looking one up in the registry costs more than answering from memory.
pub(super) struct Timing {
    metrics: Metrics,
    at_hand: [[OnceLock<Histogram>; STATUSES.len()]; ROUTES.len() + 1],
}

impl Timing {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, at_hand: Default::default() }
    }

    /// Notes that a request to one of [`ROUTES`], or to none of them, took `time`.
    pub(super) fn note(&self, route: Option<usize>, status: StatusCode, time: Duration) {
        let label = route.map_or(UNMATCHED, |route| ROUTES[route]);
        let status = status.as_u16();
        let of_route = &self.at_hand[route.unwrap_or(ROUTES.len())];
        match STATUSES.iter().position(|known| *known == status) {
            Some(column) => {
                of_route[column].get_or_init(|| self.metrics.of_requests(label, status)).record(time)
            }
            None => self.metrics.of_requests(label, status).record(time),
        }
    }
}
