//! The edge of the process towards the disk: stores and returns encoded records without knowing what they
//! hold.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use wxtokend_core::ticket::Credential;

use super::error::StoreError;

/// A write in progress.
pub type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Where records are kept.
pub trait Backend: Send + Sync + 'static {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// Reads everything that is stored.
    ///
    /// # Errors
    /// When the file is damaged or not ours; nothing is changed then.
    fn load(&self) -> Result<Contents, StoreError>;

    /// Writes `batch` whole or not at all, and returns when it is on disk.
    fn write(&self, batch: Batch) -> Writing;

    /// How often to [`Backend::look`]; `None` where no other program can reach what is stored.
    fn look_every(&self) -> Option<Duration> {
        None
    }

    /// Checks that what was written is where the next start looks for it.
    fn look(&self) -> Writing {
        Box::pin(async { Ok(()) })
    }

    /// Creates a store of `all` where the previous one is gone: [`StoreError::Gone`]. Anything that has
    /// appeared there meanwhile is left alone.
    fn write_anew(&self, all: Batch) -> Writing {
        self.write(all)
    }
}

/// What a [`Backend`] holds: encoded records, and the upstream's hosts.
#[derive(Debug, Default)]
pub struct Contents {
    /// Encoded records by credential.
    pub records: BTreeMap<Credential, Vec<u8>>,
    /// The hosts that these tokens come from.
    pub hosts: Vec<String>,
}

/// One transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Encoded records by credential.
    pub records: Vec<(Credential, Vec<u8>)>,
    /// The new hosts, if they have changed.
    pub hosts: Option<Vec<String>>,
}
