//! The one task that writes: groups what is submitted, retries what failed, rewrites a store that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info};
use wxtokend_core::reference::metrics::{STORE_COMMIT_DURATION, STORE_ERRORS};
use wxtokend_core::ticket::Credential;

use super::backend::{Backend, Batch, Writing};
use super::error::{SLOWEST_COMMIT, StoreError};
use super::queue::{Unwritten, WriteGroup, WriteQueue};

/// The delay before a failed write is retried doubles from this,
pub(super) const MIN_RETRY_DELAY: Duration = Duration::from_secs(2);
/// up to this.
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// The minimum time between transactions: even on a fast disk, what arrives meanwhile shares a sync.
const COMMIT_EVERY: Duration = Duration::from_millis(5);
/// Readers see what was written within this time, if actors run at all. Keeping more of it would take a tenth
/// of all memory after a start with an empty store.
const VISIBLE_WITHIN: Duration = Duration::from_millis(100);

pub(super) struct StoreWriter {
    queue: Arc<WriteQueue>,
    backend: Arc<dyn Backend>,
    /// The upstream's hosts as they are on disk.
    hosts: Vec<String>,
    boot: String,
    trouble: Option<DiskFailure>,
    recent: RecentWrites,
}

/// A failure of the disk that is not over.
struct DiskFailure {
    since: Instant,
    wait: Duration,
    retry_at: Instant,
}

/// What was written a moment ago. It may be newer than what readers see, from which a lost store is
/// rewritten.
struct RecentWrites {
    newer: BTreeMap<Credential, Vec<u8>>,
    older: BTreeMap<Credential, Vec<u8>>,
    /// When `newer` was begun.
    since: Instant,
}

impl RecentWrites {
    fn new() -> Self {
        Self { newer: BTreeMap::new(), older: BTreeMap::new(), since: Instant::now() }
    }

    /// Adds what was just written, and drops what readers have seen by now.
    fn add(&mut self, records: BTreeMap<Credential, Vec<u8>>) {
        if self.since.elapsed() >= VISIBLE_WITHIN {
            self.rotate();
        }
        self.newer.extend(records);
    }

    fn rotate(&mut self) {
        (self.older, self.since) = (std::mem::take(&mut self.newer), Instant::now());
    }
}

impl StoreWriter {
    pub(super) fn new(
        queue: Arc<WriteQueue>,
        backend: Arc<dyn Backend>,
        hosts: Vec<String>,
        boot: &str,
    ) -> Self {
        Self { queue, backend, hosts, boot: boot.to_owned(), trouble: None, recent: RecentWrites::new() }
    }

    /// Runs until the store is closed, or its last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut earliest = Instant::now();
        let look_every = self.backend.look_every();
        let mut look_at = look_every.map(|every| earliest + every);
        loop {
            sleep_until(earliest).await;
            let retry_at = self.trouble.as_ref().map(|trouble| trouble.retry_at);
            self.queue.until_due(retry_at.or(look_at), retry_at.is_some()).await;
            let started = Instant::now();
            if look_at.is_some_and(|at| at <= started) {
                look_at = look_every.map(|every| started + every);
                self.recent.rotate();
            }
            let group = self.queue.take();
            let last = group.last;
            earliest = started + COMMIT_EVERY;
            self.write_group(group, started).await;
            if last {
                return self.queue.closed();
            }
        }
    }

    async fn write_group(&mut self, group: WriteGroup, started: Instant) {
        let WriteGroup { pending, callers, .. } = group;
        match self.write(&pending).await {
            Ok(()) => {
                if let Some(DiskFailure { since, .. }) = self.trouble.take() {
                    info!(
                        event = "store_recovered",
                        records = pending.records.len(),
                        outage_s = since.elapsed().as_secs(),
                        "the store takes writes again"
                    );
                }
                self.queue.mark_healthy();
                if let Some(hosts) = pending.hosts {
                    self.hosts = hosts;
                }
                if self.backend.look_every().is_some() {
                    self.recent.add(pending.records);
                }
                callers.into_iter().for_each(|caller| drop(caller.send(Ok(()))));
            }
            Err(failure) => {
                let earlier = self.trouble.take();
                let since = earlier.as_ref().map_or(started, |trouble| trouble.since);
                let wait = earlier.map_or(MIN_RETRY_DELAY, |trouble| (trouble.wait * 2).min(MAX_RETRY_DELAY));
                self.trouble = Some(DiskFailure { since, wait, retry_at: Instant::now() + wait });
                counter!(STORE_ERRORS.name).increment(1);
                error!(
                    event = "store_failed",
                    error = chain(&failure),
                    unwritten = pending.records.len(),
                    retry_in_s = wait.as_secs(),
                    "the store cannot be written: tokens are served from memory, and a crash now would forget \
                     them and what was spent of the budgets; free space or correct the permissions"
                );
                let failure = Arc::new(failure);
                self.queue.put_back(pending, &failure);
                callers.into_iter().for_each(|caller| drop(caller.send(Err(Arc::clone(&failure)))));
            }
        }
    }

    /// Writes `pending`, or checks the store where there is nothing to write. Rewrites a store that is gone.
    async fn write(&mut self, pending: &Unwritten) -> Result<(), StoreError> {
        let started = Instant::now();
        let outcome = if pending.is_empty() {
            self.wait_for_write(self.backend.look()).await
        } else {
            let outcome = self.wait_for_write(self.backend.write(pending.batch())).await;
            histogram!(STORE_COMMIT_DURATION.name).record(started.elapsed());
            outcome
        };
        let Err(StoreError::Gone(path)) = outcome else { return outcome };
        let Some(all) = self.all(pending) else { return Err(StoreError::Gone(path)) };
        let records = all.records.len();
        counter!(STORE_ERRORS.name).increment(1);
        error!(
            event = "store_gone",
            path = %path.display(),
            "the file of the store was deleted, moved away or emptied: it is rewritten from memory"
        );
        self.wait_for_write(self.backend.write_anew(all)).await?;
        info!(event = "store_written_anew", records, "the store is on disk again");
        Ok(())
    }

    /// All that must be on disk.
    fn all(&self, pending: &Unwritten) -> Option<Batch> {
        let mut records: BTreeMap<_, _> = self.queue.everything()?.encoded(&self.boot).into_iter().collect();
        for newer in [&self.recent.older, &self.recent.newer, &pending.records] {
            records.extend(newer.iter().map(|(of, record)| (of.clone(), record.clone())));
        }
        let hosts = pending.hosts.clone().unwrap_or_else(|| self.hosts.clone());
        Some(Batch { records: records.into_iter().collect(), hosts: Some(hosts) })
    }

    /// Waits for a write, however long it takes; once that is too long, callers no longer wait for it.
    async fn wait_for_write(&self, mut write: Writing) -> Result<(), StoreError> {
        if let Ok(outcome) = timeout(SLOWEST_COMMIT, &mut write).await {
            return outcome;
        }
        counter!(STORE_ERRORS.name).increment(1);
        error!(
            event = "store_slow",
            waited_s = SLOWEST_COMMIT.as_secs(),
            "the disk of the store does not answer: tokens are served from memory meanwhile"
        );
        let since = Instant::now();
        self.queue.fail(&Arc::new(StoreError::Slow));
        let outcome = write.await;
        if outcome.is_ok() {
            let outage_s = since.elapsed().as_secs();
            info!(event = "store_recovered", outage_s, "the disk of the store answers again");
        }
        outcome
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
