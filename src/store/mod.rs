//! What survives the process: each account's token, version, budget and intents, and the like of its tickets.
//!
//! A caller hands in an account's whole state and waits until it is on disk. All that is handed in while one
//! transaction is being written goes into the next, so a cold start of 10 000 accounts is a few hundred syncs and
//! not 20 000. When the disk fails the caller is told and goes on; what could not be written is kept, newest
//! state of each account, and tried again until it is: after 2 s, then less often, down to once a minute. A file
//! that was deleted is written anew from what memory holds.

mod error;
#[cfg(test)]
pub(crate) mod memory;
mod queue;
pub mod record;
mod redb;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Appid;
use crate::clock::{Clock, Moment};
use crate::state::AccountState;
use crate::ticket::{Credential, TicketState};
pub use error::StoreError;
use queue::Queue;
use record::{Reading, Record};
pub use redb::{RedbBackend, is_reading};
use writer::Writer;

/// A disk that takes longer than this counts as failed: serving must not wait for it.
const SLOWEST_COMMIT: Duration = Duration::from_secs(5);

/// A write under way.
pub type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

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
    fn write(&self, batch: Batch) -> Writing;

    /// How often to [`Backend::look`]; `None` where nobody else gets at what is stored.
    fn look_every(&self) -> Option<Duration> {
        None
    }

    /// Whether what was written stands where the next start looks for it.
    fn look(&self) -> Writing {
        Box::pin(async { Ok(()) })
    }

    /// Makes a store of `all` where the last one is gone: [`StoreError::Gone`]. Whatever has come into being there
    /// meanwhile is left alone.
    fn write_anew(&self, all: Batch) -> Writing {
        self.write(all)
    }
}

/// What a [`Backend`] holds: encoded records, and the upstream's hosts.
#[derive(Debug, Default)]
pub struct Contents {
    /// Encoded records by what they are of.
    pub records: BTreeMap<Credential, Vec<u8>>,
    /// The hosts whose tokens these are.
    pub hosts: Vec<String>,
}

/// What is known of accounts and tickets.
#[derive(Debug, Default)]
pub struct Stored {
    /// By appid.
    pub accounts: BTreeMap<Appid, AccountState>,
    /// By whose they are and of which kind.
    pub tickets: BTreeMap<Credential, TicketState>,
}

/// A store that was opened, and what it holds.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What is known, told on the clocks of this boot; without what is `withheld`.
    pub stored: Stored,
    /// What another boot has written of a token or ticket that may live, told on that one's clocks. How old it is only
    /// the wall clock tells, which a reboot may have set wrong: it is to be [`Stored::rebased`] and [`Store::retell`]ed.
    pub withheld: Stored,
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
    handle: Arc<Handle>,
    clock: Clock,
}

/// The writer ends with the last of them.
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.is_left();
    }
}

impl Stored {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.tickets.is_empty()
    }

    /// What all this is of.
    pub fn credentials(&self) -> impl Iterator<Item = Credential> {
        let accounts = self.accounts.keys().cloned().map(Credential::token);
        accounts.chain(self.tickets.keys().cloned())
    }

    /// The same without the tokens and tickets.
    fn forgotten(&self) -> Self {
        let accounts = self.accounts.iter().map(|(appid, state)| (appid.clone(), state.forgotten()));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), state.forgotten()));
        Self { accounts: accounts.collect(), tickets: tickets.collect() }
    }

    /// The same told on the clocks of this boot, at which it is `now`. The time is later than the wall clock tells by
    /// `later_ms` at least and at most: tokens, of which nobody knows too early that they have ended, are judged by the
    /// latest, tickets by the earliest, since one that seems to have ended and comes again is of unknown age. What was spent
    /// is judged by the wall clock as it is, so that a wrong `Date` frees no budget.
    #[must_use]
    pub fn rebased(self, now: Moment, (at_least_ms, at_most_ms): (i64, i64)) -> Self {
        let later = |by_ms| Moment { wall_ms: now.wall_ms.saturating_add(by_ms), ..now };
        let accounts = self.accounts.into_iter().map(|(appid, state)| {
            let ledger = state.ledger.rebased(now);
            (appid, AccountState { ledger, ..state.rebased(later(at_most_ms)) })
        });
        let tickets = self.tickets.into_iter().map(|(of, state)| {
            let ledger = state.ledger.rebased(now);
            (of, TicketState { ledger, ..state.rebased(later(at_least_ms)) })
        });
        Self { accounts: accounts.collect(), tickets: tickets.collect() }
    }

    fn encoded(&self, boot: &str) -> Vec<(Credential, Vec<u8>)> {
        let accounts = self.accounts.iter();
        let accounts =
            accounts.map(|(appid, state)| (Credential::token(appid.clone()), record::encode(state, boot)));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), record::encode(state, boot)));
        accounts.chain(tickets).collect()
    }
}

impl Store {
    /// Reads everything and starts the writer. When none of the hosts that the tokens came from is among `hosts`, they are
    /// erased; versions and budgets are kept.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed then.
    pub async fn open(
        backend: Arc<dyn Backend>,
        hosts: Vec<String>,
        clock: Clock,
    ) -> Result<Opened, StoreError> {
        let contents = backend.load()?;
        let now = clock.now();
        let elsewhere = !contents.hosts.is_empty() && !is_one_upstream(&contents.hosts, &hosts);
        let boot = clock.boot_id();
        let (mut stored, mut withheld) = (Stored::default(), Stored::default());
        let mut retold = Vec::new();
        let reading = Reading { boot, now, elsewhere };
        for (of, bytes) in contents.records {
            let damaged = |what: String| {
                let path = backend.path().display().to_string();
                StoreError::Damaged { path, what: format!("{of}: {what}") }
            };
            let record = if of.ticket.is_none() {
                let read = reading.of(&bytes).map_err(damaged)?;
                withheld.accounts.extend(read.withheld.map(|state| (of.appid.clone(), state)));
                stored.accounts.insert(of.appid.clone(), read.state);
                read.retold
            } else {
                let read = reading.of(&bytes).map_err(damaged)?;
                withheld.tickets.extend(read.withheld.map(|state| (of.clone(), state)));
                stored.tickets.insert(of.clone(), read.state);
                read.retold
            };
            retold.extend(record.map(|record| (of, record)));
        }
        if contents.hosts != hosts {
            let erased = if elsewhere { stored.encoded(boot) } else { Vec::new() };
            backend.write(Batch { records: erased, hosts: Some(hosts.clone()) }).await?;
        }
        let queue = Arc::new(Queue::default());
        // It ends with `close`, or with the last handle.
        tokio::spawn(Writer::new(Arc::clone(&queue), backend, hosts, boot).run());
        // At once: the wall clock connects two boots, and it may jump before this one's next start.
        queue.hand_in(Batch { records: retold, hosts: None });
        Ok(Opened { store: Self { handle: Arc::new(Handle(queue)), clock }, stored, withheld })
    }

    /// Has `all`, which another boot had written, written on the clocks of this one, before anything else of the same
    /// accounts. Nobody waits for it.
    pub fn retell(&self, all: &Stored) {
        self.handle.0.hand_in(Batch { records: all.encoded(self.clock.boot_id()), hosts: None });
    }

    /// Has a store that is gone written anew from what `everything` returns; `None` while the program stops.
    pub fn keep_source(&self, everything: impl Fn() -> Option<Stored> + Send + Sync + 'static) {
        self.handle.0.keep_source(Box::new(everything));
    }

    /// How many times the upstream was exchanged for another: what a [`Store::commit`] says its token is of.
    #[must_use]
    pub fn upstream(&self) -> u64 {
        self.handle.0.upstream()
    }

    /// Returns when `state`, whose token is of the `upstream` of then, is on disk. If that was exchanged meanwhile, it is
    /// the state without the token.
    ///
    /// # Errors
    /// When it is not, for now: it is kept and tried again, and the caller goes on with what memory holds.
    pub async fn commit(
        &self,
        appid: &Appid,
        state: &AccountState,
        upstream: u64,
    ) -> Result<(), Arc<StoreError>> {
        self.commit_record(Credential::token(appid.clone()), state, upstream).await
    }

    /// [`Store::commit`] for a ticket.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_ticket(
        &self,
        of: &Credential,
        state: &TicketState,
        upstream: u64,
    ) -> Result<(), Arc<StoreError>> {
        self.commit_record(of.clone(), state, upstream).await
    }

    async fn commit_record(
        &self,
        of: Credential,
        state: &impl Record,
        upstream: u64,
    ) -> Result<(), Arc<StoreError>> {
        let boot = self.clock.boot_id();
        let record = record::encode(state, boot);
        let batch = |waiting: &mut queue::Waiting| {
            let is_of_another = upstream != waiting.upstream;
            let record = if is_of_another { record::encode(&state.forgotten(), boot) } else { record };
            Batch { records: vec![(of, record)], hosts: None }
        };
        self.handle.0.write(batch).await
    }

    /// Notes the hosts that tokens come from.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn set_hosts(&self, hosts: Vec<String>) -> Result<(), Arc<StoreError>> {
        self.handle.0.write(|_| Batch { records: Vec::new(), hosts: Some(hosts) }).await
    }

    /// The upstream is another one from now on: its hosts are noted, and the tokens of `all` erased, in one transaction.
    /// What is handed in later with a token of the one before is stored without it.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn exchange(&self, hosts: Vec<String>, all: &Stored) -> Result<(), Arc<StoreError>> {
        let records = all.forgotten().encoded(self.clock.boot_id());
        let batch = |waiting: &mut queue::Waiting| {
            waiting.upstream += 1;
            Batch { records, hosts: Some(hosts) }
        };
        self.handle.0.write(batch).await
    }

    /// [`Store::commit`] for many accounts and tickets at once.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_all(&self, all: &Stored) -> Result<(), Arc<StoreError>> {
        let records = all.encoded(self.clock.boot_id());
        self.handle.0.write(|_| Batch { records, hosts: None }).await
    }

    /// How many records wait for the disk, and how many callers.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.handle.0.len()
    }

    /// Ends the writer, which writes once more what it still has.
    pub async fn close(&self) {
        self.handle.0.close().await;
    }
}

/// Whether tokens that came from the hosts `before` are good at `now`: they have one in common, path and all. A name
/// without a path is that of a store which earlier versions have written, and stands for any.
pub(crate) fn is_one_upstream(before: &[String], now: &[String]) -> bool {
    let is_same = |before: &String, now: &String| {
        before == now || now.split_once('/').is_some_and(|(host, _path)| host == before)
    };
    before.iter().any(|before| now.iter().any(|now| is_same(before, now)))
}
