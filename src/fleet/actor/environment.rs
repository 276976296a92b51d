//! What a fleet runs on: the clock, randomness, the store's backend and the transport.

use std::fmt;
use std::sync::Arc;

use rand::random;
use wxtokend_core::clock::{Clock, SystemClock};

use crate::config::UpstreamConfig;
use crate::store::Backend;
use crate::wechat::{HttpTransport, ResponseFuture, Transport, TransportError};

/// The machine, or what a test puts in its place.
pub struct Environment {
    /// Reads the time.
    pub clock: Clock,
    /// Supplies random numbers.
    pub jitter: Jitter,
    /// Where the store is kept.
    pub backend: Arc<dyn Backend>,
    /// How WeChat is reached.
    pub make_transport: MakeTransport,
}

impl Environment {
    /// The machine, and a store that is kept by `backend`.
    pub(crate) fn machine(backend: Arc<dyn Backend>) -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            jitter: Arc::new(random::<f64>),
            backend,
            make_transport: Arc::new(http_transport),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("store", &self.backend.path()).finish_non_exhaustive()
    }
}

/// Makes the transport for an upstream: the real one, which waits for files, or a test's.
pub type MakeTransport =
    Arc<dyn Fn(&UpstreamConfig) -> ResponseFuture<Result<Arc<dyn Transport>, TransportError>> + Send + Sync>;

/// Where jitter comes from.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The reqwest transport, with the timeout from the settings.
fn http_transport(settings: &UpstreamConfig) -> ResponseFuture<Result<Arc<dyn Transport>, TransportError>> {
    let (base_urls, timeout) = (settings.base_urls.clone(), settings.timeout);
    Box::pin(async move {
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new(&base_urls, timeout).await?);
        Ok(transport)
    })
}
