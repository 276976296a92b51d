//! What a fleet runs on: the clock, randomness, the store's backend and the transport.

use std::sync::Arc;

use wxtokend_core::clock::Clock;

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

/// Makes the transport for an upstream: the real one, which waits for files, or a test's.
pub type MakeTransport =
    Arc<dyn Fn(&UpstreamConfig) -> ResponseFuture<Result<Arc<dyn Transport>, TransportError>> + Send + Sync>;

/// Where jitter comes from.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The reqwest transport, with the timeout from the settings.
pub(crate) fn http_transport(
    settings: &UpstreamConfig,
) -> ResponseFuture<Result<Arc<dyn Transport>, TransportError>> {
    let (base_urls, timeout) = (settings.base_urls.clone(), settings.timeout);
    Box::pin(async move {
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new(&base_urls, timeout).await?);
        Ok(transport)
    })
}
