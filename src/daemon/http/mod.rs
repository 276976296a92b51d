//! The HTTP API, for applications in any language, and the status page, for people.

mod access;
mod accounts;
mod api_service;
mod app_state;
mod body;
mod caller;
mod cgi_bin;
mod clients;
mod connection;
mod cookie;
mod encoding;
mod events;
mod extract;
mod host;
mod listener;
mod mount;
mod origin;
mod paths;
mod peer;
mod probes;
mod problem;
pub(crate) mod proxy;
mod query;
mod rejection;
mod resolve;
mod rights;
mod routes;
mod scrape;
mod session;
mod slots;
mod tickets;
mod timed_io;
mod timing;
mod token;
mod ui;
mod unread_body;
mod wrong_keys;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use app_state::{AppState, AppStateInner};
pub use clients::Clients;
pub use mount::{metrics_router, router};
pub(crate) use proxy::active::Proxy;
use slots::Slots;

use crate::config::{Config, PerAccount};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;

/// The bound addresses of the API, not served yet. Binding them before the fleet starts keeps a daemon that
/// was started twice by mistake from calling WeChat.
pub struct Listeners {
    api: (TcpListener, SocketAddr),
    metrics: Option<(TcpListener, SocketAddr)>,
}

/// The API, bound to its addresses but not serving yet.
pub struct ApiServer {
    app: AppState,
    api: (TcpListener, SocketAddr),
    metrics: Option<(TcpListener, SocketAddr)>,
    idle: Duration,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("api", &self.api.1).finish_non_exhaustive()
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("api", &self.api.1).finish_non_exhaustive()
    }
}

/// The server cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} ({key}); {}", advice(source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The key of `accounts.yaml` that sets the address.
    pub key: &'static str,
    source: io::Error,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there already, or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one that it has",
        io::ErrorKind::PermissionDenied => "this user may not use the port: choose one from 1024 on",
        _ => "choose another address",
    }
}

impl Listeners {
    /// Binds the configured addresses of the API and, if there is one, of the metrics.
    ///
    /// # Errors
    /// When the server cannot listen on one of them.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let api = bind(config.api.listen, "api.listen")?;
        let metrics = match config.metrics.listen {
            Some(address) => Some(bind(address, "metrics.listen")?),
            None => None,
        };
        Ok(Self { api, metrics })
    }
}

impl ApiServer {
    /// The API of `fleet`, on addresses that were bound before.
    #[must_use]
    pub fn on(listeners: Listeners, config: &Config, fleet: Fleet, metrics: Metrics) -> Self {
        let Listeners { api, metrics: metrics_listener } = listeners;
        let clients = Clients::new(config.api.clients.clone(), is_loopback(api.1));
        let app = AppStateInner::new(fleet, clients, metrics, config);
        Self { app, api, metrics: metrics_listener, idle: listener::IDLE }
    }

    /// The address of the API, with the real port where the configuration says 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.api.1
    }

    /// The address of the metrics' own listener, if there is one.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// The clients that may call, for a reload to replace.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.app.clients.clone()
    }

    /// The proxy, whose settings a reload replaces.
    pub(crate) fn proxy(&self) -> Proxy {
        self.app.proxy.clone()
    }

    /// Which accounts have metrics of their own, for a reload to replace.
    pub(crate) fn per_account(&self) -> Arc<ArcSwap<PerAccount>> {
        Arc::clone(&self.app.per_account)
    }

    fn serves_metrics(&self) -> bool {
        self.metrics.is_none() && is_loopback(self.api.1)
    }

    /// Serves until `shutdown` completes or the fleet stops.
    ///
    /// It then accepts no new connections, answers waiting requests at once, lets requests in progress end
    /// for at most 3 s, and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let with_metrics = self.serves_metrics();
        let Self { app, api: (listener, _), metrics, idle } = self;
        let stopping = app.stopping.clone();
        let slots = Slots::new(listener::max_connections());
        let api = listener::serve(listener, routes::api(&app, with_metrics), slots, idle, stopping.clone());
        let own_metrics = async {
            if let Some((listener, _)) = metrics {
                let service = routes::metrics(&app);
                let slots = Slots::without_keys(listener::MAX_SCRAPERS);
                listener::serve(listener, service, slots, idle, stopping.clone()).await;
            }
        };
        let stop = async {
            tokio::select! {
                () = shutdown => {}
                // Without its fleet the API has nothing to serve.
                () = app.fleet.until_draining() => {}
            }
            stopping.cancel();
        };
        tokio::join!(api, own_metrics, stop);
    }
}

/// What only tests and benchmarks use.
#[cfg(any(test, feature = "internals"))]
impl ApiServer {
    /// Binds the configured addresses for the API of `fleet`.
    ///
    /// # Errors
    /// When the server cannot listen on one of them.
    pub async fn bind(config: &Config, fleet: Fleet, metrics: Metrics) -> Result<Self, BindError> {
        Ok(Self::on(Listeners::bind(config).await?, config, fleet, metrics))
    }

    /// Sets how long connections are kept without a request, 80 s by default. Clients are given a sixteenth
    /// less.
    #[must_use]
    pub fn keep_idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Serves requests on `stream`, as on a connection to the API's address, until the connection ends.
    pub async fn converse(&self, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
        let service = routes::api(&self.app, self.serves_metrics());
        let peer = Arc::default();
        drop(listener::converse(stream, |_| false, service, self.idle, peer, &self.app.stopping).await);
    }
}

/// Whether the address is a loopback address, including IPv4 addresses mapped to IPv6.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError { address, key, source };
    let listener = listener::listen(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
