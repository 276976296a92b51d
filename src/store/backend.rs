//! The edge of the process towards the disk: records in, records out, and nothing known of what they hold.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use wxtokend_core::ticket::Credential;

use super::error::StoreError;

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

/// One transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Encoded records by what they are of.
    pub records: Vec<(Credential, Vec<u8>)>,
    /// New hosts, where they have changed.
    pub hosts: Option<Vec<String>>,
}
