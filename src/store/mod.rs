//! The store: what survives the process. Each account's token, version, budget and intents, and its tickets'
//! state.
//!
//! A caller submits an account's whole state and waits until it is on disk. All that is submitted while one
//! transaction is being written goes into the next, so a cold start of 10 000 accounts is a few hundred syncs
//! and not 20 000. When the disk fails, the caller gets an error and continues; what could not be written is
//! kept, as the newest state of each account, and retried until it is: after 2 s, then less often, down to
//! once a minute. A file that was deleted is rewritten from memory.

mod backend;
mod error;
#[cfg(test)]
pub(crate) mod memory;
mod null;
mod queue;
pub mod record;
mod redb;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

pub use backend::{Backend, Batch, Contents, Writing};
pub use error::StoreError;
pub(crate) use null::NullBackend;
use queue::WriteQueue;
use record::{Reading, Record};
pub use redb::RedbBackend;
#[cfg(any(feature = "daemon", feature = "internals"))]
pub use redb::is_reading;
pub(crate) use stored::Stored;
use wxtokend_core::account::Appid;
use wxtokend_core::clock::Clock;
use wxtokend_core::ticket::{Credential, TicketState};
use wxtokend_core::token::state::AccountState;

use writer::StoreWriter;

/// An opened store and its contents.
pub(crate) struct Opened {
    /// The store.
    pub store: StoreHandle,
    /// What is known, converted to the clocks of this boot, except what is `withheld`.
    pub stored: Stored,
    /// What another boot has written of tokens and tickets that may live, on that boot's clocks. Only the
    /// wall clock shows its age, and a reboot may have set that wrong: it must be [`Stored::rebased`] and
    /// [`StoreHandle::rewrite`]ed.
    pub withheld: Stored,
}

/// A handle to the writer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    handle: Arc<WriterGuard>,
    clock: Clock,
}

/// The writer ends when the last handle is dropped.
struct WriterGuard(Arc<WriteQueue>);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.last_handle_dropped();
    }
}

impl StoreHandle {
    /// Reads everything and starts the writer. When none of the hosts that the tokens came from is among
    /// `hosts`, the tokens are erased; versions and budgets are kept.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed then.
    pub(crate) async fn open(
        backend: Arc<dyn Backend>,
        hosts: Vec<String>,
        clock: Clock,
    ) -> Result<Opened, StoreError> {
        let contents = backend.load()?;
        let now = clock.now();
        let other_upstream = !contents.hosts.is_empty() && !is_one_upstream(&contents.hosts, &hosts);
        let boot = clock.boot_id();
        let (mut stored, mut withheld) = (Stored::default(), Stored::default());
        let mut converted = Vec::new();
        let reading = Reading { boot, now, other_upstream };
        for (of, bytes) in contents.records {
            let damaged = |what: String| {
                let path = backend.path().display().to_string();
                StoreError::Damaged { path, what: format!("{of}: {what}") }
            };
            let record = if of.ticket.is_none() {
                let read = reading.of(&bytes).map_err(damaged)?;
                withheld.accounts.extend(read.withheld.map(|state| (of.appid.clone(), state)));
                stored.accounts.insert(of.appid.clone(), read.state);
                read.converted
            } else {
                let read = reading.of(&bytes).map_err(damaged)?;
                withheld.tickets.extend(read.withheld.map(|state| (of.clone(), state)));
                stored.tickets.insert(of.clone(), read.state);
                read.converted
            };
            converted.extend(record.map(|record| (of, record)));
        }
        if contents.hosts != hosts {
            let erased = if other_upstream { stored.encoded(boot) } else { Vec::new() };
            backend.write(Batch { records: erased, hosts: Some(hosts.clone()) }).await?;
        }
        let queue = Arc::new(WriteQueue::default());
        // It ends with `close`, or with the last handle.
        tokio::spawn(StoreWriter::new(Arc::clone(&queue), backend, hosts, boot).run());
        // At once: the wall clock connects two boots, and it may jump before this boot's next start.
        queue.submit(Batch { records: converted, hosts: None });
        Ok(Opened { store: Self { handle: Arc::new(WriterGuard(queue)), clock }, stored, withheld })
    }

    /// Writes `all`, which another boot had written, on this boot's clocks, before anything else of the same
    /// accounts. Does not wait for the disk.
    pub(crate) fn rewrite(&self, all: &Stored) {
        self.handle.0.submit(Batch { records: all.encoded(self.clock.boot_id()), hosts: None });
    }

    /// Sets the source from which a deleted store is rewritten; it returns `None` while the program stops.
    pub(crate) fn keep_source(&self, everything: impl Fn() -> Option<Stored> + Send + Sync + 'static) {
        self.handle.0.keep_source(Box::new(everything));
    }

    /// How many times the upstream was replaced; a [`StoreHandle::commit`] says by this count which upstream its
    /// token is of.
    #[must_use]
    pub(crate) fn upstream(&self) -> u64 {
        self.handle.0.upstream()
    }

    /// Returns when `state`, whose token is of upstream number `upstream`, is on disk. If the upstream was
    /// replaced meanwhile, the state is stored without the token.
    ///
    /// # Errors
    /// When it is not on disk yet: it is kept and retried, and the caller continues with what memory holds.
    pub(crate) async fn commit(
        &self,
        appid: &Appid,
        state: &AccountState,
        upstream: u64,
    ) -> Result<(), Arc<StoreError>> {
        self.commit_record(Credential::token(appid.clone()), state, upstream).await
    }

    /// [`StoreHandle::commit`] for a ticket.
    ///
    /// # Errors
    /// As [`StoreHandle::commit`].
    pub(crate) async fn commit_ticket(
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
        let batch = |waiting: &mut queue::QueueInner| {
            let is_of_another = upstream != waiting.upstream;
            let record = if is_of_another { record::encode(&state.forgotten(), boot) } else { record };
            Batch { records: vec![(of, record)], hosts: None }
        };
        self.handle.0.write(batch).await
    }

    /// Stores the hosts that tokens come from.
    ///
    /// # Errors
    /// As [`StoreHandle::commit`].
    pub(crate) async fn set_hosts(&self, hosts: Vec<String>) -> Result<(), Arc<StoreError>> {
        self.handle.0.write(|_| Batch { records: Vec::new(), hosts: Some(hosts) }).await
    }

    /// Replaces the upstream: stores its hosts and erases the tokens of `all`, in one transaction.
    ///
    /// What is submitted later with a token of the previous upstream is stored without it.
    ///
    /// # Errors
    /// As [`StoreHandle::commit`].
    pub(crate) async fn exchange(&self, hosts: Vec<String>, all: &Stored) -> Result<(), Arc<StoreError>> {
        let records = all.forgotten().encoded(self.clock.boot_id());
        let batch = |waiting: &mut queue::QueueInner| {
            waiting.upstream += 1;
            Batch { records, hosts: Some(hosts) }
        };
        self.handle.0.write(batch).await
    }

    /// [`StoreHandle::commit`] for many accounts and tickets at once.
    ///
    /// # Errors
    /// As [`StoreHandle::commit`].
    pub(crate) async fn commit_all(&self, all: &Stored) -> Result<(), Arc<StoreError>> {
        let records = all.encoded(self.clock.boot_id());
        self.handle.0.write(|_| Batch { records, hosts: None }).await
    }

    /// How many records wait for the disk, and how many callers.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.handle.0.len()
    }

    /// Ends the writer after a last write of what is still pending.
    pub(crate) async fn close(&self) {
        self.handle.0.close().await;
    }
}

/// Whether tokens that came from the hosts `before` are valid at `now`: the lists share a host, path
/// included. A name without a path is from a store that earlier versions have written, and matches any path.
pub(crate) fn is_one_upstream(before: &[String], now: &[String]) -> bool {
    let is_same = |before: &String, now: &String| {
        before == now || now.split_once('/').is_some_and(|(host, _path)| host == before)
    };
    before.iter().any(|before| now.iter().any(|now| is_same(before, now)))
}
