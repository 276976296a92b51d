//! An open store, and whether it is still the file at its path.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::error::{reading, replaced};
use super::gated_file::{FileGate, GatedFile};
use crate::store::StoreError;

/// The file is read through once and pages are rarely written; redb's default of 1 GiB suits other uses.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Each commit changes the head of the file, which shows which commit was the last.
const HEAD_BYTES: usize = 512;

/// The open file.
#[derive(Debug)]
pub(super) struct Open {
    database: Option<Database>,
    gate: Arc<FileGate>,
    /// A second handle to the file, for checks.
    file: File,
    /// The head as we last wrote it.
    head: Vec<u8>,
}

impl Open {
    /// Has redb open `file`.
    pub(super) fn new<S: StorageBackend>(
        file: File,
        open_file: &impl Fn(File) -> Result<S, DatabaseError>,
    ) -> Result<Self, DatabaseError> {
        let handed_over = file.try_clone().map_err(redb::StorageError::Io)?;
        let (storage, gate) = GatedFile::new(open_file(handed_over)?);
        let database = database_on(storage)?;
        let mut open = Self { database: Some(database), gate, file, head: Vec::new() };
        open.note_head().map_err(redb::StorageError::Io)?;
        Ok(open)
    }

    pub(super) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Remembers the head of the file after a write of ours.
    pub(super) fn note_head(&mut self) -> io::Result<()> {
        self.head = head_of(&self.file)?;
        Ok(())
    }

    /// Identifies the file, whatever its name.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        Ok(identity_of(&self.file.metadata()?))
    }

    /// Whether it is still the file at `path`, as we left it.
    pub(super) fn is_in_place(&self, path: &Path) -> Result<(), StoreError> {
        let there = at(path)?;
        let failed = |error| StoreError::io("check", path, error);
        if identity_of(&there) != self.identity().map_err(failed)? {
            return Err(replaced(path, "another file is in its place"));
        }
        if !self.is_as_we_left_it() {
            return Err(replaced(path, "somebody else has written to it"));
        }
        Ok(())
    }

    fn is_as_we_left_it(&self) -> bool {
        head_of(&self.file).is_ok_and(|head| head == self.head)
    }

    /// Closes the store. Returns whether the system may show what never reached the disk.
    pub(super) fn close(mut self) -> bool {
        self.end();
        self.gate.has_sync_failed()
    }

    /// Closes redb. That writes, and may meet damage that no read has met; what another program has written
    /// is left as it is.
    fn end(&mut self) {
        if !self.is_as_we_left_it() {
            self.gate.shut();
        }
        let _ = reading(|| drop(self.database.take()));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.database.is_some() {
            self.end();
        }
    }
}

pub(super) fn database_on(storage: impl StorageBackend) -> Result<Database, DatabaseError> {
    builder().create_with_backend(storage)
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The metadata of the file at `path`; [`StoreError::Gone`] where there is none or it is empty.
pub(super) fn at(path: &Path) -> Result<Metadata, StoreError> {
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(replaced(path, "what is in its place is no regular file")),
        Ok(there) if there.len() == 0 => Err(StoreError::Gone(path.to_owned())),
        Ok(there) => Ok(there),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Gone(path.to_owned())),
        Err(error) => Err(StoreError::io("check", path, error)),
    }
}

pub(super) fn identity_of(file: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    return (std::os::unix::fs::MetadataExt::dev(file), std::os::unix::fs::MetadataExt::ino(file));
    #[cfg(not(unix))]
    return (0, 0);
}

fn head_of(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    #[cfg(unix)]
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0)?;
    Ok(head)
}
