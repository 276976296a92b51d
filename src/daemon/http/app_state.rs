//! State shared by all routes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::problem::ApiProblem;
use super::proxy::active::Proxy;
use super::proxy::outcome::Outcomes;
use super::timing::Timing;
use super::wrong_keys::WrongKeys;
use crate::config::{Config, PerAccount};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;

/// How many account pages and scrapes may exist at a time, from the start of rendering until they have been
/// sent. In a large fleet a page of accounts is 5 MB, and a scrape takes a thread for half a second.
const PAGES: usize = 16;
const SCRAPES: usize = 4;

/// How soon a wrong key is logged.
const WRONG_KEYS_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the routers.
pub(super) type AppState = Arc<AppStateInner>;

pub(super) struct AppStateInner {
    pub(super) fleet: Fleet,
    pub(super) clients: Clients,
    pub(super) metrics: Metrics,
    /// Which accounts have metrics of their own, by default all; a reload may change it.
    pub(super) per_account: Arc<ArcSwap<PerAccount>>,
    pub(super) timing: Timing,
    pub(super) proxy: Proxy,
    /// Of calls that were to be passed on.
    pub(super) outcomes: Outcomes,
    pub(super) wrong_keys: WrongKeys,
    pub(super) pages: Arc<Semaphore>,
    pub(super) scrapes: Arc<Semaphore>,
    pub(super) stopping: CancellationToken,
    /// Base path below which WeChat's API is served in addition to the root.
    pub(super) wechat_path: String,
}

impl AppStateInner {
    /// Must be called in a tokio runtime.
    pub(super) fn new(fleet: Fleet, clients: Clients, metrics: Metrics, config: &Config) -> AppState {
        let app = Arc::new(Self {
            // Whatever serves the API, requests that wait end with the fleet.
            stopping: fleet.draining().child_token(),
            fleet,
            clients,
            timing: Timing::new(metrics.clone()),
            proxy: Proxy::new(config),
            outcomes: Outcomes::new(&metrics),
            wrong_keys: WrongKeys::new(metrics.wrong_keys()),
            metrics,
            per_account: Arc::new(ArcSwap::from_pointee(config.metrics.per_account)),
            pages: Arc::new(Semaphore::new(PAGES)),
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
            wechat_path: config.api.wechat_path.clone(),
        });
        tokio::spawn(log_wrong_keys(Arc::downgrade(&app)));
        app
    }

    /// Awaits `answer`, but refuses the request if the server stops before it is ready.
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

/// Logs wrong keys for as long as the routers are there.
async fn log_wrong_keys(app: Weak<AppStateInner>) {
    loop {
        sleep(WRONG_KEYS_INTERVAL).await;
        let Some(app) = app.upgrade() else { return };
        app.wrong_keys.log_unreported();
    }
}

/// Runs `work`, which takes a thread's time and much memory, and returns its output as a body. The body holds
/// one of `permits` until it has been sent.
pub(super) async fn large_body<T: AsRef<[u8]> + Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Bytes {
    // Fails only for a closed semaphore, and this one is never closed.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    let answer = run_blocking(work).await;
    Bytes::from_owner(LargeBody { answer, _permit: permit })
}

struct LargeBody<T> {
    answer: T,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for LargeBody<T> {
    fn as_ref(&self) -> &[u8] {
        self.answer.as_ref()
    }
}

/// Runs blocking work on a thread where it delays no other task.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(output) => output,
        // The runtime does not cancel blocking work that has begun, so this is a panic: resume it here.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
