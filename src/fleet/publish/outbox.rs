//! What must be written to one Redis.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wxtokend_core::ticket::Credential;

use crate::config::{Grants, Sink};

/// The work list of one sink's task. It holds which credentials have changed, not their values, so that a
/// Redis that is down for hours costs no memory.
pub(crate) struct Outbox {
    pub(crate) sink: Sink,
    pub(crate) accounts: ArcSwap<Grants>,
    pub(crate) stop: CancellationToken,
    pub(crate) changed: Notify,
    changes: Mutex<ChangedCredentials>,
    pub(crate) tally: SinkTally,
}

/// Which tokens and tickets have changed.
#[derive(Default)]
pub(crate) struct ChangedCredentials {
    pub(crate) of_all: bool,
    pub(crate) of: HashSet<Credential>,
}

/// The counters of a sink.
#[derive(Default)]
pub(crate) struct SinkTally {
    pub(crate) up: AtomicBool,
    /// Accounts whose keys were written or deleted.
    pub(crate) written: AtomicU64,
    /// Accounts for which that failed.
    pub(crate) failed: AtomicU64,
    /// Accounts whose keys another program had changed.
    pub(crate) drifted: AtomicU64,
    /// Accounts that have changed and are not written yet.
    pub(crate) pending: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new(sink: &Sink) -> Self {
        Self {
            accounts: ArcSwap::from_pointee(sink.accounts.clone()),
            sink: sink.clone(),
            stop: CancellationToken::new(),
            changed: Notify::new(),
            changes: Mutex::new(ChangedCredentials { of_all: true, ..ChangedCredentials::default() }),
            tally: SinkTally::default(),
        }
    }

    /// Its name in logs and metrics.
    pub(crate) fn name(&self) -> &str {
        &self.sink.name
    }

    /// Marks all accounts as changed.
    pub(crate) fn note_all(&self) {
        self.lock().of_all = true;
        self.changed.notify_one();
    }

    /// Marks one credential as changed.
    pub(crate) fn note(&self, credential: &Credential) {
        self.lock().of.insert(credential.clone());
        self.changed.notify_one();
    }

    pub(crate) fn take_changes(&self) -> ChangedCredentials {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn count(counter: &AtomicU64, more: usize) {
        counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, ChangedCredentials> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
