//! The simulated WeChat as a server: alone for `sandbox`, under the daemon for `run --sandbox`.

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
use wxtokend_sandbox::{Sandbox, Settings};

use super::failure::Failure;
use crate::config::{Config, duration};

/// Where it listens unless told otherwise, so that what README.md says can be pasted.
const USUAL_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8788));
/// Short, so that refreshes can be watched; WeChat's tokens live for 2 h.
const LIFETIME: Duration = Duration::from_secs(60);
/// WeChat's is 5 min.
const OVERLAP: Duration = Duration::from_secs(10);
/// WeChat promises whole seconds.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

/// How long simulated tokens live, and how long they live beside their successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) lifetime: Duration,
    pub(super) overlap: Duration,
}

impl Times {
    /// What is not given is 60 s and 10 s, the latter at most a sixth of the lifetime.
    pub(super) fn new(lifetime: Option<Duration>, overlap: Option<Duration>) -> Result<Self, Failure> {
        let lifetime = lifetime.unwrap_or(LIFETIME);
        let overlap = overlap.unwrap_or_else(|| OVERLAP.min(lifetime / 6));
        if lifetime < SHORTEST_LIFETIME {
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

/// Binds `usual`, or another port beside it if that one is taken, which is said.
async fn bind_near(usual: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(usual).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let listener = TcpListener::bind(SocketAddr::new(usual.ip(), 0)).await?;
            let instead = listener.local_addr()?;
            warn!(
                event = "sandbox_elsewhere",
                sandbox = %instead,
                "{usual} is taken: the simulated WeChat listens on {instead}"
            );
            Ok(listener)
        }
        bound => bound,
    }
}

/// A simulated WeChat that listens; it ends when this is dropped.
pub(super) struct EmbeddedSandbox {
    sandbox: Sandbox,
    address: SocketAddr,
    /// As configured: a secret that was changed in the simulation is put back only by a change of the file.
    configured: HashMap<Appid, Secret>,
    serving: AbortHandle,
}

impl EmbeddedSandbox {
    /// Listens, and knows the accounts of `config`. Its calendar starts at the true time.
    /// Without an address it listens where README.md says, or elsewhere if that is taken.
    pub(super) async fn start(listen: Option<SocketAddr>, times: Times, config: &Config) -> io::Result<Self> {
        let listener = match listen {
            Some(address) => TcpListener::bind(address).await?,
            None => bind_near(USUAL_ADDRESS).await?,
        };
        let address = listener.local_addr()?;
        let epoch = SystemClock::new().now().wall_ms / 1_000;
        let sandbox = Sandbox::new(Settings {
            token_lifetime: times.lifetime,
            overlap: times.overlap,
            seed: rand::random(),
            epoch_wall_s: u64::try_from(epoch).unwrap_or_default(),
            ..Settings::default()
        });
        let served = sandbox.clone();
        let serving = tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
        let mut simulation =
            Self { sandbox, address, configured: HashMap::new(), serving: serving.abort_handle() };
        simulation.learn(config);
        Ok(simulation)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes accounts that are new in `config`, and secrets that it has changed.
    fn learn(&mut self, config: &Config) {
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

/// What a daemon runs on that shall touch nothing real.
pub(super) struct SandboxRun {
    pub(super) simulation: EmbeddedSandbox,
    overlap: Duration,
    base_url: Url,
    /// Removed when this is dropped.
    folder: TempDir,
}

impl SandboxRun {
    pub(super) async fn start(times: Times, config: &Config) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::to("start the simulated WeChat", error);
        let simulation = EmbeddedSandbox::start(None, times, config).await.map_err(|error| failed(&error))?;
        let base_url =
            Url::parse(&format!("http://{}/", simulation.address())).map_err(|error| failed(&error))?;
        let owner_only = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix("wxtokend-sandbox-")
            .permissions(owner_only)
            .tempdir()
            .map_err(|error| Failure::to("make a temporary folder", &error))?;
        Ok(Self { simulation, overlap: times.overlap, base_url, folder })
    }

    /// Turns `config` away from everything real; the simulation learns its accounts.
    pub(super) fn redirect(&mut self, config: &mut Config) {
        self.simulation.learn(config);
        config.upstream.base_urls = vec![self.base_url.clone()];
        config.upstream.overlap = self.overlap;
        // What reads them there would take simulated tokens for real ones.
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
    fn the_usual_address_is_the_one_that_the_readme_tells() {
        assert_eq!(USUAL_ADDRESS.to_string(), "127.0.0.1:8788");
        let pasted = format!("export SANDBOX=http://{USUAL_ADDRESS}/_sandbox");
        assert!(include_str!("../../../README.md").contains(&pasted));
    }

    #[tokio::test]
    async fn the_usual_address_is_used_if_it_is_free_and_another_if_it_is_taken() {
        // Somebody else may take a port in the moment when it is free.
        for _ in 0..100 {
            let first = bind_near("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let usual = first.local_addr().unwrap();
            let beside = bind_near(usual).await.unwrap().local_addr().unwrap();
            assert!(beside.ip() == usual.ip() && beside.port() != usual.port());
            drop(first);
            if bind_near(usual).await.unwrap().local_addr().unwrap() == usual {
                return;
            }
        }
        panic!("a free address was never used");
    }

    #[tokio::test]
    async fn a_rehearsal_touches_nothing_real_and_leaves_nothing_behind() {
        let mut config = config(&[("a", "s1")]);
        config.store.path = "/real/store.redb".into();
        let mut rehearsal = SandboxRun::start(Times::new(None, None).unwrap(), &config).await.unwrap();
        rehearsal.redirect(&mut config);
        let folder = rehearsal.folder.path().to_owned();
        assert_eq!(config.store.path, folder.join("wxtokend.redb"));
        assert_eq!(config.upstream.base_urls[0].host_str(), Some("127.0.0.1"));
        assert_eq!((config.upstream.base_urls.len(), config.upstream.overlap), (1, Duration::from_secs(10)));
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        drop(rehearsal);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_reload_teaches_new_accounts_and_keeps_what_was_changed_in_the_simulation() {
        let times = Times::new(None, None).unwrap();
        let first = config(&[("a", "s1"), ("b", "s1")]);
        let mut rehearsal = SandboxRun::start(times, &first).await.unwrap();
        let knows = |rehearsal: &SandboxRun, appid: &str, secret: &str| {
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
            let minted = |rehearsal: &SandboxRun| rehearsal.simulation.sandbox.counters(&appid).token_mints;
            let before = minted(rehearsal);
            rehearsal.simulation.sandbox.with(|world, now| world.handle(&request, now));
            minted(rehearsal) > before
        };
        assert!(knows(&rehearsal, "a", "s1") && !knows(&rehearsal, "c", "s1"));
        rehearsal.simulation.sandbox.set_secret(&Appid::new("a").unwrap(), Secret::new("changed"));
        rehearsal.redirect(&mut config(&[("a", "s1"), ("b", "s2"), ("c", "s1")]));
        assert!(knows(&rehearsal, "a", "changed") && knows(&rehearsal, "b", "s2"));
        assert!(knows(&rehearsal, "c", "s1"));
    }
}
