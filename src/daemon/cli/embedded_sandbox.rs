//! The sandbox (the simulated WeChat) as a server: alone for `sandbox`, or under the daemon for `run
//! --sandbox`.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reqwest::Url;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tracing::warn;
use wxtokend_core::account::Appid;
use wxtokend_core::clock::{ClockSource, SystemClock};
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Sandbox, Settings, Tls};

use super::failure::Failure;
use crate::config::{Config, duration};

/// The default address, fixed so that commands in README.md can be pasted.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8788));
/// Short, so that refreshes can be watched; WeChat's tokens live for 2 h.
const LIFETIME: Duration = Duration::from_secs(60);
/// Default overlap; at WeChat it is 5 min.
const OVERLAP: Duration = Duration::from_secs(10);
/// WeChat states lifetimes in whole seconds.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// The lifetime of simulated tokens, and their overlap with their successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) lifetime: Duration,
    pub(super) overlap: Duration,
}

impl Times {
    /// Fills in defaults: a lifetime of 60 s, and an overlap of 10 s but at most a sixth of the lifetime.
    pub(super) fn new(lifetime: Option<Duration>, overlap: Option<Duration>) -> Result<Self, Failure> {
        let lifetime = lifetime.unwrap_or(LIFETIME);
        let overlap = overlap.unwrap_or_else(|| OVERLAP.min(lifetime / 6));
        if lifetime < MIN_LIFETIME {
            return Err(Failure::Usage("--token-lifetime must be at least 1s".to_owned()));
        }
        if overlap >= lifetime {
            let lifetime = duration::show(lifetime);
            return Err(Failure::Usage(format!(
                "--overlap must be shorter than --token-lifetime ({lifetime})"
            )));
        }
        Ok(Self { lifetime, overlap })
    }
}

/// The Unix time in seconds.
pub(super) fn true_time_s() -> u64 {
    u64::try_from(SystemClock::new().now().wall_ms / 1_000).unwrap_or_default()
}

/// Binds `default`, or another port of the same address if that one is taken, which is logged.
async fn bind_near(default: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(default).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let listener = TcpListener::bind(SocketAddr::new(default.ip(), 0)).await?;
            let instead = listener.local_addr()?;
            warn!(
                event = "sandbox_elsewhere",
                sandbox = %instead,
                "{default} is taken: the simulated WeChat listens on {instead}"
            );
            Ok(listener)
        }
        bound => bound,
    }
}

/// A running sandbox server, which stops when this is dropped.
pub(super) struct EmbeddedSandbox {
    sandbox: Sandbox,
    address: SocketAddr,
    /// The configured secrets. A secret that was changed in the sandbox is reset only when the file changes
    /// it.
    configured: HashMap<Appid, Secret>,
    serving: AbortHandle,
}

impl EmbeddedSandbox {
    /// Starts the server with the accounts of `config`. Its clock starts at the true time. Without an address
    /// it listens on the default one, or on another port if that is taken.
    /// Speaks HTTPS if there is a `tls`.
    pub(super) async fn start(
        listen: Option<SocketAddr>,
        times: Times,
        tls: Option<Tls>,
        config: &Config,
    ) -> io::Result<Self> {
        let listener = match listen {
            Some(address) => TcpListener::bind(address).await?,
            None => bind_near(DEFAULT_ADDRESS).await?,
        };
        let address = listener.local_addr()?;
        let sandbox = Sandbox::new(Settings {
            token_lifetime: times.lifetime,
            overlap: times.overlap,
            seed: rand::random(),
            epoch_wall_s: true_time_s(),
            ..Settings::default()
        });
        let served = sandbox.clone();
        let serving = tokio::spawn(async move {
            match tls {
                Some(tls) => served.serve_tls(listener, &tls, std::future::pending()).await,
                None => served.serve(listener, std::future::pending()).await,
            }
        });
        let mut server =
            Self { sandbox, address, configured: HashMap::new(), serving: serving.abort_handle() };
        server.add_accounts(config);
        Ok(server)
    }

    /// The address of the server.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds new accounts from `config`, and applies changed secrets.
    fn add_accounts(&mut self, config: &Config) {
        for account in &config.accounts {
            let known = self.configured.insert(account.appid.clone(), account.secret.clone());
            if known.as_ref() != Some(&account.secret) {
                self.sandbox.add_account(&account.appid, account.secret.clone());
            }
        }
    }
}

impl Drop for EmbeddedSandbox {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a daemon needs that must not touch anything real.
pub(super) struct SandboxRun {
    pub(super) server: EmbeddedSandbox,
    overlap: Duration,
    base_url: Url,
    /// Removed when this is dropped.
    folder: TempDir,
}

impl SandboxRun {
    pub(super) async fn start(times: Times, config: &Config) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::to("start the simulated WeChat", error);
        let server =
            EmbeddedSandbox::start(None, times, None, config).await.map_err(|error| failed(&error))?;
        let base_url =
            Url::parse(&format!("http://{}/", server.address())).map_err(|error| failed(&error))?;
        let owner_only = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix("wxtokend-sandbox-")
            .permissions(owner_only)
            .tempdir()
            .map_err(|error| Failure::to("make a temporary folder", &error))?;
        Ok(Self { server, overlap: times.overlap, base_url, folder })
    }

    /// Redirects `config` to the sandbox and a temporary store, and adds its accounts to the sandbox.
    pub(super) fn redirect(&mut self, config: &mut Config) {
        self.server.add_accounts(config);
        config.upstream.base_urls = vec![self.base_url.clone()];
        config.upstream.overlap = self.overlap;
        // Consumers of a real Redis would take simulated tokens for real ones.
        config.publish.clear();
        config.store.path = self.folder.path().join("wxtokend.redb");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;

    fn config(accounts: &[(&str, &str)]) -> Config {
        let account = |(appid, secret): &(&str, &str)| {
            Defaults::default().account(Appid::new(appid).unwrap(), Secret::new(*secret))
        };
        Config::new(accounts.iter().map(account))
    }

    fn seconds(lifetime: Option<u64>, overlap: Option<u64>) -> Result<(u64, u64), Failure> {
        let times = Times::new(lifetime.map(Duration::from_secs), overlap.map(Duration::from_secs))?;
        Ok((times.lifetime.as_secs(), times.overlap.as_secs()))
    }

    #[test]
    fn the_overlap_is_shorter_than_the_lifetime() {
        assert_eq!(seconds(None, None), Ok((60, 10)));
        assert_eq!(seconds(Some(7200), None), Ok((7200, 10)));
        assert_eq!(seconds(Some(30), None), Ok((30, 5)), "the default makes way");
        assert_eq!(seconds(Some(30), Some(29)), Ok((30, 29)));
        for (lifetime, overlap) in [(Some(30), Some(30)), (None, Some(60))] {
            assert!(matches!(seconds(lifetime, overlap), Err(Failure::Usage(_))), "{lifetime:?} {overlap:?}");
        }
        assert!(Times::new(Some(Duration::from_millis(999)), None).is_err());
    }

    #[test]
    fn the_default_address_is_the_one_in_the_readme() {
        assert_eq!(DEFAULT_ADDRESS.to_string(), "127.0.0.1:8788");
        let pasted = format!("export SANDBOX=http://{DEFAULT_ADDRESS}/_sandbox");
        assert!(include_str!("../../../README.md").contains(&pasted));
    }

    #[tokio::test]
    async fn the_usual_address_is_used_if_it_is_free_and_another_if_it_is_taken() {
        // Another process may take the port while it is free.
        for _ in 0..100 {
            let first = bind_near("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let default = first.local_addr().unwrap();
            let another = bind_near(default).await.unwrap().local_addr().unwrap();
            assert!(another.ip() == default.ip() && another.port() != default.port());
            drop(first);
            if bind_near(default).await.unwrap().local_addr().unwrap() == default {
                return;
            }
        }
        panic!("a free address was never used");
    }

    #[tokio::test]
    async fn a_sandbox_run_touches_nothing_real_and_leaves_nothing_behind() {
        let mut config = config(&[("a", "s1")]);
        config.store.path = "/real/store.redb".into();
        let mut sandbox_run = SandboxRun::start(Times::new(None, None).unwrap(), &config).await.unwrap();
        sandbox_run.redirect(&mut config);
        let folder = sandbox_run.folder.path().to_owned();
        assert_eq!(config.store.path, folder.join("wxtokend.redb"));
        assert_eq!(config.upstream.base_urls[0].host_str(), Some("127.0.0.1"));
        assert_eq!((config.upstream.base_urls.len(), config.upstream.overlap), (1, Duration::from_secs(10)));
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        drop(sandbox_run);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_reload_teaches_new_accounts_and_keeps_what_was_changed_in_the_simulation() {
        let times = Times::new(None, None).unwrap();
        let first = config(&[("a", "s1"), ("b", "s1")]);
        let mut sandbox_run = SandboxRun::start(times, &first).await.unwrap();
        let mints_for = |sandbox_run: &SandboxRun, appid: &str, secret: &str| {
            let request = wxtokend_sandbox::Request {
                method: "GET".to_owned(),
                path: "/cgi-bin/token".to_owned(),
                query: [("grant_type", "client_credential"), ("appid", appid), ("secret", secret)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                content_length: None,
                body: Vec::new(),
                source_ip: [127, 0, 0, 1].into(),
            };
            let appid = Appid::new(appid).unwrap();
            let minted = |sandbox_run: &SandboxRun| sandbox_run.server.sandbox.counters(&appid).token_mints;
            let before = minted(sandbox_run);
            sandbox_run.server.sandbox.with(|world, now| world.handle(&request, now));
            minted(sandbox_run) > before
        };
        assert!(mints_for(&sandbox_run, "a", "s1") && !mints_for(&sandbox_run, "c", "s1"));
        sandbox_run.server.sandbox.set_secret(&Appid::new("a").unwrap(), Secret::new("changed"));
        sandbox_run.redirect(&mut config(&[("a", "s1"), ("b", "s2"), ("c", "s1")]));
        assert!(mints_for(&sandbox_run, "a", "changed") && mints_for(&sandbox_run, "b", "s2"));
        assert!(mints_for(&sandbox_run, "c", "s1"));
    }
}
