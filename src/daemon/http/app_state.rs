//! What all routes share.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::problem::ApiProblem;
use super::timing::Timing;
use super::wrong_keys::WrongKeys;
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;

/// Of a large fleet a page of accounts is 5 MB, and a scrape takes a thread for half a second. So many of each there may
/// be at a time, from when they are begun until their clients have taken them in.
const PAGES: usize = 16;
const SCRAPES: usize = 4;

/// The state of the routers.
pub(super) type AppState = Arc<AppStateInner>;

pub(super) struct AppStateInner {
    pub(super) fleet: Fleet,
    pub(super) clients: Clients,
    pub(super) metrics: Metrics,
    pub(super) timing: Timing,
    pub(super) wrong_keys: WrongKeys,
    pub(super) pages: Arc<Semaphore>,
    pub(super) scrapes: Arc<Semaphore>,
    pub(super) stopping: CancellationToken,
    /// Below which WeChat's calls are answered, too.
    pub(super) wechat_path: String,
}

impl AppStateInner {
    pub(super) fn new(fleet: Fleet, clients: Clients, metrics: Metrics, wechat_path: &str) -> AppState {
        Arc::new(Self {
            fleet,
            clients,
            timing: Timing::new(metrics.clone()),
            wrong_keys: WrongKeys::new(metrics.wrong_keys()),
            metrics,
            pages: Arc::new(Semaphore::new(PAGES)),
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
            stopping: CancellationToken::new(),
            wechat_path: wechat_path.to_owned(),
        })
    }

    /// What `answer` says, unless it has to be waited for when the server stops.
    pub(super) async fn unless_stopping<T, E: Into<ApiProblem>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ApiProblem> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(Into::into),
            () = self.stopping.cancelled() => Err(ApiProblem::shutting_down()),
        }
    }
}

/// The answer that `work` makes, which takes a thread's time and much memory: one of those that `turns` allows, until
/// it has been sent.
pub(super) async fn large<T: AsRef<[u8]> + Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Bytes {
    // Fails only where a semaphore was closed, and none is.
    let turn = Arc::clone(turns).acquire_owned().await.ok();
    let answer = aside(work).await;
    Bytes::from_owner(LargeBody { answer, _turn: turn })
}

struct LargeBody<T> {
    answer: T,
    _turn: Option<OwnedSemaphorePermit>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for LargeBody<T> {
    fn as_ref(&self) -> &[u8] {
        self.answer.as_ref()
    }
}

/// Runs what takes a thread's time where it holds up nobody.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime cancels no work that has begun, so it is a panic, which goes on where it was asked for.
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}
