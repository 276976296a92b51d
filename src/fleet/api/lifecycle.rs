//! Starts, reloads and stops a fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kameo::mailbox;
use kameo::prelude::*;
use tokio::time::timeout;
use wxtokend_core::account::Account;
use wxtokend_core::phase::Phase;
use wxtokend_core::reference::metrics::{TICKET_READS, TOKEN_READS};
use wxtokend_core::ticket::TicketKinds;

use super::answers::{ReloadError, Reloaded, StartError};
use super::handle::{Fleet, FleetInner, Reads};
use crate::config::Config;
use crate::fleet::actor::audits::audit_tokens;
use crate::fleet::actor::clock_watch::watch_clocks;
use crate::fleet::actor::context::{ActorContext, hosts_of, rules_of};
use crate::fleet::actor::environment::Environment;
use crate::fleet::actor::old_boot_records::release;
use crate::fleet::actor::supervisor::{Applied, Apply, Supervisor};
use crate::fleet::actor::trials::try_while_down;
use crate::fleet::actor::withheld::Withheld;
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::directory::Directory;
use crate::fleet::publish::Publishers;
use crate::store::{Opened, RedbBackend, StoreHandle, Stored, is_one_upstream};

/// How long calls in flight may take to end when the fleet stops; a supervisor has 10 s in all.
const CALLS_TIMEOUT: Duration = Duration::from_secs(7);
/// How long the results of those calls may take to be stored.
const WRITES_TIMEOUT: Duration = Duration::from_secs(1);

impl Fleet {
    /// Opens the store, makes every stored token available and starts the accounts' actors.
    ///
    /// The actors' start continues after this returns. What an earlier boot of the machine has stored becomes
    /// available once WeChat's `Date` is known, or after `upstream.timeout`; readers wait for it meanwhile.
    ///
    /// # Errors
    /// When the store is in use, damaged or not ours, or TLS cannot be set up.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = wxtokend::Config::load("accounts.yaml".as_ref())?;
    /// let fleet = wxtokend::Fleet::start(config).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let backend = RedbBackend::open(&config.store.path)?;
        Self::start_on(config, Environment::machine(Arc::new(backend))).await
    }

    pub(crate) async fn start_on(mut config: Config, on: Environment) -> Result<Self, StartError> {
        config.require_valid()?;
        config.normalize();
        if !Publishers::can_publish_to(&config.publish) {
            return Err(StartError::NoRedis);
        }
        let hosts = hosts_of(&config.upstream);
        let Opened { store, mut stored, mut withheld } =
            StoreHandle::open(Arc::clone(&on.backend), hosts, Arc::clone(&on.clock)).await?;
        let now = on.clock.now();
        let stale = config.proxy.stale;
        let rules = rules_of(&config.upstream, stale);
        let cells: Vec<_> = config
            .accounts
            .iter()
            .map(|account| {
                let mut state = stored.accounts.remove(&account.appid).unwrap_or_default();
                state.recover(account, rules, now);
                // Due as soon as its actor has started, so until then readers may expect an attempt soon.
                state.next_at = Some(now);
                (account.appid.clone(), AccountCell::new(Arc::clone(account), state))
            })
            .collect();
        // Accounts removed from the file while we were not running lose their tokens, as at a reload.
        let removed = stored.accounts.iter_mut().filter(|(appid, state)| {
            let has_token = state.token.is_some() || !state.handed_out.is_empty();
            withheld.accounts.remove(*appid).is_some() || has_token
        });
        let accounts = removed.map(|(appid, state)| {
            state.forget_token();
            (appid.clone(), state.clone())
        });
        let mut erased = Stored { accounts: accounts.collect(), ..Stored::default() };
        let directory = Directory::new(cells);
        for (of, state) in &mut stored.tickets {
            let cell = directory.by_appid.get(&of.appid);
            let is_kept = of
                .ticket
                .is_some_and(|kind| cell.is_some_and(|cell| cell.load().account.settings.tickets.has(kind)));
            if !is_kept && (withheld.tickets.remove(of).is_some() || state.ticket.is_some()) {
                *state = state.tombstone();
                erased.tickets.insert(of.clone(), state.clone());
            }
        }
        // If this fails, the store logs it and retries.
        let _ = store.commit_all(&erased).await;
        let waits = Withheld::new(&withheld);
        let upstream = config.upstream.clone();
        let shared = ActorContext::new(upstream, stale, directory, store, stored, waits, on).await?;
        let everything = Arc::downgrade(&shared);
        shared.store.keep_source(move || everything.upgrade().map(|shared| shared.everything()));
        for (appid, cell) in &shared.directory.load().by_appid {
            let kinds = cell.load().account.settings.tickets;
            if kinds != TicketKinds::default() {
                shared.keep_tickets(cell, appid, kinds);
            }
        }
        shared.publishers.set(&config.publish);
        let supervisor = Supervisor::spawn_with_mailbox(Arc::clone(&shared), mailbox::unbounded());
        let watches = tokio::spawn({
            let (shared, supervisor) = (Arc::clone(&shared), supervisor.clone());
            async move {
                let release = release(Arc::clone(&shared), supervisor.clone(), withheld);
                let trials = try_while_down(Arc::clone(&shared), supervisor.clone());
                let audits = audit_tokens(Arc::clone(&shared));
                tokio::join!(release, trials, audits, watch_clocks(shared, supervisor));
            }
        });
        Ok(Self {
            inner: Arc::new(FleetInner {
                directory: Arc::clone(&shared.directory),
                shared,
                supervisor,
                running: config.into(),
                watches: watches.abort_handle(),
                ready: AtomicBool::new(false),
                reads: Reads::of(TOKEN_READS.name),
                ticket_reads: Reads::of(TICKET_READS.name),
            }),
        })
    }

    /// Whether every account has had a valid token, or a first attempt that ended, at some time.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = &self.inner;
        if inner.shared.is_draining() {
            return false;
        }
        if !inner.ready.load(Ordering::Relaxed) {
            let (now, directory) = (inner.shared.now(), inner.shared.directory.load());
            // In reverse, since the last accounts start last, so that one that is still starting is found
            // soon.
            let mut cells = directory.in_order.iter().rev().filter_map(|appid| directory.by_appid.get(appid));
            let all = cells
                .all(|cell| cell.published.with(|snapshot| snapshot.state.phase(now) != Phase::Starting));
            inner.ready.fetch_or(all, Ordering::Relaxed);
        }
        inner.ready.load(Ordering::Relaxed)
    }

    /// Whether the fleet is stopping.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.inner.shared.is_draining()
    }

    /// Applies the accounts, upstream and sinks of `config`.
    ///
    /// Accounts are added, removed and changed; the others continue undisturbed. Listeners and the store stay
    /// as they are. Dropping the future does not cancel the reload.
    ///
    /// # Errors
    /// [`ReloadError`]; the fleet runs on unchanged.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.reload_with(move |_| config).await
    }

    /// Adds an account or, if there is one with its appid, changes its settings. Each call looks at all accounts:
    /// to add thousands, [`Fleet::reload`] is quicker.
    ///
    /// Dropping the future does not cancel it. A later [`Fleet::reload`] replaces what was added.
    ///
    /// # Errors
    /// As [`Fleet::reload`].
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet) -> Result<(), Box<dyn std::error::Error>> {
    /// use wxtokend::{Account, Secret};
    ///
    /// let secret = Secret::new(std::env::var("NEW_SHOP_SECRET")?);
    /// fleet.add(Account::new("wx0123456789abcdef".parse()?, secret)).await?;
    /// let token = fleet.token("wx0123456789abcdef").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add(&self, account: Account) -> Result<Reloaded, ReloadError> {
        let add = move |running: &Config| {
            let mut config = running.clone();
            // Of two with one appid the later counts.
            config.accounts.push(Arc::new(account));
            config
        };
        self.reload_with(add).await
    }

    /// Removes an account, if there is one with this appid: its token is forgotten, and what it has spent of its
    /// budget is remembered in case it returns.
    ///
    /// # Errors
    /// As [`Fleet::reload`].
    pub async fn remove(&self, appid: impl AsRef<str>) -> Result<Reloaded, ReloadError> {
        let appid = appid.as_ref().to_owned();
        let remove = move |running: &Config| {
            let mut config = running.clone();
            config.accounts.retain(|account| account.appid.as_str() != appid);
            config
        };
        self.reload_with(remove).await
    }

    async fn reload_with(
        &self,
        change: impl FnOnce(&Config) -> Config + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        // In a task of its own, since a reload that ended half-way would leave accounts and `running`
        // inconsistent.
        let fleet = self.clone();
        match tokio::spawn(async move { fleet.apply(change).await }).await {
            Ok(outcome) => outcome,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_runtime_is_gone) => Err(ReloadError::ShuttingDown),
        }
    }

    async fn apply(&self, change: impl FnOnce(&Config) -> Config) -> Result<Reloaded, ReloadError> {
        let inner = &self.inner;
        inner.shared.until_released().await;
        let mut running = inner.running.lock().await;
        let mut config = change(&running);
        config.require_valid()?;
        config.normalize();
        if !Publishers::can_publish_to(&config.publish) {
            return Err(ReloadError::NoRedis);
        }
        if inner.shared.is_draining() {
            return Err(ReloadError::ShuttingDown);
        }
        let (old_hosts, new_hosts) = (hosts_of(&running.upstream), hosts_of(&config.upstream));
        let upstream_replaced = !is_one_upstream(&old_hosts, &new_hosts);
        let upstream = inner.shared.new_upstream(&config.upstream).await?;
        if upstream_replaced {
            // Before a token of the new upstream can exist, so that what is on disk belongs to one upstream.
            // If this fails, the store logs it and retries.
            let _ = inner.shared.store.exchange(new_hosts.clone(), &inner.shared.everything()).await;
        }
        if let Some(upstream) = upstream {
            inner.shared.set_upstream(upstream);
        }
        inner.shared.set_stale(config.proxy.stale);
        let (accounts, before) = (config.accounts.clone(), running.accounts.clone());
        let apply = Apply { accounts, before, forget_tokens: upstream_replaced };
        let applied = inner.supervisor.ask(apply).await.map_err(|_| ReloadError::ShuttingDown)?;
        inner.shared.publishers.set(&config.publish);
        if upstream_replaced {
            inner.shared.until_exchanged().await;
        } else if old_hosts != new_hosts {
            // If this fails, the store logs it and retries.
            let _ = inner.shared.store.set_hosts(new_hosts).await;
        }
        *running = config;
        let Applied { added, removed, changed } = applied;
        Ok(Reloaded { added, removed, changed })
    }

    /// Stops the fleet: begins no call, lets calls in flight end and stores their tokens. Calls have at most
    /// 7 s, and waiting readers are answered.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.shared.drain();
        inner.watches.abort();
        inner.shared.calls_in_flight.close();
        let _ = timeout(CALLS_TIMEOUT, inner.shared.calls_in_flight.wait()).await;
        // The accounts' actors first, so that what has arrived is taken in and stored before they stop.
        let actors: Vec<_> = self.cells().iter().filter_map(|cell| cell.mailbox()).collect();
        for actor in &actors {
            actor.stop().await;
        }
        let all_stopped = async {
            for actor in &actors {
                actor.stopped().await;
            }
        };
        let _ = timeout(WRITES_TIMEOUT, all_stopped).await;
        inner.shared.publishers.stop();
        let _ = timeout(WRITES_TIMEOUT, inner.shared.publishers.stopped()).await;
        inner.supervisor.kill();
        inner.shared.store.close().await;
    }
}

impl Drop for FleetInner {
    fn drop(&mut self) {
        // Ends watches and streams of events, which may outlive the handles.
        self.shared.drain();
        self.watches.abort();
        self.shared.publishers.stop();
        self.supervisor.kill();
    }
}
