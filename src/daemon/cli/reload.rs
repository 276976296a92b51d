//! Reloading of the configuration file on SIGHUP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};
use wxtokend_core::clock::{ClockSource, SystemClock};

use super::embedded_sandbox::SandboxRun;
use super::failure::chain;
use super::source::Source;
use super::warnings;
use crate::config::{Config, ConfigError, PerAccount, Problem};
use crate::daemon::http::{Clients, Proxy, is_loopback};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::{Fleet, ReloadError, Reloaded};

/// Everything that a reload needs or changes.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) fixed: RestartOnly,
    pub(super) fleet: Fleet,
    pub(super) clients: Clients,
    pub(super) proxy: Proxy,
    pub(super) metrics: Metrics,
    pub(super) per_account: Arc<ArcSwap<PerAccount>>,
    pub(super) sandbox_run: Option<SandboxRun>,
    /// Warnings of the configuration that was applied last, which have been logged.
    pub(super) warnings: Vec<Problem>,
}

/// The settings that only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RestartOnly {
    listen: SocketAddr,
    wechat_path: String,
    metrics: Option<SocketAddr>,
    store: PathBuf,
}

/// A reload was refused as a whole; nothing has changed.
#[derive(Debug, thiserror::Error)]
enum ReloadRefused {
    #[error("{}", on_one_line(.0))]
    Broken(ConfigError),
    #[error("a bug of ours ended the reading")]
    Panicked,
    #[error(
        "api.clients is empty, which takes a restart: this process still listens on {0}, which is not loopback"
    )]
    Unguarded(SocketAddr),
    #[error(transparent)]
    Fleet(#[from] ReloadError),
}

impl Reloader {
    /// Reads the configuration and applies all of it or nothing, and logs the outcome.
    pub(super) async fn reload(&mut self) {
        let applied = self.apply().await;
        self.metrics.note_reload(applied.is_ok(), SystemClock::new().now());
        self.fleet.note_reload(applied.is_ok());
        match applied {
            Ok(Reloaded { added, removed, changed }) => {
                info!(event = "reload", successful = true, added, removed, changed, config = %self.source, "reloaded");
            }
            Err(refused) => {
                error!(
                    event = "reload",
                    successful = false,
                    problems = chain(&refused),
                    config = %self.source,
                    "the configuration cannot be used; everything runs on as it was"
                );
            }
        }
    }

    async fn apply(&mut self) -> Result<Reloaded, ReloadRefused> {
        let source = self.source.clone();
        // Reading a large file takes a second.
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let mut config = read.map_err(|_| ReloadRefused::Panicked)?.map_err(ReloadRefused::Broken)?;
        self.fixed.require_guard(&config)?;
        if let Some(sandbox_run) = &mut self.sandbox_run {
            sandbox_run.redirect(&mut config);
        }
        let (clients, per_account) = (config.api.clients.clone(), config.metrics.per_account);
        let requested = RestartOnly::of(&config);
        let proxy = config.clone();
        let new_warnings = std::mem::take(&mut config.warnings);
        let needed_keys = !self.clients.need_no_key();
        // Replace the clients first: a client that has been removed must not see the new accounts.
        let before = self.clients.exchange(clients);
        let reloaded = self.fleet.reload(config).await.inspect_err(|_| self.clients.set(before))?;
        if needed_keys && self.clients.need_no_key() && self.sandbox_run.is_none() {
            warnings::no_clients();
        }
        self.per_account.store(Arc::new(per_account));
        self.proxy.set(&proxy);
        if self.sandbox_run.is_none() {
            warnings::log(&self.source, &new_warnings, &self.warnings);
        }
        self.warnings = new_warnings;
        let keys = self.fixed.differences(&requested);
        if !keys.is_empty() {
            let keys = keys.join(", ");
            warn!(
                event = "restart_needed",
                keys, "{keys}: changed in the file, but only a restart applies it"
            );
        }
        Ok(reloaded)
    }
}

impl RestartOnly {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            listen: config.api.listen,
            wechat_path: config.api.wechat_path.clone(),
            metrics: config.metrics.listen,
            store: config.store.path.clone(),
        }
    }

    /// The keys whose values differ.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("api.listen", self.listen != other.listen),
            ("api.wechat_path", self.wechat_path != other.wechat_path),
            ("metrics.listen", self.metrics != other.metrics),
            ("store.path", self.store != other.store),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// Checks that a listener on a non-loopback address still has clients. A file without clients and with a
    /// loopback address is valid by itself, but this process may listen on another address, where everybody
    /// could then read every token.
    fn require_guard(&self, config: &Config) -> Result<(), ReloadRefused> {
        let guarded = !config.api.clients.is_empty() || is_loopback(self.listen);
        if guarded { Ok(()) } else { Err(ReloadRefused::Unguarded(self.listen)) }
    }
}

fn on_one_line(error: &ConfigError) -> String {
    match error {
        ConfigError::Problems { problems, .. } => {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        ConfigError::Unreadable { .. } => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::daemon::http::tests::{READ, Rig, SECRET, TestApi, client};

    fn config(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("accounts.yaml"), |_| None)
    }

    const CLIENTS: &str = "clients: [{ name: crm, key: k, accounts: ['*'] }]";
    const ACCOUNTS: &str = "accounts: [{ appid: a, secret: s }]";

    #[tokio::test]
    async fn clients_are_exchanged_before_accounts_and_put_back_if_those_stay() {
        let options = TestApi { clients: vec![client("the-old-key", &["*"], READ)], ..TestApi::default() };
        let rig = Rig::start(options).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.yaml");
        let file = |key: &str| {
            serde_json::json!({
                "api": { "clients": [{ "name": key, "key": key, "accounts": ["*"] }] },
                "upstream": { "base_urls": [rig.config.upstream.base_urls[0].as_str()] },
                "accounts": [{ "appid": "added", "secret": SECRET }],
            })
        };
        std::fs::write(&path, file("the-new-key-of-16").to_string()).unwrap();
        let mut reloader = Reloader {
            source: Source::File(path.clone()),
            fixed: RestartOnly::of(&rig.config),
            fleet: rig.fleet.clone(),
            clients: rig.clients.clone(),
            proxy: rig.proxy.clone(),
            metrics: rig.metrics.clone(),
            per_account: Arc::default(),
            sandbox_run: None,
            warnings: Vec::new(),
        };
        let (clients, fleet) = (rig.clients.clone(), rig.fleet.clone());
        let clients_first = tokio::spawn(async move {
            clients.exchanged().await;
            fleet.account("added").is_none()
        });
        // Lets the task subscribe first, so that it runs right after the replacement.
        tokio::task::yield_now().await;
        let applied = reloader.apply().await;
        assert!(applied.is_ok(), "{applied:?}");
        assert!(clients_first.await.unwrap() && rig.fleet.account("added").is_some());
        rig.fleet.shutdown().await;
        std::fs::write(&path, file("another-key-of-16").to_string()).unwrap();
        assert!(matches!(reloader.apply().await, Err(ReloadRefused::Fleet(ReloadError::ShuttingDown))));
        let names: Vec<_> = rig.clients.exchange(Vec::new()).into_iter().map(|client| client.name).collect();
        assert_eq!(names, ["the-new-key-of-16"]);
    }

    #[test]
    fn what_only_a_restart_applies_is_named() {
        let before = RestartOnly::of(&config(ACCOUNTS).unwrap());
        assert!(before.differences(&before).is_empty());
        let text = format!(
            "api: {{ listen: '127.0.0.1:1', wechat_path: /wx }}\nmetrics: {{ listen: '0.0.0.0:2' }}\nstore: {{ path: x }}\n{ACCOUNTS}"
        );
        let after = RestartOnly::of(&config(&text).unwrap());
        assert_eq!(
            before.differences(&after),
            ["api.listen", "api.wechat_path", "metrics.listen", "store.path"]
        );
    }

    #[test]
    fn a_listener_that_others_reach_does_not_lose_its_keys() {
        let open = config(&format!("api: {{ listen: '0.0.0.0:1', {CLIENTS} }}\n{ACCOUNTS}")).unwrap();
        let local = config(ACCOUNTS).unwrap();
        assert!(matches!(RestartOnly::of(&open).require_guard(&local), Err(ReloadRefused::Unguarded(_))));
        assert!(RestartOnly::of(&open).require_guard(&open).is_ok());
        assert!(RestartOnly::of(&local).require_guard(&local).is_ok());
    }

    #[test]
    fn all_problems_of_a_broken_file_fit_into_one_line() {
        let broken = config("accounts: [{ appid: a, secret: '' }, { appid: b }]").unwrap_err();
        let text = chain(&ReloadRefused::Broken(broken));
        assert!(text.contains("accounts[0].secret") && text.contains("; accounts[1]"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
