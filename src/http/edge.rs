//! What all routes share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::problem::Problem;
use super::timing::Timing;
use crate::fleet::Fleet;
use crate::telemetry::metrics::Metrics;

/// The state of the routers.
pub(super) type Edge = Arc<Inner>;

pub(super) struct Inner {
    pub(super) fleet: Fleet,
    pub(super) clients: Clients,
    pub(super) metrics: Metrics,
    pub(super) timing: Timing,
    /// One scrape at a time: of a large fleet it is megabytes.
    pub(super) scraping: Semaphore,
    pub(super) stopping: CancellationToken,
}

impl Inner {
    pub(super) fn new(fleet: Fleet, clients: Clients, metrics: Metrics) -> Edge {
        Arc::new(Self {
            fleet,
            clients,
            timing: Timing::new(metrics.clone()),
            metrics,
            scraping: Semaphore::new(1),
            stopping: CancellationToken::new(),
        })
    }

    /// What `answer` says, unless it has to be waited for when the server stops.
    pub(super) async fn unless_stopping<T, E: Into<Problem>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(Into::into),
            () = self.stopping.cancelled() => Err(Problem::shutting_down()),
        }
    }
}

/// Runs what takes a thread's time where it holds up nobody.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime cancels no work that has begun, so it is a panic, which goes on where it was asked for.
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}
