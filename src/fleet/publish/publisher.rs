//! Keeps the keys in one Redis equal to what the accounts' readers get.
//!
//! Each key expires with the promise that was given for its token: if we die, or cannot reach Redis, no client finds
//! a token there that must not be used. So a promise that grows with time is written again before the key expires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::ticket::Credential;

use self::log::Log;
use self::refusals::Refusals;
use super::outbox::Outbox;
use super::publication::{Desired, Plan, Published};
use crate::fleet::cells::directory::Directory;
use crate::fleet::publish::connection::{KeyChange, RedisConnection};
use crate::fleet::publish::sink_error::{RedisRefusal, SinkError};

mod compare;
mod log;
mod refusals;

/// How many tokens and tickets are sent in one batch.
const BATCH: usize = 250;
/// How often Redis is pinged. One that came back empty is filled again after this time.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often a part of the keys is compared with what we wrote.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// The delay before the next attempt to connect doubles from this,
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// up to this.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// How long Redis may refuse everything before it counts as down.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// The task of one sink.
pub(crate) struct Publisher {
    outbox: Arc<Outbox>,
    directory: Arc<ArcSwap<Directory>>,
    clock: Clock,
    connection: Option<RedisConnection>,
    /// What may have to be written.
    todo: BTreeSet<Credential>,
    /// What is in Redis, as far as we know.
    published: BTreeMap<Credential, Published>,
    /// When to read which promise again.
    due: BTreeSet<(Instant, Credential)>,
    refusals: Refusals,
    /// Since when none of our keys is in Redis and those that should be are refused.
    refuses_all_since: Option<Instant>,
    failures: u32,
    log: Log,
    retry_at: Instant,
    ping_at: Instant,
    check_at: Instant,
    /// The last credential that was compared.
    last_compared: Option<Credential>,
    /// How many credentials were compared in a row of which most were not ours.
    mismatched: usize,
}

impl Publisher {
    pub(crate) fn new(outbox: Arc<Outbox>, directory: Arc<ArcSwap<Directory>>, clock: Clock) -> Self {
        let now = Instant::now();
        Self {
            log: Log::of(outbox.name()),
            outbox,
            directory,
            clock,
            connection: None,
            todo: BTreeSet::new(),
            published: BTreeMap::new(),
            due: BTreeSet::new(),
            refusals: Refusals::default(),
            refuses_all_since: None,
            failures: 0,
            retry_at: now,
            ping_at: now,
            check_at: now + COMPARE_EVERY,
            last_compared: None,
            mismatched: 0,
        }
    }

    /// Runs until it is asked to stop. What has changed by then is written, if Redis answers.
    pub(crate) async fn run(mut self) {
        let outbox = Arc::clone(&self.outbox);
        while outbox.stop.run_until_cancelled(self.iterate()).await.is_some() {}
        self.collect();
        let _ = self.write().await;
    }

    /// One iteration. Cancel safe: what is not known to be written stays on the list.
    async fn iterate(&mut self) {
        self.collect();
        if let Err(trouble) = self.advance().await {
            self.on_failed(&trouble);
        }
        self.log.report_drift();
        self.log.report_refusals(&mut self.refusals);
        let due = self.due.first().map(|(at, _)| *at).into_iter().chain(self.refusals.next());
        let wake_at = match &self.connection {
            None => self.retry_at,
            Some(_) => due.fold(self.ping_at.min(self.check_at), Instant::min),
        };
        let outbox = Arc::clone(&self.outbox);
        tokio::select! {
            () = outbox.changed.notified() => {}
            () = sleep_until(wake_at) => {}
        }
    }

    async fn advance(&mut self) -> Result<(), SinkError> {
        if self.connection.is_none() {
            if Instant::now() < self.retry_at {
                return Ok(());
            }
            self.connection = Some(RedisConnection::open(&self.outbox.sink.url).await?);
            // It may have lost everything, or have missed the last writes.
            self.published.values_mut().for_each(Published::forget);
            self.outbox.note_all();
            self.collect();
        }
        self.write().await?;
        if Instant::now() >= self.check_at {
            let (compared, changed) = self.compare().await?;
            self.check_at = Instant::now() + self.compare_delay(compared, changed);
            self.write().await?;
        }
        if let Some(connection) = self.connection.as_mut().filter(|_| Instant::now() >= self.ping_at) {
            connection.ping().await?;
            self.ping_at = Instant::now() + PING_EVERY;
        }
        self.on_answered();
        Ok(())
    }

    /// Collects what has changed and what is due.
    fn collect(&mut self) {
        let changes = self.outbox.take_changes();
        let directory = self.directory.load();
        let accounts = self.outbox.accounts.load();
        let covered = |appid: &Appid| {
            let account = Arc::clone(&directory.by_appid.get(appid)?.load().account);
            Some(account).filter(|account| accounts.covers(account))
        };
        if changes.of_all {
            let all = directory.in_order.iter().filter_map(covered);
            self.todo.extend(all.flat_map(|account| credentials_of(&account)));
            self.todo.extend(self.published.keys().cloned());
        }
        let concerns = |credential: &Credential| {
            self.published.contains_key(credential) || covered(&credential.appid).is_some()
        };
        self.todo.extend(changes.of.into_iter().filter(concerns));
        let now = Instant::now();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            self.todo.extend(self.due.pop_first().map(|(_, credential)| credential));
        }
        self.todo.extend(self.refusals.due(now).cloned());
        let pending = self.todo.len() + self.refusals.count_not_in(&self.todo);
        self.outbox.tally.pending.store(pending, Ordering::Relaxed);
    }

    /// Writes all that is on the list.
    async fn write(&mut self) -> Result<(), SinkError> {
        while self.connection.is_some() && !self.todo.is_empty() {
            let now = self.clock.now();
            let batch = self.todo.iter().take(BATCH);
            let plans: Vec<_> =
                batch.map(|credential| (credential.clone(), self.plan(credential, now))).collect();
            let applied = self.apply(&plans).await;
            let (outcomes, trouble) = match applied {
                Ok(outcomes) => (outcomes, None),
                Err(trouble) => (Vec::new(), Some(trouble)),
            };
            let mut outcomes = outcomes.into_iter();
            for (credential, plan) in plans {
                match outcomes.next() {
                    Some(Ok(())) => self.on_written(credential, plan, now),
                    Some(Err(refusal)) => self.on_refused(credential, plan, refusal),
                    None => self.published.entry(credential).or_default().tried(plan),
                }
            }
            trouble.map_or(Ok(()), Err)?;
            self.collect();
        }
        Ok(())
    }

    fn wanted(&self, credential: &Credential, now: Moment) -> Option<Desired> {
        Desired::of(&self.directory.load(), credential, &self.outbox.accounts.load(), now)
    }

    fn plan(&self, credential: &Credential, now: Moment) -> Plan {
        let (wanted, published) = (self.wanted(credential, now), self.published.get(credential));
        Plan::new(credential, wanted, published, &self.outbox.sink.layout, now)
    }

    /// Carries out `plans`, and returns for each whether Redis accepted it.
    async fn apply(
        &mut self,
        plans: &[(Credential, Plan)],
    ) -> Result<Vec<Result<(), RedisRefusal>>, SinkError> {
        let changes: Vec<Vec<KeyChange<'_>>> =
            plans.iter().map(|(_, plan)| plan.changes().collect()).collect();
        let all = changes.iter().filter(|changes| !changes.is_empty()).count();
        let Some(connection) = self.connection.as_mut() else { return Ok(Vec::new()) };
        let applied = connection.apply(&changes).await;
        let refused = applied
            .as_ref()
            .map_or(all, |outcomes| outcomes.iter().filter(|applied| applied.is_err()).count());
        Outbox::count(&self.outbox.tally.written, all - refused);
        Outbox::count(&self.outbox.tally.failed, refused);
        applied
    }

    fn on_written(&mut self, credential: Credential, plan: Plan, now: Moment) {
        self.todo.remove(&credential);
        self.refusals.lift(&credential);
        if let Some(at) = self.published.get(&credential).and_then(|published| published.check_at) {
            self.due.remove(&(at, credential.clone()));
        }
        let published = match plan {
            Plan::Keep => self.published.remove(&credential).filter(Published::has_entries),
            plan => plan.published(self.clock.now()),
        };
        if let Some(mut published) = published {
            if let Some(before) = self.published.get(&credential) {
                published.follow(before);
            }
            let at = Instant::now() + published.next_check(now);
            published.check_at = Some(at);
            self.due.insert((at, credential.clone()));
            self.published.insert(credential, published);
        } else {
            self.published.remove(&credential);
        }
    }

    fn on_refused(&mut self, credential: Credential, plan: Plan, refusal: RedisRefusal) {
        self.todo.remove(&credential);
        if refusal.in_part {
            self.published.entry(credential.clone()).or_default().tried(plan);
        }
        self.refusals.add(credential, refusal, Instant::now());
    }

    /// Redis does what it is asked to, except what it refuses, which may be everything.
    fn on_answered(&mut self) {
        self.failures = 0;
        let now = self.clock.now();
        let has_stored_entries =
            || self.published.values().any(|published| published.stored_entries(now).is_some());
        let refusal = self.refusals.last().filter(|_| !has_stored_entries());
        let since = refusal.map(|_| self.refuses_all_since.unwrap_or_else(Instant::now));
        self.refuses_all_since = since;
        if let Some(refusal) = refusal.filter(|_| since.is_some_and(|since| since.elapsed() >= DOWN_AFTER)) {
            self.outbox.tally.up.store(false, Ordering::Relaxed);
            self.log.down(&refusal.trouble);
        } else if !self.outbox.tally.up.swap(true, Ordering::Relaxed) {
            self.log.up(self.published.len());
        }
    }

    fn on_failed(&mut self, trouble: &SinkError) {
        self.connection = None;
        self.outbox.tally.up.store(false, Ordering::Relaxed);
        let wait = MIN_RETRY_DELAY.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_RETRY_DELAY);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Instant::now() + wait;
        self.log.down(trouble);
    }
}

/// The credentials of an account that may be published.
fn credentials_of(account: &Account) -> Vec<Credential> {
    let tickets = account.settings.tickets.iter().map(|kind| Credential::ticket(account.appid.clone(), kind));
    tickets.chain([Credential::token(account.appid.clone())]).collect()
}
