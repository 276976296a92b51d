//! Builds a fleet without a configuration file.

use std::path::PathBuf;
use std::sync::Arc;

use wxtokend_core::account::Account;

use super::answers::StartError;
use super::handle::Fleet;
use crate::config::{Config, Sink, UpstreamConfig};
use crate::fleet::actor::environment::Environment;
use crate::store::NullBackend;

/// Where a fleet keeps what must survive a restart: tokens, versions and spent budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store(Option<PathBuf>);

impl Store {
    /// A file, which is created if there is none. One process at a time can use it.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Some(path.into()))
    }

    /// Nowhere: each start fetches every token and knows nothing of what was spent of the day's budget. For
    /// tests, and for programs that are seldom started.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(None)
    }
}

/// A fleet that is not started yet. Made by [`Fleet::builder`].
#[derive(Debug, Clone)]
#[must_use = "a fleet does nothing before it is started"]
pub struct FleetBuilder {
    config: Config,
    in_memory: bool,
}

impl Fleet {
    /// Builds a fleet from its accounts. Without any other settings it calls WeChat itself and keeps its store in
    /// the file `wxtokend.redb` of the current folder.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use wxtokend::{Account, Fleet, Secret, Store};
    ///
    /// let secret = Secret::new(std::env::var("SHOP_SECRET")?);
    /// let fleet = Fleet::builder()
    ///     .account(Account::new("wx0123456789abcdef".parse()?, secret))
    ///     .store(Store::file("/var/lib/shop/tokens.redb"))
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> FleetBuilder {
        FleetBuilder { config: Config::new([]), in_memory: false }
    }
}

impl FleetBuilder {
    /// Adds an account. Of two with the same appid the later one counts.
    pub fn account(self, account: Account) -> Self {
        self.accounts([account])
    }

    /// Adds accounts.
    pub fn accounts(mut self, accounts: impl IntoIterator<Item = Account>) -> Self {
        self.config.accounts.extend(accounts.into_iter().map(Arc::new));
        self
    }

    /// Sets where the fleet keeps what must survive a restart.
    pub fn store(mut self, store: Store) -> Self {
        self.in_memory = store.0.is_none();
        self.config.store.path = store.0.unwrap_or_default();
        self
    }

    /// Sets how WeChat is called.
    pub fn upstream(mut self, upstream: UpstreamConfig) -> Self {
        self.config.upstream = upstream;
        self
    }

    /// Adds a Redis in which tokens are published. Needs the feature `redis`.
    pub fn publish(mut self, sink: Sink) -> Self {
        self.config.publish.push(sink);
        self
    }

    /// Starts the fleet.
    ///
    /// # Errors
    /// Those of [`Fleet::start`].
    pub async fn start(self) -> Result<Fleet, StartError> {
        let Self { config, in_memory } = self;
        if !in_memory {
            return Fleet::start(config).await;
        }
        Fleet::start_on(config, Environment::machine(Arc::new(NullBackend))).await
    }
}
