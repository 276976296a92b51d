//! The proxy's settings and its connections.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::upstream::Upstream;
use crate::config::{Config, ProxyConfig};

/// How long connecting to one host may take, before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxy's settings and its connections, replaced as a whole by a reload. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Proxy(Arc<ArcSwap<Active>>);

/// Settings and the connections that were made by them.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) settings: ProxyConfig,
    /// Of `api.trusted_proxies`.
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) upstream: Upstream,
}

impl Proxy {
    pub(in crate::daemon::http) fn new(config: &Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Active::new(config))))
    }

    /// What the calls that begin now use.
    pub(super) fn active(&self) -> Arc<Active> {
        self.0.load_full()
    }

    /// Passes calls on with these settings from now on, over new connections; the CA certificates are read again.
    pub(crate) fn set(&self, config: &Config) {
        self.0.store(Arc::new(Active::new(config)));
    }
}

impl Active {
    pub(super) fn new(config: &Config) -> Self {
        let settings = config.proxy.clone();
        let upstream = Upstream::new(settings.max_connections, settings.timeout.min(CONNECT_TIMEOUT));
        Self { settings, trusted_proxies: config.api.trusted_proxies.clone(), upstream }
    }
}
