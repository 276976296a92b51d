//! The face of the library: a cheap handle without actors, channels or HTTP in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kameo::mailbox;
use kameo::prelude::*;
use metrics::Counter;
use rand::random;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::cell::{AccountCell, NoToken, Snapshot};
use super::shared::{Directory, Jitter, MakeTransport, Shared, hosts_of, http_transport, rules_of};
use super::supervisor::{Applied, Apply, Supervisor, WakeAll};
use super::tally::RejectionOutcome;
use super::token_actor::{Answer, NoValidToken, Refresh, Reject};
use super::view::{AccountView, FaultView};
use super::watch::Watch;
use crate::account::Appid;
use crate::clock::{Clock, Moment, SystemClock};
use crate::config::Config;
use crate::fault::Whose;
use crate::secret::Secret;
use crate::state::Phase;
use crate::store::{Backend, RedbBackend, Store, StoreError};
use crate::token::Token;
use crate::wechat::TransportError;

/// How often the clocks are compared.
const CLOCK_WATCH: Duration = Duration::from_secs(5);
/// By how much a clock must have jumped to be worth waking everybody.
const CLOCK_JUMP_MS: i64 = 2_000;
/// How long calls under way may take to end when the fleet stops; a supervisor has 10 s in all.
const LAST_CALLS: Duration = Duration::from_secs(7);
/// How long what they brought may take to be stored.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// A fleet of accounts whose tokens are kept fresh. Clones cheaply; the clones are one fleet.
///
/// It runs until [`Fleet::shutdown`]; dropping every clone ends it as abruptly as killing the process would,
/// which loses nothing that was promised.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    supervisor: ActorRef<Supervisor>,
    /// What the fleet runs on; held while a reload is applied.
    running: tokio::sync::Mutex<Config>,
    clock_watch: AbortHandle,
    ready: AtomicBool,
    reads: Reads,
}

struct Reads {
    served: Counter,
    unavailable: Counter,
    unknown: Counter,
}

/// The fleet cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A reload was refused; the fleet runs on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Accounts that are new.
    pub added: usize,
    /// Accounts that are gone.
    pub removed: usize,
    /// Accounts whose settings have changed.
    pub changed: usize,
}

/// There is no token to hand out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// No account of that appid.
    #[error("no account {0:?} is configured")]
    UnknownAccount(String),
    /// The account has no valid token.
    #[error("the account has no valid token ({}){}", .0.state.as_str(), .0.because())]
    Unavailable(Box<Unavailable>),
    /// The fleet is stopping.
    #[error("the fleet is shutting down")]
    ShuttingDown,
}

/// Why an account has no valid token, and when it may have one.
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// What the account looks like.
    pub state: Phase,
    /// Why the last call failed.
    pub last_fault: Option<FaultView>,
    /// When to ask again.
    pub retry_after: Duration,
    /// Whether our own daily budget is the reason.
    pub budget_exhausted: bool,
}

impl Unavailable {
    fn because(&self) -> String {
        let told = |fault: &FaultView| format!(": {}; {}", fault.message, fault.advice);
        self.last_fault.as_ref().map(told).unwrap_or_default()
    }
}

/// The outcome of [`Fleet::reject`] and [`Fleet::refresh`].
#[derive(Debug, Clone)]
pub struct Rejected {
    /// How it was decided.
    pub outcome: RejectionOutcome,
    /// The version of the newest token.
    pub version: u64,
    /// The current token, where one may be served.
    pub token: Option<Token>,
    /// Why the last call failed, if it did.
    pub last_fault: Option<FaultView>,
}

/// What a fleet runs on: the machine, or what a test puts in its place.
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) jitter: Jitter,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) make_transport: MakeTransport,
}

impl Fleet {
    /// Opens the store, makes every stored token available and starts the accounts' actors, which goes on after
    /// this returns.
    ///
    /// # Errors
    /// When the store is in use, damaged or not ours, or TLS cannot be set up.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let backend = RedbBackend::open(&config.store.path)?;
        let surroundings = Surroundings {
            clock: Arc::new(SystemClock::new()),
            jitter: Arc::new(random::<f64>),
            backend: Arc::new(backend),
            make_transport: Arc::new(http_transport),
        };
        Self::start_on(config, surroundings).await
    }

    pub(crate) async fn start_on(config: Config, on: Surroundings) -> Result<Self, StartError> {
        let hosts = hosts_of(&config.upstream);
        let (store, mut states) = Store::open(on.backend, hosts, Arc::clone(&on.clock)).await?;
        let now = on.clock.now();
        let rules = rules_of(&config.upstream);
        let cells: Vec<_> = config
            .accounts
            .iter()
            .map(|account| {
                let mut state = states.remove(&account.appid).unwrap_or_default();
                state.recover(rules, now);
                // Due as soon as its actor has started; until then readers may count on that.
                state.next_at = Some(now);
                (account.appid.clone(), AccountCell::new(Arc::clone(account), state))
            })
            .collect();
        // Removed from the file while we were not running: their tokens go, as at a reload.
        for state in states.values_mut() {
            state.forget_token();
        }
        let _ = store.commit_all(&states).await;
        let shared = Shared::new(
            config.upstream.clone(),
            Directory::new(cells),
            store,
            states,
            on.clock,
            on.jitter,
            on.make_transport,
        )?;
        let supervisor = Supervisor::spawn_with_mailbox(Arc::clone(&shared), mailbox::unbounded());
        let clock_watch = tokio::spawn(watch_clocks(Arc::clone(&shared), supervisor.clone())).abort_handle();
        let read = |outcome| metrics::counter!("wxtokend_token_reads_total", "outcome" => outcome);
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                supervisor,
                running: config.into(),
                clock_watch,
                ready: AtomicBool::new(false),
                reads: Reads {
                    served: read("served"),
                    unavailable: read("unavailable"),
                    unknown: read("unknown_account"),
                },
            }),
        })
    }

    /// A live token of `appid`, at once; where there is none, waits for a call that is running or due within
    /// `upstream.timeout`, at most 1 s longer than that. Never starts a call of its own.
    ///
    /// # Errors
    /// [`TokenError`]: unknown account, no valid token, or the fleet is stopping.
    pub async fn token(&self, appid: impl AsRef<str>) -> Result<Token, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        let shared = &self.inner.shared;
        if let Some(token) = cell.read(shared.now()) {
            self.inner.reads.served.increment(1);
            return Ok(token);
        }
        let waited = tokio::select! {
            waited = cell.read_or_wait(&shared.clock, shared.rules().timeout) => waited,
            () = shared.until_draining() => return Err(TokenError::ShuttingDown),
        };
        match waited {
            Ok(token) => {
                self.inner.reads.served.increment(1);
                Ok(token)
            }
            Err(NoToken(snapshot)) => {
                self.inner.reads.unavailable.increment(1);
                Err(self.unavailable(&snapshot))
            }
        }
    }

    /// The token of `appid` once its version exceeds `after`, waiting for at most `wait`; `None` when the wait ends
    /// with the same, still valid token. An `after` above the current version is answered at once.
    ///
    /// # Errors
    /// As [`Fleet::token`].
    pub async fn token_after(
        &self,
        appid: impl AsRef<str>,
        after: u64,
        wait: Duration,
    ) -> Result<Option<Token>, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        let shared = &self.inner.shared;
        let start = Instant::now();
        if cell.load().state.version != after {
            return self.token(appid).await.map(Some);
        }
        let newer = cell.wait_until(start + wait, |snapshot| {
            snapshot.state.read(shared.now()).filter(|token| token.version() != after)
        });
        let newer = tokio::select! {
            newer = newer => newer,
            () = shared.until_draining() => return Err(TokenError::ShuttingDown),
        };
        if newer.is_some() {
            self.inner.reads.served.increment(1);
            return Ok(newer);
        }
        let snapshot = cell.load();
        if snapshot.state.is_usable(shared.now()) { Ok(None) } else { Err(self.unavailable(&snapshot)) }
    }

    /// Reports that WeChat refused `access_token` (40001, 40014, 42001). Only the current token matters; it is
    /// checked, once for all who report it, and replaced if WeChat refuses it.
    ///
    /// # Errors
    /// [`TokenError`]: unknown account, no valid token could be had, or the fleet is stopping.
    pub async fn reject(&self, appid: impl AsRef<str>, access_token: &str) -> Result<Rejected, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        let presented = Secret::new(access_token);
        // Older tokens are most of what is reported after a refresh: their answer needs no actor.
        let snapshot = cell.load();
        let superseded =
            !snapshot.state.is_current(&presented) && snapshot.state.is_usable(self.inner.shared.now());
        let answer = match (superseded, cell.actor()) {
            (true, _) => Ok(RejectionOutcome::Superseded),
            (false, Some(actor)) => self.patiently(actor.ask(Reject(presented)).into_future()).await?,
            // Its actor has crashed and is being restarted.
            (false, None) => Err(NoValidToken),
        };
        self.rejected(&cell, answer)
    }

    /// Refreshes now, as an operator's wish: also on a parked account. On `stable_token`, `force` replaces a token
    /// that still lives.
    ///
    /// # Errors
    /// As [`Fleet::reject`].
    pub async fn refresh(&self, appid: impl AsRef<str>, force: bool) -> Result<Rejected, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        let answer = match cell.actor() {
            Some(actor) => self.patiently(actor.ask(Refresh { force }).into_future()).await?,
            None => Err(NoValidToken),
        };
        self.rejected(&cell, answer)
    }

    /// Follows the tokens of `appid`, the current one first.
    ///
    /// # Errors
    /// [`TokenError::UnknownAccount`].
    pub fn watch(&self, appid: impl AsRef<str>) -> Result<Watch, TokenError> {
        Ok(Watch::new(self.cell(appid.as_ref())?, Arc::clone(&self.inner.shared.clock), None))
    }

    /// What is known of `appid`; `None` when there is no such account.
    #[must_use]
    pub fn account(&self, appid: impl AsRef<str>) -> Option<AccountView> {
        Some(self.cell(appid.as_ref()).ok()?.load().view(self.inner.shared.now()))
    }

    /// What is known of every account, by appid.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountView> {
        let now = self.inner.shared.now();
        self.cells().iter().map(|cell| cell.load().view(now)).collect()
    }

    /// Whether every account had, at one time or another, a valid token or a first attempt that ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = &self.inner;
        if inner.shared.is_draining() {
            return false;
        }
        if !inner.ready.load(Ordering::Relaxed) {
            let now = inner.shared.now();
            let all = self.cells().iter().all(|cell| cell.load().state.phase(now) != Phase::Starting);
            inner.ready.store(all, Ordering::Relaxed);
        }
        inner.ready.load(Ordering::Relaxed)
    }

    /// Whether the fleet is stopping.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.inner.shared.is_draining()
    }

    /// Applies accounts and upstream of `config`: accounts are added, removed and changed, the others go on
    /// undisturbed. Listeners and the store stay as they are.
    ///
    /// # Errors
    /// [`ReloadError`]; the fleet runs on unchanged.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        if inner.shared.is_draining() {
            return Err(ReloadError::ShuttingDown);
        }
        let (old_hosts, new_hosts) = (hosts_of(&running.upstream), hosts_of(&config.upstream));
        let elsewhere = !old_hosts.iter().any(|host| new_hosts.contains(host));
        inner.shared.set_upstream(&config.upstream)?;
        let apply = Apply { accounts: config.accounts.clone(), forget_tokens: elsewhere };
        let applied = inner.supervisor.ask(apply).await.map_err(|_| ReloadError::ShuttingDown)?;
        if old_hosts != new_hosts {
            // When this fails the store says so and tries again.
            let _ = inner.shared.store.set_hosts(new_hosts).await;
        }
        *running = config;
        let Applied { added, removed, changed } = applied;
        Ok(Reloaded { added, removed, changed })
    }

    /// Stops: no call is begun, calls under way end (for at most 7 s) and their tokens are stored, those who wait
    /// are answered.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.shared.drain();
        inner.clock_watch.abort();
        inner.shared.flights.close();
        let _ = timeout(LAST_CALLS, inner.shared.flights.wait()).await;
        // The accounts' actors first: what has landed is in their mailboxes, and is taken in and stored.
        let actors: Vec<_> = self.cells().iter().filter_map(|cell| cell.actor()).collect();
        for actor in &actors {
            let _ = actor.stop_gracefully().await;
        }
        let all_stopped = async {
            for actor in &actors {
                actor.wait_for_shutdown().await;
            }
        };
        let _ = timeout(LAST_WRITES, all_stopped).await;
        inner.supervisor.kill();
        inner.shared.store.close().await;
    }

    pub(crate) fn now(&self) -> Moment {
        self.inner.shared.now()
    }

    pub(crate) fn snapshot(&self, appid: &str) -> Option<Arc<Snapshot>> {
        self.inner.shared.directory.load().by_appid.get(appid).map(|cell| cell.load())
    }

    /// All cells, by appid.
    pub(crate) fn cells(&self) -> Vec<Arc<AccountCell>> {
        let directory = self.inner.shared.directory.load();
        directory.in_order.iter().filter_map(|appid| directory.by_appid.get(appid).cloned()).collect()
    }

    /// The first `limit` accounts behind `after` that are `wanted`, by appid, and whether more of them follow.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> (Vec<Arc<Snapshot>>, bool) {
        self.inner.shared.directory.load().page(after, limit, wanted)
    }

    pub(crate) fn appids(&self) -> Vec<Appid> {
        self.inner.shared.directory.load().in_order.clone()
    }

    /// Each host of the upstream and whether it is not known to be down.
    pub(crate) fn hosts(&self) -> Vec<(String, bool)> {
        self.inner.shared.wechat().hosts().health()
    }

    /// Returns when the fleet begins to stop.
    pub(crate) async fn until_draining(&self) {
        self.inner.shared.until_draining().await;
    }

    fn cell(&self, appid: &str) -> Result<Arc<AccountCell>, TokenError> {
        let directory = self.inner.shared.directory.load();
        directory.by_appid.get(appid).cloned().ok_or_else(|| {
            self.inner.reads.unknown.increment(1);
            TokenError::UnknownAccount(appid.to_owned())
        })
    }

    /// A check and two fetches, each with a second host, must fit in.
    async fn patiently<E>(
        &self,
        asked: impl Future<Output = Result<RejectionOutcome, E>>,
    ) -> Result<Answer, TokenError> {
        let limit = self.inner.shared.rules().timeout * 4 + Duration::from_secs(1);
        tokio::select! {
            answered = timeout(limit, asked) => Ok(match answered {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(_)) | Err(_) => Err(NoValidToken),
            }),
            () = self.inner.shared.until_draining() => Err(TokenError::ShuttingDown),
        }
    }

    fn rejected(&self, cell: &AccountCell, answer: Answer) -> Result<Rejected, TokenError> {
        let snapshot = cell.load();
        let token = snapshot.state.read(self.inner.shared.now());
        let outcome = match (answer, &token) {
            (Ok(outcome), _) => outcome,
            // Nobody could look into it, and the token is as good as it was.
            (Err(_), Some(_)) => RejectionOutcome::Limited,
            (Err(_), None) => return Err(self.unavailable(&snapshot)),
        };
        cell.tally.count_rejection(outcome);
        Ok(Rejected { outcome, version: snapshot.state.version, token, last_fault: snapshot.last_fault() })
    }

    fn unavailable(&self, snapshot: &Snapshot) -> TokenError {
        let now = self.inner.shared.now();
        let state = &snapshot.state;
        let whose = state.trouble.as_ref().map(|trouble| trouble.fault.whose);
        // A host that is down may be back any moment.
        let retry_after = state.next_at.map_or(Duration::from_secs(5), |at| at.until(now));
        TokenError::Unavailable(Box::new(Unavailable {
            state: state.phase(now),
            last_fault: snapshot.last_fault(),
            retry_after: retry_after.max(Duration::from_secs(1)),
            budget_exhausted: whose == Some(Whose::Budget),
        }))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.clock_watch.abort();
        self.supervisor.kill();
    }
}

/// Timers stand still while the machine sleeps and know nothing of the wall clock: when either clock has jumped
/// against them, everybody looks again.
async fn watch_clocks(shared: Arc<Shared>, supervisor: ActorRef<Supervisor>) {
    let mut before = (shared.now(), Instant::now());
    loop {
        sleep(CLOCK_WATCH).await;
        let now = (shared.now(), Instant::now());
        let ticked = i64::try_from((now.1 - before.1).as_millis()).unwrap_or(i64::MAX);
        let jumped = |from: i64, to: i64| (to - from - ticked).abs() > CLOCK_JUMP_MS;
        if jumped(before.0.boot_ms, now.0.boot_ms) || jumped(before.0.wall_ms, now.0.wall_ms) {
            tracing::warn!(
                event = "clock_jumped",
                wall_ms = now.0.wall_ms - before.0.wall_ms - ticked,
                boot_ms = now.0.boot_ms - before.0.boot_ms - ticked,
                "a clock jumped, or the machine slept; every account looks at its token again"
            );
            let _ = supervisor.tell(WakeAll).await;
        }
        before = now;
    }
}
