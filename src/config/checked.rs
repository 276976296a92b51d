//! The settings that the program uses: every default filled in, every rule checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;
use wxtokend_core::account::{Account, AccountSettings};

use super::grants::Client;
use super::problem::Problem;
use super::sink::Sink;

/// WeChat's own API host.
const WECHAT: &str = "https://api.weixin.qq.com/";

/// All settings. Read from a file by [`Config::load`], or built in Rust by [`Config::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that the settings were read from; empty if there is none.
    pub path: PathBuf,
    /// The HTTP API.
    pub api: ApiConfig,
    /// Where metrics are served, and for which accounts.
    pub metrics: MetricsConfig,
    /// What has to survive a restart.
    pub store: StoreConfig,
    /// How WeChat is called.
    pub upstream: UpstreamConfig,
    /// How calls are passed on to WeChat.
    pub proxy: ProxyConfig,
    /// Where tokens are published in addition; by default nowhere.
    pub publish: Vec<Sink>,
    /// The accounts in the order of the file, each appid once.
    pub accounts: Vec<Arc<Account>>,
    /// Warnings: what the file says that is allowed but probably not intended. Empty for settings built in
    /// Rust.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Settings with these accounts and defaults for everything else. To build an account, use
    /// [`AccountSettings::account`].
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self {
            path: PathBuf::new(),
            api: ApiConfig::default(),
            metrics: MetricsConfig::default(),
            store: StoreConfig::default(),
            upstream: UpstreamConfig::default(),
            proxy: ProxyConfig::default(),
            publish: Vec::new(),
            accounts: accounts.into_iter().map(Arc::new).collect(),
            warnings: Vec::new(),
        }
    }
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiConfig {
    /// The address to listen on; default 127.0.0.1:8787. Must be a loopback address unless there are clients.
    pub listen: SocketAddr,
    /// WeChat's own calls are answered at the root and below this path. Begins with `/`, which is the
    /// default.
    pub wechat_path: String,
    /// Proxies in front, whose `X-Forwarded-For` is believed; only for [`ProxyConfig::transparent`].
    pub trusted_proxies: Vec<IpNet>,
    /// The clients that may call it. With none, every local caller may do everything.
    pub clients: Vec<Client>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787),
            wechat_path: "/".to_owned(),
            trusted_proxies: Vec::new(),
            clients: Vec::new(),
        }
    }
}

/// Where metrics are served, and for which accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The address of a separate listener. `None`: metrics are served with the API, if that is a loopback
    /// address.
    pub listen: Option<SocketAddr>,
    /// Which accounts have series of their own; default all. The fleet's metrics are always there.
    pub per_account: PerAccount,
}

/// Which accounts have metrics of their own, some 22 lines each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PerAccount {
    /// All accounts.
    #[default]
    All,
    /// Accounts that are degraded, unavailable or parked, or whose last call has failed, and those with such
    /// a ticket.
    ///
    /// Starting accounts are not included. After a start all accounts are in that phase until their first
    /// attempt ends, and if that is delayed, the cause is a host or a limit, which the fleet's metrics show.
    Troubled,
    /// No account.
    None,
}

impl PerAccount {
    /// The name in `accounts.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Troubled => "troubled",
            Self::None => "none",
        }
    }
}

/// What has to survive a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database file; default `wxtokend.redb`. A relative path in a file is resolved against the file's
    /// folder.
    pub path: PathBuf,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("wxtokend.redb") }
    }
}

/// How WeChat is called.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// Hosts to try, in this order; at least one. Each path ends in `/`, so that [`Url::join`] appends to it.
    pub base_urls: Vec<Url>,
    /// Time limit of one attempt, including the connect; default 5 s.
    pub timeout: Duration,
    /// How long WeChat honours the previous token after a mint; default 5 min, as at WeChat.
    pub overlap: Duration,
    /// Calls in flight at once, over all accounts; at least 1, default 64.
    pub max_in_flight: u32,
    /// Calls started per second, over all accounts; at least 1, default 100.
    pub max_per_second: u32,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            base_urls: Url::parse(WECHAT).into_iter().collect(),
            timeout: Duration::from_secs(5),
            overlap: Duration::from_secs(5 * 60),
            max_in_flight: 64,
            max_per_second: 100,
        }
    }
}

/// How calls of applications are passed on to WeChat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Up to this many bytes of a call's body are kept until it is answered, so that the call can be repeated;
    /// default 1 MiB.
    pub keep_body: u32,
    /// How long a call may make no progress: connecting, sending, waiting for the answer, or receiving it;
    /// default 60 s.
    pub timeout: Duration,
    /// Connections to each of WeChat's hosts at once, over all accounts; at least 1, default 256.
    pub max_connections: u32,
    /// How long after its end a token still counts for its account in requests that carry it; default 2 h.
    pub stale: Duration,
    /// Who needs neither a key nor another path: their calls to WeChat's own paths are passed on.
    pub transparent: Vec<Transparent>,
}

/// Applications whose calls are passed on although they know WeChat alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transparent {
    /// The name of the client that they count as.
    pub client: String,
    /// The networks that they call from.
    pub from: Vec<IpNet>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            keep_body: 1 << 20,
            timeout: Duration::from_secs(60),
            max_connections: 256,
            stale: Duration::from_secs(2 * 60 * 60),
            transparent: Vec::new(),
        }
    }
}

/// Settings of accounts that do not override them.
pub type Defaults = AccountSettings;

#[cfg(test)]
mod tests {
    use wxtokend_core::account::Appid;
    use wxtokend_core::secret::Secret;

    use super::*;

    #[test]
    fn a_config_built_in_rust_has_the_contracts_defaults() {
        let account = Defaults::default().account(Appid::new("wx1").unwrap(), Secret::new("hunter2"));
        let config = Config::new([account]);
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:8787");
        assert_eq!(config.upstream.base_urls[0].as_str(), WECHAT);
        assert_eq!(config.upstream.base_urls[0].join("cgi-bin/token").unwrap().path(), "/cgi-bin/token");
        assert_eq!(config.accounts[0].settings.daily_budget, 2000);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
