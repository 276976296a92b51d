//! A disk for tests: keeps what is written, and fails on request.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use wxtokend_core::account::Appid;
use wxtokend_core::ticket::{Credential, TicketKind};

use super::{Backend, Batch, Contents, StoreError};

/// Outlives the fleet that uses it, as a file does.
#[derive(Default)]
pub(crate) struct MemoryBackend {
    records: Mutex<BTreeMap<Credential, Vec<u8>>>,
    hosts: Mutex<Vec<String>>,
    pub(crate) full: AtomicBool,
    /// Whether writes neither end nor fail.
    pub(crate) hangs: AtomicBool,
    pub(crate) commits: AtomicUsize,
    /// How many boundaries the process has reached, and the one at which it dies; 0 for none.
    passed: AtomicUsize,
    cut_at: AtomicUsize,
    cut: Notify,
}

impl MemoryBackend {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes the process die at the `n`-th boundary from here; 0 for none.
    pub(crate) fn cut_after(&self, n: usize) {
        let at = if n == 0 { 0 } else { self.passed.load(Ordering::SeqCst) + n };
        self.cut_at.store(at, Ordering::SeqCst);
    }

    /// A point right before or after each write and each call. For a process that dies there it never
    /// returns.
    pub(crate) async fn boundary(&self) {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        let cut_at = self.cut_at.load(Ordering::SeqCst);
        if passed == cut_at {
            self.cut.notify_one();
        }
        if cut_at != 0 && passed >= cut_at {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn until_cut(&self) {
        self.cut.notified().await;
    }

    /// The record of an account, as text.
    pub(crate) fn record(&self, appid: &str) -> String {
        self.record_of(&Credential::token(Appid::new(appid).unwrap()))
    }

    /// The record of a ticket, as text.
    pub(crate) fn ticket_record(&self, appid: &str, kind: TicketKind) -> String {
        self.record_of(&Credential::ticket(Appid::new(appid).unwrap(), kind))
    }

    fn record_of(&self, of: &Credential) -> String {
        let records = self.records.lock().unwrap();
        records.get(of).map(|record| String::from_utf8_lossy(record).into_owned()).unwrap_or_default()
    }
}

impl Backend for Arc<MemoryBackend> {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn load(&self) -> Result<Contents, StoreError> {
        Ok(Contents {
            records: self.records.lock().unwrap().clone(),
            hosts: self.hosts.lock().unwrap().clone(),
        })
    }

    fn write(&self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        let disk = Arc::clone(self);
        Box::pin(async move {
            // A sync takes a while, during which others queue up.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            while disk.hangs.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            if disk.full.load(Ordering::SeqCst) {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(StoreError::io("write to", Path::new("memory"), source));
            }
            disk.boundary().await;
            disk.commits.fetch_add(1, Ordering::SeqCst);
            disk.records.lock().unwrap().extend(batch.records);
            if let Some(hosts) = batch.hosts {
                *disk.hosts.lock().unwrap() = hosts;
            }
            disk.boundary().await;
            Ok(())
        })
    }
}
