//! Sits between redb and the file: records failed syncs, and can cut redb off from a replaced file.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

/// The file as redb sees it.
#[derive(Debug)]
pub(super) struct GatedFile<S> {
    storage: S,
    gate: Arc<FileGate>,
}

/// The state that is shared with the store outside redb.
#[derive(Debug, Default)]
pub(super) struct FileGate {
    sync_failed: AtomicBool,
    shut: AtomicBool,
}

impl FileGate {
    /// Whether the system may show what never reached the disk.
    pub(super) fn has_sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::SeqCst)
    }

    /// Stops all reads and writes by redb, so that closing it, which would write, changes nothing.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }
}

impl<S> GatedFile<S> {
    pub(super) fn new(storage: S) -> (Self, Arc<FileGate>) {
        let gate = Arc::<FileGate>::default();
        (Self { storage, gate: Arc::clone(&gate) }, gate)
    }

    fn open(&self) -> io::Result<&S> {
        if self.gate.shut.load(Ordering::SeqCst) {
            return Err(io::Error::other("the file is not ours any more"));
        }
        Ok(&self.storage)
    }
}

impl<S: StorageBackend> StorageBackend for GatedFile<S> {
    fn len(&self) -> io::Result<u64> {
        self.open()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.open()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.open()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.open()?.sync_data();
        self.gate.sync_failed.fetch_or(synced.is_err(), Ordering::SeqCst);
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.open()?.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}
