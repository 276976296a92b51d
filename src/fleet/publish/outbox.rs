//! What is to be written to one Redis.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wxtokend_core::ticket::Credential;

use crate::config::{Grants, Sink};

/// What one sink's task has to see to. It holds what has changed, not what it has become: a Redis that
/// is down for hours costs no memory.
pub(crate) struct Outbox {
    pub(crate) sink: Sink,
    pub(crate) accounts: ArcSwap<Grants>,
    pub(crate) stop: CancellationToken,
    pub(crate) told: Notify,
    news: Mutex<ChangedCredentials>,
    pub(crate) tally: SinkTally,
}

/// Which tokens and tickets have changed.
#[derive(Default)]
pub(crate) struct ChangedCredentials {
    pub(crate) of_all: bool,
    pub(crate) of: HashSet<Credential>,
}

/// How a sink is doing.
#[derive(Default)]
pub(crate) struct SinkTally {
    pub(crate) up: AtomicBool,
    /// Accounts whose keys were written or taken back.
    pub(crate) written: AtomicU64,
    /// Those for which that failed.
    pub(crate) failed: AtomicU64,
    /// Those whose keys somebody else had changed.
    pub(crate) drifted: AtomicU64,
    /// Those that have changed, and Redis has not heard of it.
    pub(crate) pending: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new(sink: &Sink) -> Self {
        Self {
            accounts: ArcSwap::from_pointee(sink.accounts.clone()),
            sink: sink.clone(),
            stop: CancellationToken::new(),
            told: Notify::new(),
            news: Mutex::new(ChangedCredentials { of_all: true, ..ChangedCredentials::default() }),
            tally: SinkTally::default(),
        }
    }

    /// What logs and metrics call it.
    pub(crate) fn name(&self) -> &str {
        &self.sink.name
    }

    /// Whatever is known of the accounts is to be looked at again.
    pub(crate) fn note_all(&self) {
        self.lock().of_all = true;
        self.told.notify_one();
    }

    /// One of them is to be looked at again.
    pub(crate) fn note(&self, credential: &Credential) {
        self.lock().of.insert(credential.clone());
        self.told.notify_one();
    }

    pub(crate) fn take_news(&self) -> ChangedCredentials {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn count(counter: &AtomicU64, more: usize) {
        counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, ChangedCredentials> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
