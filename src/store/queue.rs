//! What waits for the disk: the newest record of each credential, and the callers that wait for the write.
//!
//! A disk that hangs without an error must cost neither memory nor time: a newer record replaces an older
//! one, and once a write has taken too long no caller waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::counter;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use wxtokend_core::reference::metrics::STORE_ERRORS;
use wxtokend_core::ticket::Credential;

use super::backend::Batch;
use super::error::{SLOWEST_COMMIT, StoreError};
use super::stored::Stored;

/// How a write ended.
pub(super) type WriteResult = Result<(), Arc<StoreError>>;

/// Returns all that memory holds; `None` while the program stops.
type Everything = Box<dyn Fn() -> Option<Stored> + Send + Sync>;

/// Shared by the handles and the writer.
#[derive(Default)]
pub(super) struct WriteQueue {
    waiting: Mutex<QueueInner>,
    changed: Notify,
    everything: OnceLock<Everything>,
}

#[derive(Default)]
pub(super) struct QueueInner {
    pending: Unwritten,
    callers: Vec<oneshot::Sender<WriteResult>>,
    /// Why writes fail at present; callers get this at once.
    failing: Option<Arc<StoreError>>,
    /// How many times the upstream was replaced.
    pub(super) upstream: u64,
    last: bool,
    closed: bool,
}

/// What is not on disk yet: the newest state of each account and ticket.
#[derive(Default)]
pub(super) struct Unwritten {
    /// Sorted, which suits the B-tree on disk best.
    pub(super) records: BTreeMap<Credential, Vec<u8>>,
    pub(super) hosts: Option<Vec<String>>,
}

/// What the writer takes at a time.
pub(super) struct WriteGroup {
    pub(super) pending: Unwritten,
    pub(super) callers: Vec<oneshot::Sender<WriteResult>>,
    /// Nothing comes after this.
    pub(super) last: bool,
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.hosts.is_none()
    }

    fn add(&mut self, batch: Batch) {
        self.records.extend(batch.records);
        self.hosts = batch.hosts.or(self.hosts.take());
    }

    /// Adds older records where there is no newer one.
    fn add_older(&mut self, older: Self) {
        for (of, record) in older.records {
            self.records.entry(of).or_insert(record);
        }
        self.hosts = self.hosts.take().or(older.hosts);
    }

    pub(super) fn batch(&self) -> Batch {
        let records = self.records.iter().map(|(of, record)| (of.clone(), record.clone())).collect();
        Batch { records, hosts: self.hosts.clone() }
    }
}

impl WriteQueue {
    /// Returns when the batch that `batch` builds is on disk.
    pub(super) async fn write(&self, batch: impl FnOnce(&mut QueueInner) -> Batch) -> WriteResult {
        let written = {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(Arc::new(StoreError::Closed));
            }
            let batch = batch(&mut waiting);
            waiting.pending.add(batch);
            if let Some(failing) = &waiting.failing {
                return Err(Arc::clone(failing));
            }
            if waiting.pending.is_empty() {
                return Ok(());
            }
            waiting.wait()
        };
        self.changed.notify_one();
        wait_bounded(written).await
    }

    /// Submits `batch` without waiting for it.
    pub(super) fn submit(&self, batch: Batch) {
        self.lock().pending.add(batch);
        self.changed.notify_one();
    }

    /// Has the writer write what is pending once more, and end.
    pub(super) async fn close(&self) {
        let written = {
            let mut waiting = self.lock();
            waiting.last = true;
            // Waiting for a disk that hangs would be in vain.
            let hangs = matches!(waiting.failing.as_deref(), Some(StoreError::Slow));
            (!hangs && !waiting.closed).then(|| waiting.wait())
        };
        self.changed.notify_one();
        if let Some(written) = written {
            let _ = wait_bounded(written).await;
        }
    }

    /// Sets the source of all that memory holds.
    pub(super) fn keep_source(&self, everything: Everything) {
        let _ = self.everything.set(everything);
    }

    pub(super) fn everything(&self) -> Option<Stored> {
        self.everything.get()?()
    }

    /// How many times the upstream was replaced.
    pub(super) fn upstream(&self) -> u64 {
        self.lock().upstream
    }

    /// Waits for something to write, unless writing `fails` at present, and at most until `wake_at`.
    pub(super) async fn until_due(&self, wake_at: Option<Instant>, fails: bool) {
        loop {
            {
                let waiting = self.lock();
                let is_asked = !waiting.pending.is_empty() || !waiting.callers.is_empty();
                if waiting.last || (is_asked && !fails) {
                    return;
                }
            }
            let alarm = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = alarm => return,
            }
        }
    }

    pub(super) fn take(&self) -> WriteGroup {
        let mut waiting = self.lock();
        WriteGroup {
            pending: std::mem::take(&mut waiting.pending),
            callers: std::mem::take(&mut waiting.callers),
            last: waiting.last,
        }
    }

    /// Puts back what was not written, below what is newer; all callers from now on get the reason.
    pub(super) fn put_back(&self, older: Unwritten, why: &Arc<StoreError>) {
        self.lock().pending.add_older(older);
        self.fail(why);
    }

    /// Fails all waiting callers, and all later ones until a write succeeds.
    pub(super) fn fail(&self, why: &Arc<StoreError>) {
        let callers = {
            let mut waiting = self.lock();
            waiting.failing = Some(Arc::clone(why));
            std::mem::take(&mut waiting.callers)
        };
        callers.into_iter().for_each(|caller| drop(caller.send(Err(Arc::clone(why)))));
    }

    pub(super) fn mark_healthy(&self) {
        self.lock().failing = None;
    }

    /// The writer has ended.
    pub(super) fn closed(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.callers.clear();
    }

    /// The last handle was dropped: nothing more will be submitted.
    pub(super) fn last_handle_dropped(&self) {
        self.lock().last = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, QueueInner> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records wait, and how many callers.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.pending.records.len(), waiting.callers.len())
    }
}

impl QueueInner {
    fn wait(&mut self) -> oneshot::Receiver<WriteResult> {
        if self.callers.len() == self.callers.capacity() {
            // Callers that have given up are removed, so that this does not grow with time.
            self.callers.retain(|caller| !caller.is_closed());
            self.callers.reserve(self.callers.len().max(16));
        }
        let (done, written) = oneshot::channel();
        self.callers.push(done);
        written
    }
}

/// Waits for a write, but no longer than serving may wait for a disk.
async fn wait_bounded(written: oneshot::Receiver<WriteResult>) -> WriteResult {
    match timeout(SLOWEST_COMMIT, written).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_gone)) => Err(Arc::new(StoreError::Closed)),
        Err(_elapsed) => {
            counter!(STORE_ERRORS.name).increment(1);
            Err(Arc::new(StoreError::Slow))
        }
    }
}
