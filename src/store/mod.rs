//! What survives the process: each account's token, version, budget and intents, and the like of its tickets.
//!
//! A caller hands in an account's whole state and waits until it is on disk. All that is handed in while one
//! transaction is being written goes into the next, so a cold start of 10 000 accounts is a few hundred syncs and
//! not 20 000. When the disk fails the caller is told and goes on; what could not be written is kept, newest
//! state of each account, and tried again until it is.

mod error;
#[cfg(test)]
pub(crate) mod memory;
pub mod record;
mod redb;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info};

use crate::account::Appid;
use crate::clock::Clock;
use crate::state::AccountState;
use crate::ticket::{Credential, TicketState};
pub use error::StoreError;
use record::Record;
pub use redb::{RedbBackend, is_reading};

/// How soon what could not be written is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// Transactions begin no closer together: where a disk is fast, what comes meanwhile shares a sync, too.
const COMMIT_EVERY: Duration = Duration::from_millis(5);
/// A disk that takes longer than this counts as failed: serving must not wait for it.
const SLOWEST_COMMIT: Duration = Duration::from_secs(5);

/// Where records are kept: the edge of the process towards the disk.
pub trait Backend: Send + Sync + 'static {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// Everything that is stored.
    ///
    /// # Errors
    /// When the file is damaged or not ours; nothing is changed then.
    fn load(&self) -> Result<Contents, StoreError>;

    /// Writes `batch` whole or not at all, and returns when it is on disk.
    fn write(&self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;
}

/// What a [`Backend`] holds: encoded records, and the upstream's hosts.
#[derive(Debug, Default)]
pub struct Contents {
    /// Encoded records by what they are of.
    pub records: HashMap<Credential, Vec<u8>>,
    /// The hosts whose tokens these are.
    pub hosts: Vec<String>,
}

/// What is known of accounts and tickets.
#[derive(Debug, Default)]
pub struct Stored {
    /// By appid.
    pub accounts: HashMap<Appid, AccountState>,
    /// By whose they are and of which kind.
    pub tickets: HashMap<Credential, TicketState>,
}

/// One transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Encoded records by what they are of.
    pub records: Vec<(Credential, Vec<u8>)>,
    /// New hosts, where they have changed.
    pub hosts: Option<Vec<String>>,
}

/// A handle to the writer. Clones cheaply.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::UnboundedSender<Write>,
    clock: Clock,
}

impl Stored {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.tickets.is_empty()
    }

    fn encoded(&self, boot: &str) -> Vec<(Credential, Vec<u8>)> {
        let accounts = self.accounts.iter();
        let accounts =
            accounts.map(|(appid, state)| (Credential::token(appid.clone()), record::encode(state, boot)));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), record::encode(state, boot)));
        accounts.chain(tickets).collect()
    }
}

/// What the writer is told.
struct Write {
    batch: Batch,
    /// Nothing comes after this.
    last: bool,
    done: oneshot::Sender<Result<(), Arc<StoreError>>>,
}

impl Store {
    /// Reads everything, told on the clocks of this boot, and starts the writer. When none of the hosts that the
    /// tokens came from is among `hosts`, they are erased; versions and budgets are kept.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed then.
    pub async fn open(
        backend: Arc<dyn Backend>,
        hosts: Vec<String>,
        clock: Clock,
    ) -> Result<(Self, Stored), StoreError> {
        let contents = backend.load()?;
        let now = clock.now();
        let elsewhere = !contents.hosts.is_empty() && !contents.hosts.iter().any(|host| hosts.contains(host));
        let boot = clock.boot_id();
        let mut stored = Stored::default();
        stored.accounts.reserve(contents.records.len());
        let mut retold = Vec::new();
        for (of, bytes) in contents.records {
            let damaged = |what: String| {
                let path = backend.path().display().to_string();
                StoreError::Damaged { path, what: format!("{of}: {what}") }
            };
            let record = if of.ticket.is_none() {
                let (mut state, of_another_boot): (AccountState, _) =
                    record::decode(&bytes, boot, now).map_err(damaged)?;
                if elsewhere {
                    state.forget_token();
                }
                let record = of_another_boot.then(|| record::encode(&state, boot));
                stored.accounts.insert(of.appid.clone(), state);
                record
            } else {
                let (mut state, of_another_boot): (TicketState, _) =
                    record::decode(&bytes, boot, now).map_err(damaged)?;
                if elsewhere {
                    state = state.departed();
                }
                let record = of_another_boot.then(|| record::encode(&state, boot));
                stored.tickets.insert(of.clone(), state);
                record
            };
            retold.extend(record.map(|record| (of, record)));
        }
        if contents.hosts != hosts {
            let erased = if elsewhere { stored.encoded(boot) } else { Vec::new() };
            backend.write(Batch { records: erased, hosts: Some(hosts) }).await?;
        }
        let (writes, queue) = mpsc::unbounded_channel();
        // It ends with `close`, or with the last handle.
        tokio::spawn(write_in_groups(backend, queue));
        let store = Self { writes, clock };
        // At once: the wall clock connects two boots, and it may jump before this one's next start.
        let (done, _nobody_waits) = oneshot::channel();
        let _ = store.writes.send(Write { batch: Batch { records: retold, hosts: None }, last: false, done });
        Ok((store, stored))
    }

    /// Returns when `state` is on disk.
    ///
    /// # Errors
    /// When it is not, for now: it is kept and tried again, and the caller goes on with what memory holds.
    pub async fn commit(&self, appid: &Appid, state: &AccountState) -> Result<(), Arc<StoreError>> {
        self.commit_record(Credential::token(appid.clone()), state).await
    }

    /// [`Store::commit`] for a ticket.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_ticket(&self, of: &Credential, state: &TicketState) -> Result<(), Arc<StoreError>> {
        self.commit_record(of.clone(), state).await
    }

    async fn commit_record(&self, of: Credential, state: &impl Record) -> Result<(), Arc<StoreError>> {
        let record = record::encode(state, self.clock.boot_id());
        self.write(Batch { records: vec![(of, record)], hosts: None }).await
    }

    /// Notes the hosts that tokens come from.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn set_hosts(&self, hosts: Vec<String>) -> Result<(), Arc<StoreError>> {
        self.write(Batch { records: Vec::new(), hosts: Some(hosts) }).await
    }

    /// [`Store::commit`] for many accounts and tickets at once.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_all(&self, all: &Stored) -> Result<(), Arc<StoreError>> {
        self.write(Batch { records: all.encoded(self.clock.boot_id()), hosts: None }).await
    }

    /// Ends the writer, which writes once more what it still has.
    pub async fn close(&self) {
        let _ = self.hand_in(Batch::default(), true).await;
    }

    async fn write(&self, batch: Batch) -> Result<(), Arc<StoreError>> {
        self.hand_in(batch, false).await
    }

    async fn hand_in(&self, batch: Batch, last: bool) -> Result<(), Arc<StoreError>> {
        let (done, written) = oneshot::channel();
        self.writes.send(Write { batch, last, done }).map_err(|_| Arc::new(StoreError::Closed))?;
        match timeout(SLOWEST_COMMIT, written).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_gone)) => Err(Arc::new(StoreError::Closed)),
            Err(_elapsed) => {
                counter!("wxtokend_store_errors_total").increment(1);
                error!(
                    event = "store_slow",
                    waited_s = SLOWEST_COMMIT.as_secs(),
                    "the disk of the store does not answer: tokens are served from memory meanwhile"
                );
                Err(Arc::new(StoreError::Slow))
            }
        }
    }
}

/// What is not on disk yet, newest state of each account and ticket.
#[derive(Default)]
struct Pending {
    /// In order, which a tree on disk takes most easily.
    records: BTreeMap<Credential, Vec<u8>>,
    hosts: Option<Vec<String>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.hosts.is_none()
    }

    fn add(&mut self, batch: Batch) {
        self.records.extend(batch.records);
        self.hosts = batch.hosts.or(self.hosts.take());
    }

    fn batch(&self) -> Batch {
        let records = self.records.iter().map(|(of, record)| (of.clone(), record.clone())).collect();
        Batch { records, hosts: self.hosts.clone() }
    }
}

async fn write_in_groups(backend: Arc<dyn Backend>, mut queue: mpsc::UnboundedReceiver<Write>) {
    let mut pending = Pending::default();
    let mut failing_since: Option<Instant> = None;
    let mut earliest = Instant::now();
    loop {
        sleep_until(earliest).await;
        let mut group = Vec::new();
        let open = if pending.is_empty() {
            queue.recv_many(&mut group, usize::MAX).await > 0
        } else {
            tokio::select! {
                received = queue.recv_many(&mut group, usize::MAX) => received > 0,
                () = sleep(RETRY_EVERY) => true,
            }
        };
        let last = !open || group.iter().any(|write| write.last);
        let (batches, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().map(|write| (write.batch, write.done)).unzip();
        batches.into_iter().for_each(|batch| pending.add(batch));
        if !pending.is_empty() {
            let started = Instant::now();
            earliest = started + COMMIT_EVERY;
            let outcome = backend.write(pending.batch()).await;
            histogram!("wxtokend_store_commit_duration_seconds").record(started.elapsed());
            match outcome {
                Ok(()) => {
                    if let Some(since) = failing_since.take() {
                        let outage_s = since.elapsed().as_secs();
                        info!(
                            event = "store_recovered",
                            records = pending.records.len(),
                            outage_s,
                            "the store takes writes again"
                        );
                    }
                    pending = Pending::default();
                    waiting.into_iter().for_each(|done| drop(done.send(Ok(()))));
                }
                Err(failure) => {
                    failing_since.get_or_insert(started);
                    counter!("wxtokend_store_errors_total").increment(1);
                    error!(
                        event = "store_failed",
                        error = chain(&failure),
                        unwritten = pending.records.len(),
                        "the store cannot be written: tokens are served from memory, and a crash now would forget \
                         them and what was spent of the budgets; free the disk or mend its permissions"
                    );
                    let failure = Arc::new(failure);
                    waiting.into_iter().for_each(|done| drop(done.send(Err(Arc::clone(&failure)))));
                }
            }
        }
        if last {
            return;
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
