//! Keeps what stands in one Redis equal to what the accounts' readers get.
//!
//! Each key ends with the promise that was given for its token: if we die, or cannot reach Redis, nobody finds a
//! token there that must not be used. So a promise that grows with time is written again before the key ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::publication::{Plan, Published, Wanted};
use super::publishers::Outbox;
use super::shared::Shared;
use crate::account::Appid;
use crate::clock::Moment;
use crate::publish::{Change, Connection, Trouble};

/// Accounts in one transaction, for whose length Redis answers nobody else.
const AT_ONCE: usize = 250;
/// How often Redis is asked whether it is there: one that came back empty is filled again after so long,
const PING: Duration = Duration::from_secs(1);
/// and how often what stands there is compared,
const LOOK: Duration = Duration::from_secs(10);
/// of so many accounts at a time.
const MOST_LOOKED_AT: usize = 10_000;
/// The wait before the next try to connect grows from this,
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// to this.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How often drift is logged.
const DRIFT_LOG: Duration = Duration::from_secs(60);

/// One sink's task.
pub(super) struct Publisher {
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Accounts that may have to be written.
    todo: BTreeSet<Appid>,
    /// What stands in Redis as far as we know.
    published: BTreeMap<Appid, Published>,
    /// When to look at which account's promise again.
    due: BTreeSet<(Instant, Appid)>,
    failures: u32,
    is_told_down: bool,
    retry_at: Instant,
    ping_at: Instant,
    look_at: Instant,
    /// The last account that was compared.
    looked_at: Option<Appid>,
    drifted: usize,
    drift_logged_at: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(outbox: Arc<Outbox>, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            outbox,
            shared,
            connection: None,
            todo: BTreeSet::new(),
            published: BTreeMap::new(),
            due: BTreeSet::new(),
            failures: 0,
            is_told_down: false,
            retry_at: now,
            ping_at: now,
            look_at: now + LOOK,
            looked_at: None,
            drifted: 0,
            drift_logged_at: None,
        }
    }

    /// Until it is asked to stop. What has changed by then is written, if Redis is there.
    pub(super) async fn run(mut self) {
        let outbox = Arc::clone(&self.outbox);
        while outbox.stop.run_until_cancelled(self.turn()).await.is_some() {}
        self.collect();
        let _ = self.write().await;
    }

    /// May be dropped at any time: what is not known to be written stays on the list.
    async fn turn(&mut self) {
        self.collect();
        if let Err(trouble) = self.advance().await {
            self.failed(&trouble);
        }
        self.tell_of_drift();
        let wake_at = match (&self.connection, self.due.first()) {
            (None, _) => self.retry_at,
            (Some(_), Some((due, _))) => self.ping_at.min(*due),
            (Some(_), None) => self.ping_at,
        };
        let outbox = Arc::clone(&self.outbox);
        tokio::select! {
            () = outbox.told.notified() => {}
            () = sleep_until(wake_at) => {}
        }
    }

    async fn advance(&mut self) -> Result<(), Trouble> {
        if self.connection.is_none() {
            if Instant::now() < self.retry_at {
                return Ok(());
            }
            self.connection = Some(Connection::open(&self.outbox.sink.url).await?);
            // It may have lost everything, or not have heard the last of it.
            self.published.values_mut().for_each(Published::forget);
            self.outbox.note_all();
            self.collect();
        }
        self.write().await?;
        if Instant::now() >= self.look_at {
            self.look().await?;
            self.look_at = Instant::now() + LOOK;
            self.write().await?;
        }
        if let Some(connection) = self.connection.as_mut().filter(|_| Instant::now() >= self.ping_at) {
            connection.ping().await?;
            self.ping_at = Instant::now() + PING;
        }
        self.works();
        Ok(())
    }

    /// Takes in what has changed, and what is due.
    fn collect(&mut self) {
        let news = self.outbox.take_news();
        let directory = self.shared.directory.load();
        let accounts = self.outbox.accounts.load();
        let concerns = |appid: &&Appid| {
            let cell = directory.by_appid.get(*appid);
            self.published.contains_key(*appid)
                || cell.is_some_and(|cell| accounts.covers(&cell.load().account))
        };
        if news.of_all {
            self.todo.extend(directory.in_order.iter().filter(concerns).cloned());
            self.todo.extend(self.published.keys().cloned());
        }
        self.todo.extend(news.of.iter().filter(concerns).cloned());
        let now = Instant::now();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            self.todo.extend(self.due.pop_first().map(|(_, appid)| appid));
        }
        self.outbox.tally.pending.store(self.todo.len(), Ordering::Relaxed);
    }

    /// Writes all that is on the list.
    async fn write(&mut self) -> Result<(), Trouble> {
        while self.connection.is_some() && !self.todo.is_empty() {
            let now = self.shared.now();
            let batch = self.todo.iter().take(AT_ONCE);
            let plans: Vec<_> = batch.map(|appid| (appid.clone(), self.plan(appid, now))).collect();
            let written = self.make(&plans).await;
            for (appid, plan) in plans {
                match &written {
                    Ok(()) => {
                        self.todo.remove(&appid);
                        self.is_made(appid, plan, now);
                    }
                    Err(_) => self.published.entry(appid).or_default().tried(plan),
                }
            }
            written?;
            self.collect();
        }
        Ok(())
    }

    fn plan(&self, appid: &Appid, now: Moment) -> Plan {
        let directory = self.shared.directory.load();
        let snapshot = directory.by_appid.get(appid).map(|cell| cell.load());
        let wanted = snapshot
            .filter(|snapshot| self.outbox.accounts.load().covers(&snapshot.account))
            .and_then(|snapshot| Wanted::of(&snapshot, now));
        Plan::new(wanted, self.published.get(appid), &self.outbox.sink.layout, now)
    }

    async fn make(&mut self, plans: &[(Appid, Plan)]) -> Result<(), Trouble> {
        let changes: Vec<Change<'_>> = plans.iter().flat_map(|(_, plan)| plan.changes()).collect();
        let Some(connection) = self.connection.as_mut().filter(|_| !changes.is_empty()) else {
            return Ok(());
        };
        let made = connection.make(&changes).await;
        let tally = &self.outbox.tally;
        let accounts = plans.iter().filter(|(_, plan)| plan.changes().next().is_some()).count();
        Outbox::count(if made.is_ok() { &tally.written } else { &tally.failed }, accounts);
        made
    }

    fn is_made(&mut self, appid: Appid, plan: Plan, now: Moment) {
        if let Some(at) = self.published.get(&appid).and_then(|published| published.look_at) {
            self.due.remove(&(at, appid.clone()));
        }
        let published = match plan {
            Plan::Keep => self.published.remove(&appid).filter(Published::is_any),
            plan => plan.published(),
        };
        if let Some(mut published) = published {
            let at = Instant::now() + published.next_look(now);
            published.look_at = Some(at);
            self.due.insert((at, appid.clone()));
            self.published.insert(appid, published);
        } else {
            self.published.remove(&appid);
        }
    }

    /// Compares what stands in Redis with what we put there.
    async fn look(&mut self) -> Result<(), Trouble> {
        let now = self.shared.now();
        let start = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.published.range((start, Bound::Unbounded)).take(MOST_LOOKED_AT);
        let round: Vec<Appid> = behind.map(|(appid, _)| appid.clone()).collect();
        self.looked_at = round.last().filter(|_| round.len() == MOST_LOOKED_AT).cloned();
        for batch in round.chunks(AT_ONCE) {
            let standing: Vec<_> = batch
                .iter()
                .filter_map(|appid| Some((appid, self.published.get(appid)?.standing(now)?)))
                .flat_map(|(appid, entries)| entries.iter().map(move |entry| (appid, entry)))
                .collect();
            let entries: Vec<_> = standing.iter().map(|(_, entry)| *entry).collect();
            let Some(connection) = self.connection.as_mut().filter(|_| !entries.is_empty()) else { continue };
            let differ = connection.differ(&entries).await?;
            let drifted: BTreeSet<Appid> = standing
                .iter()
                .zip(differ)
                .filter(|(_, differs)| *differs)
                .map(|((appid, _), _)| (*appid).clone())
                .collect();
            self.drifted += drifted.len();
            Outbox::count(&self.outbox.tally.drifted, drifted.len());
            for appid in drifted {
                self.published.entry(appid.clone()).and_modify(Published::forget);
                self.todo.insert(appid);
            }
        }
        Ok(())
    }

    fn works(&mut self) {
        self.failures = 0;
        if !self.outbox.tally.up.swap(true, Ordering::Relaxed) {
            self.is_told_down = false;
            let (sink, accounts) = (self.outbox.name(), self.published.len());
            info!(event = "redis_up", sink, accounts, "tokens are published to {sink}");
        }
    }

    fn failed(&mut self, trouble: &Trouble) {
        self.connection = None;
        self.outbox.tally.up.store(false, Ordering::Relaxed);
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Instant::now() + wait;
        if !std::mem::replace(&mut self.is_told_down, true) {
            let sink = self.outbox.name();
            warn!(
                event = "redis_down",
                sink,
                error = %trouble,
                "tokens cannot be published to {sink}; they are, when it is back: {trouble}"
            );
        }
    }

    fn tell_of_drift(&mut self) {
        let quiet = self.drift_logged_at.is_none_or(|at| at.elapsed() >= DRIFT_LOG);
        if self.drifted > 0 && quiet {
            let (sink, accounts) = (self.outbox.name(), std::mem::take(&mut self.drifted));
            self.drift_logged_at = Some(Instant::now());
            warn!(
                event = "redis_drift",
                sink,
                accounts,
                "somebody else deleted or overwrote tokens in {sink}; ours are put back. An SDK does so when it meets 40001, \
                 or fetches tokens itself: find who else has the AppSecrets"
            );
        }
    }
}
