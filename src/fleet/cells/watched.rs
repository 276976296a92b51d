//! A value that can be read and waited for: one immutable value at a time, swapped atomically.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use wxtokend_core::clock::{Clock, Moment};

/// Written by one actor, read by any number of readers.
pub(crate) struct Watched<T> {
    value: ArcSwap<T>,
    changed: Notify,
    gone: AtomicBool,
}

/// How far the attempts to improve a value have got; shows whether waiting is worthwhile.
pub(crate) struct Progress {
    pub(crate) attempts_ended: u64,
    pub(crate) is_busy: bool,
    pub(crate) next_at: Option<Moment>,
}

impl Progress {
    /// Whether an attempt is running or due within `timeout`.
    pub(crate) fn is_soon(&self, now: Moment, timeout: Duration) -> bool {
        self.is_busy || self.next_at.is_some_and(|at| at.until(now) <= timeout)
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ArcSwap::from_pointee(value), changed: Notify::new(), gone: AtomicBool::new(false) }
    }

    /// The current value.
    pub(crate) fn load(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// What `read` returns for the current value. No lock, no allocation, no wait.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.value.load())
    }

    /// Replaces what readers see, and wakes those that wait.
    pub(crate) fn store(&self, value: T) {
        self.value.store(Arc::new(value));
        self.changed.notify_waiters();
    }

    /// Sets whether the value is gone, so that there is nothing left to wait for.
    pub(crate) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Waits for the next publication after `find` was called, or until `deadline`, as long as `find` returns
    /// `None`. `None` at once when the value is gone.
    pub(crate) async fn wait_until<R>(
        &self,
        deadline: Instant,
        mut find: impl FnMut(&Arc<T>) -> Option<R>,
    ) -> Option<R> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before `find`, so that a publication in between is not missed.
            changed.as_mut().enable();
            if let Some(found) = find(&self.load()) {
                return Some(found);
            }
            if self.is_gone() {
                return None;
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// Returns what `read` finds, waiting for an attempt that is running or due within `timeout`. The wait is
    /// at most `timeout` + 1 s.
    ///
    /// All waiting readers share how that attempt ends, failures included; none of them starts one.
    ///
    /// # Errors
    /// The value in which there was nothing to read.
    pub(crate) async fn read_or_wait<R>(
        &self,
        clock: &Clock,
        timeout: Duration,
        read: impl Fn(&T, Moment) -> Option<R>,
        progress: impl Fn(&T) -> Progress,
    ) -> Result<R, Arc<T>> {
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        let mut attempts_before = None;
        let outcome = self.wait_until(deadline, |value| {
            let now = clock.now();
            if let Some(found) = read(value, now) {
                return Some(Ok(found));
            }
            let progress = progress(value);
            let ended = progress.attempts_ended != *attempts_before.get_or_insert(progress.attempts_ended);
            (ended || !progress.is_soon(now, timeout)).then(|| Err(Arc::clone(value)))
        });
        outcome.await.unwrap_or_else(|| Err(self.load()))
    }
}
