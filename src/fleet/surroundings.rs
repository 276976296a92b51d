//! What a fleet runs on.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Upstream;
use crate::store::Backend;
use crate::wechat::{HttpTransport, Pending, Transport, TransportError};

/// The machine, or what a test puts in its place.
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) jitter: Jitter,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) make_transport: MakeTransport,
}

/// Makes the transport for an upstream: the real one, which waits for files, or a test's.
pub(crate) type MakeTransport =
    Arc<dyn Fn(&Upstream) -> Pending<Result<Arc<dyn Transport>, TransportError>> + Send + Sync>;

/// Where jitter comes from.
pub(crate) type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// reqwest, timing out as the settings say.
pub(super) fn http_transport(settings: &Upstream) -> Pending<Result<Arc<dyn Transport>, TransportError>> {
    let (base_urls, timeout) = (settings.base_urls.clone(), settings.timeout);
    Box::pin(async move {
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new(&base_urls, timeout).await?);
        Ok(transport)
    })
}
