//! The real store: one redb file, readable by its owner only.

mod create;
mod error;
mod file;
mod gated_file;
mod new_file;
mod open;
mod tables;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

use self::create::{Created, create};
#[cfg(any(feature = "daemon", feature = "internals"))]
pub use self::error::is_reading;
use self::error::{contradictory, foreign, into_io, reading, replaced, unusable};
use self::file::{inspect, open, write_again};
use self::open::{Open, at, identity_of};
use self::tables::{read_all, transact};
use super::{Backend, Batch, Contents, StoreError, Writing};

/// How often the file is checked even while nothing is written. A deleted file would be missing for the next
/// process.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a store may appear and disappear during a start.
const TRIES: usize = 5;

/// How redb accesses a file.
type OpenFile = fn(File) -> Result<FileBackend, DatabaseError>;

/// A redb file. The first failed write closes it and the next one reopens it, because redb refuses to
/// continue after an I/O error. `F` is how redb accesses the file; tests substitute their own.
#[derive(Debug, Clone)]
pub struct RedbBackend<F = OpenFile> {
    path: Arc<PathBuf>,
    held: Arc<Mutex<OpenStore>>,
    open_file: F,
}

/// The store as this process holds it.
#[derive(Debug)]
struct OpenStore {
    /// `None` after a failed write.
    open: Option<Open>,
    /// Which file it is.
    identity: Option<(u64, u64)>,
    /// Whether the file must be rewritten first, since the system may show what never reached the disk.
    write_again: bool,
}

impl RedbBackend {
    /// Opens the store, or creates it where there is none.
    ///
    /// # Errors
    /// See [`StoreError`]; an existing file is never overwritten.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_by(path, FileBackend::new)
    }
}

impl<F, S> RedbBackend<F>
where
    F: Fn(File) -> Result<S, DatabaseError>,
    S: StorageBackend,
{
    pub(super) fn open_by(path: &Path, open_file: F) -> Result<Self, StoreError> {
        let mut tries = 0..TRIES;
        while is_new(path)? {
            // Where another process creates one at the same time, only one gets the place; it is inspected
            // like any other.
            if create(path, &open_file, &Batch::default())? == Created::Here || tries.next().is_none() {
                break;
            }
        }
        let was_closed_cleanly = inspect(path, &open_file)?;
        if !was_closed_cleanly {
            write_again(path, &open_file)?;
        }
        let mut held = OpenStore { open: None, identity: None, write_again: false };
        held.take(path, open(path, &open_file)?)?;
        Ok(Self { path: Arc::new(path.to_owned()), held: Arc::new(Mutex::new(held)), open_file })
    }

    fn write_now(&self, batch: &Batch) -> Result<(), StoreError> {
        let path = &*self.path;
        let held = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.open.is_none() {
            self.reopen(held)?;
        }
        let Some(mut store) = held.open.take() else { return Err(StoreError::Closed) };
        let placed = store.is_in_place(path);
        if placed.is_err() {
            held.open = Some(store);
            return placed;
        }
        // The page with a false length may be one that no read has touched yet.
        let database = store.database();
        let outcome = database.and_then(|database| reading(|| transact(database, batch)));
        let outcome = outcome.unwrap_or_else(|| Err(contradictory()));
        match outcome.map_err(into_io).and_then(|()| store.note_head()) {
            Ok(()) => {
                // A write is acknowledged only if the next start will find it.
                let placed = store.is_in_place(path);
                held.open = Some(store);
                placed
            }
            Err(error) => {
                held.write_again |= store.close();
                Err(StoreError::io("write to", path, error))
            }
        }
    }

    /// Reopens the file after a failed write, unless something else is in its place.
    fn reopen(&self, held: &mut OpenStore) -> Result<(), StoreError> {
        let path = &*self.path;
        let there = at(path)?;
        if held.identity.is_some_and(|identity| identity != identity_of(&there)) {
            return Err(replaced(path, "another file is in its place"));
        }
        if held.write_again {
            write_again(path, &self.open_file)?;
            held.write_again = false;
        }
        held.take(path, open(path, &self.open_file)?)
    }

    pub(super) fn look_now(&self) -> Result<(), StoreError> {
        let held = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.open.is_none() {
            self.reopen(held)?;
        }
        held.open.as_ref().map_or(Ok(()), |open| open.is_in_place(&self.path))
    }

    fn write_anew_now(&self, all: &Batch) -> Result<(), StoreError> {
        let path = &*self.path;
        let held = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(held.open.take());
        held.identity = None;
        if create(path, &self.open_file, all)? == Created::Elsewhere {
            return Err(replaced(path, "another file has taken its place"));
        }
        held.write_again = false;
        held.take(path, open(path, &self.open_file)?)
    }
}

impl OpenStore {
    fn take(&mut self, path: &Path, open: Open) -> Result<(), StoreError> {
        self.identity = Some(open.identity().map_err(|error| StoreError::io("open", path, error))?);
        self.open = Some(open);
        Ok(())
    }
}

impl<F, S> Backend for RedbBackend<F>
where
    F: Fn(File) -> Result<S, DatabaseError> + Clone + Send + Sync + 'static,
    S: StorageBackend,
{
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<Contents, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = held.open.as_ref().and_then(Open::database) else {
            return Err(StoreError::Closed);
        };
        reading(|| read_all(database))
            .unwrap_or_else(|| Err(contradictory()))
            .map_err(|error| unusable("read", &self.path, error))
    }

    fn write(&self, batch: Batch) -> Writing {
        let backend = self.clone();
        blocking(move || backend.write_now(&batch))
    }

    fn look_every(&self) -> Option<Duration> {
        Some(LOOK_EVERY)
    }

    fn look(&self) -> Writing {
        let backend = self.clone();
        blocking(move || backend.look_now())
    }

    fn write_anew(&self, all: Batch) -> Writing {
        let backend = self.clone();
        blocking(move || backend.write_anew_now(&all))
    }
}

fn blocking(work: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Writing {
    Box::pin(async move { tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed)) })
}

/// Whether there is no store yet: no file, or an empty one.
fn is_new(path: &Path) -> Result<bool, StoreError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(found.len() == 0),
        Ok(_) => Err(foreign(path, "not a regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StoreError::io("open", path, error)),
    }
}
