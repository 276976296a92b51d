//! Maps redb's errors and panics to ours.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::DatabaseError;

use crate::store::StoreError;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread works on a file that may be damaged. A panic in redb is then caused by the file, and
/// is reported as an error.
#[must_use]
pub fn is_reading() -> bool {
    READING.get()
}

/// Runs `read`; `None` if it panics. Redb checks what it reads, but a page with a false length may still make
/// it panic.
pub(super) fn reading<T>(read: impl FnOnce() -> T) -> Option<T> {
    READING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    outcome.ok()
}

/// The error for a file that redb does not open.
pub(super) fn refusal(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other if other.to_string().contains("magic number") => foreign(path, "no redb file"),
        other => unusable("open", path, other.into()),
    }
}

/// Separates a disk that fails, which says nothing about the contents, from a damaged file.
pub(super) fn unusable(operation: &'static str, path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if !is_due_to_contents(&error) => StoreError::io(operation, path, error),
        other => damaged(path, other.to_string()),
    }
}

/// Whether the error is due to what the file contains, or lacks at its end, and not to the disk.
fn is_due_to_contents(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// The error reported when redb panics over a file.
pub(super) fn contradictory() -> redb::Error {
    redb::Error::Corrupted("its pages contradict each other".to_owned())
}

pub(super) fn damaged(path: &Path, what: String) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), what }
}

pub(super) fn foreign(path: &Path, what: &str) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), what: what.to_owned() }
}

pub(super) fn replaced(path: &Path, what: &str) -> StoreError {
    StoreError::Replaced { path: path.display().to_string(), what: what.to_owned() }
}

pub(super) fn into_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
