//! The library's API: a cheap handle that shows no actors, channels or HTTP.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use kameo::prelude::*;
use metrics::{Counter, counter};
#[cfg(feature = "axum")]
use reqwest::Url;
use tokio::task::AbortHandle;
use tokio::time::Instant;
#[cfg(feature = "axum")]
use tokio_util::sync::CancellationToken;
#[cfg(feature = "internals")]
use wxtokend_core::account::Appid;
use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::FaultScope;
use wxtokend_core::token::Token;

use super::answers::{TokenError, Unavailable};
use crate::config::Config;
use crate::fleet::actor::context::ActorContext;
use crate::fleet::actor::supervisor::Supervisor;
use crate::fleet::cells::cell::{AccountCell, NoToken, Snapshot};
use crate::fleet::cells::directory::Directory;
use crate::fleet::cells::tally::Tally;
use crate::fleet::cells::view::{AccountView, HostView};
#[cfg(feature = "redis")]
use crate::fleet::publish::outbox::Outbox;

/// The longest wait for a token, 100 years: without limit, and safe to add to any instant.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A fleet of accounts whose tokens are kept fresh. Clones are cheap and share one fleet.
///
/// It runs until [`Fleet::shutdown`]. Dropping every clone ends it as abruptly as killing the process would,
/// which loses nothing that was promised.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) inner: Arc<FleetInner>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = self.inner.directory.load().in_order.len();
        f.debug_struct("Fleet").field("accounts", &accounts).finish_non_exhaustive()
    }
}

pub(crate) struct FleetInner {
    pub(crate) shared: Arc<ActorContext>,
    /// The same directory as in `shared`, one pointer closer to every read.
    pub(crate) directory: Arc<ArcSwap<Directory>>,
    pub(crate) supervisor: ActorRef<Supervisor>,
    /// The configuration that the fleet runs on; locked while a reload is applied.
    pub(crate) running: tokio::sync::Mutex<Config>,
    /// The task that watches the clocks and the hosts.
    pub(crate) watches: AbortHandle,
    pub(crate) ready: AtomicBool,
    pub(crate) reads: Reads,
    pub(crate) ticket_reads: Reads,
}

/// The counters `wxtokend_token_reads_total`, or those for tickets, by outcome.
pub(crate) struct Reads {
    pub(crate) served: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) unknown: Counter,
}

impl Reads {
    pub(crate) fn of(name: &'static str) -> Self {
        let read = |outcome| counter!(name, "outcome" => outcome);
        Self { served: read("served"), unavailable: read("unavailable"), unknown: read("unknown_account") }
    }
}

impl Fleet {
    /// Returns a live token of `appid` at once. Without one, waits for a call that is running or due within
    /// `upstream.timeout`, at most 1 s longer than that. Never starts a call of its own.
    ///
    /// # Errors
    /// [`TokenError`]: unknown account, no valid token, or the fleet is stopping.
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet) {
    /// match fleet.token("wx0123456789abcdef").await {
    ///     Ok(token) => println!("{} for {:?}", token.access_token(), token.expires_in()),
    ///     // Says why, and what to do; `Unavailable` also holds when to ask again.
    ///     Err(error) => eprintln!("failed to get a token: {error}"),
    /// }
    /// # }
    /// ```
    pub async fn token(&self, appid: impl AsRef<str>) -> Result<Token, TokenError> {
        if let Some(token) = self.token_at_once(appid.as_ref()) {
            return Ok(token);
        }
        let cell = self.cell_to_read(appid.as_ref())?;
        let shared = &self.inner.shared;
        let waited = tokio::select! {
            waited = cell.read_or_wait(&shared.clock, shared.rules().timeout) => waited,
            () = shared.until_draining() => return Err(TokenError::ShuttingDown),
        };
        match waited {
            Ok(token) => {
                self.inner.reads.served.increment(1);
                Ok(token)
            }
            Err(NoToken(_)) if cell.published.is_gone() => {
                self.inner.reads.unknown.increment(1);
                Err(TokenError::UnknownAccount(appid.as_ref().to_owned()))
            }
            Err(NoToken(snapshot)) => {
                self.inner.reads.unavailable.increment(1);
                Err(self.unavailable(&snapshot))
            }
        }
    }

    /// [`Fleet::token`] without the wait: the token, if there is one.
    pub(crate) fn token_at_once(&self, appid: &str) -> Option<Token> {
        let inner = &self.inner;
        let token = inner.directory.load().by_appid.get(appid)?.read(inner.shared.now())?;
        inner.reads.served.increment(1);
        Some(token)
    }

    /// Returns the token of `appid` once its version exceeds `after`, waiting for at most `wait`.
    ///
    /// `None` when the wait ends with the same token, still valid. An `after` above the current version is
    /// answered at once.
    ///
    /// # Errors
    /// As [`Fleet::token`].
    pub async fn token_after(
        &self,
        appid: impl AsRef<str>,
        after: u64,
        wait: Duration,
    ) -> Result<Option<Token>, TokenError> {
        let cell = self.cell_to_read(appid.as_ref())?;
        let shared = &self.inner.shared;
        cell.note_use(shared.now());
        let start = Instant::now();
        if cell.load().state.version != after {
            return self.token(appid).await.map(Some);
        }
        let newer = cell.published.wait_until(start + wait.min(MAX_WAIT), |snapshot| {
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
        if cell.published.is_gone() {
            return Err(TokenError::UnknownAccount(appid.as_ref().to_owned()));
        }
        let snapshot = cell.load();
        if snapshot.state.is_usable(shared.now()) {
            return Ok(None);
        }
        self.inner.reads.unavailable.increment(1);
        Err(self.unavailable(&snapshot))
    }

    /// The view of account `appid`; `None` when there is no such account.
    #[must_use]
    pub fn account(&self, appid: impl AsRef<str>) -> Option<AccountView> {
        Some(self.cell(appid.as_ref()).ok()?.view(self.inner.shared.now()))
    }

    /// The views of all accounts, by appid.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountView> {
        let now = self.inner.shared.now();
        self.cells().iter().map(|cell| cell.view(now)).collect()
    }

    pub(crate) fn now(&self) -> Moment {
        self.inner.shared.now()
    }

    pub(crate) fn snapshot(&self, appid: &str) -> Option<Arc<Snapshot>> {
        self.inner.directory.load().by_appid.get(appid).map(|cell| cell.load())
    }

    #[cfg(feature = "internals")]
    pub(crate) fn cell_of(&self, appid: &Appid) -> Option<Arc<AccountCell>> {
        self.inner.directory.load().by_appid.get(appid).cloned()
    }

    /// All cells, by appid.
    pub(crate) fn cells(&self) -> Vec<Arc<AccountCell>> {
        let directory = self.inner.directory.load();
        directory.in_order.iter().filter_map(|appid| directory.by_appid.get(appid).cloned()).collect()
    }

    /// The first `limit` accounts after `after` that are `wanted`, by appid, and whether more follow.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> (Vec<Arc<AccountCell>>, bool) {
        self.inner.directory.load().page(after, limit, wanted)
    }

    /// Counts over all accounts since the program started, removed ones included.
    pub(crate) fn tally(&self) -> &Tally {
        &self.inner.shared.tally
    }

    /// Counts over all calls for tickets since the program started.
    pub(crate) fn ticket_tally(&self) -> &Tally {
        &self.inner.shared.ticket_tally
    }

    /// The state of each host of the upstream, in the order of the configuration.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostView> {
        self.inner.shared.wechat().hosts().states().iter().map(HostView::of).collect()
    }

    /// The hosts of the upstream, in the order in which a call tries them.
    #[cfg(feature = "axum")]
    pub(crate) fn upstream_hosts(&self) -> Vec<Url> {
        self.inner.shared.wechat().hosts().order().into_iter().map(|(_, url)| url).collect()
    }

    /// The sinks, in the order of the configuration file.
    #[cfg(feature = "redis")]
    pub(crate) fn sinks(&self) -> Arc<Vec<Arc<Outbox>>> {
        self.inner.shared.publishers.all()
    }

    /// Is cancelled when the fleet begins to stop.
    #[cfg(feature = "axum")]
    pub(crate) fn draining(&self) -> &CancellationToken {
        self.inner.shared.draining()
    }

    /// Returns when the fleet begins to stop.
    pub(crate) async fn until_draining(&self) {
        self.inner.shared.until_draining().await;
    }

    pub(crate) fn cell(&self, appid: &str) -> Result<Arc<AccountCell>, TokenError> {
        let directory = self.inner.directory.load();
        let cell = directory.by_appid.get(appid).cloned();
        cell.ok_or_else(|| TokenError::UnknownAccount(appid.to_owned()))
    }

    /// The cell of `appid` for a read, which is counted when the account is unknown.
    fn cell_to_read(&self, appid: &str) -> Result<Arc<AccountCell>, TokenError> {
        self.cell(appid).inspect_err(|_| self.inner.reads.unknown.increment(1))
    }

    pub(crate) fn unavailable(&self, snapshot: &Snapshot) -> TokenError {
        let now = self.inner.shared.now();
        let state = &snapshot.state;
        let last_failure = state.last_failure.as_deref();
        let refused = last_failure.is_some_and(|failure| failure.fault.scope == FaultScope::Budget);
        // The next attempt waits for the budget, although the last one failed for another reason.
        let spent = last_failure.is_some_and(|failure| !failure.is_parked())
            && state.ledger.remaining(Bucket::Calls, snapshot.account.settings.daily_budget, now) == 0;
        TokenError::Unavailable(Box::new(Unavailable {
            state: state.phase(now),
            last_fault: snapshot.last_fault(),
            retry_after: retry_after(state.next_at, now),
            budget_exhausted: refused || spent,
        }))
    }
}

/// When to ask again: at the next attempt. A host that is down may recover at any moment.
pub(crate) fn retry_after(next_at: Option<Moment>, now: Moment) -> Duration {
    next_at.map_or(Duration::from_secs(5), |at| at.until(now)).max(Duration::from_secs(1))
}
