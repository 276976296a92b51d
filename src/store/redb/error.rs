//! What redb's errors and panics come to.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::DatabaseError;

use crate::store::StoreError;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread works on a file that may be damaged: a panic of redb's is then the file's fault, and an error of
/// ours comes of it.
#[must_use]
pub fn is_reading() -> bool {
    READING.get()
}

/// What `read` returns, or nothing if it panics: redb checks what it reads, but a page that lies about its own length
/// may still make it panic.
pub(super) fn reading<T>(read: impl FnOnce() -> T) -> Option<T> {
    READING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    outcome.ok()
}

/// Why redb does not open the file.
pub(super) fn refusal(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other if other.to_string().contains("magic number") => foreign(path, "no redb file"),
        other => unusable("open", path, other.into()),
    }
}

/// A disk that fails says nothing about what is on it.
pub(super) fn unusable(operation: &'static str, path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if !is_the_contents(&error) => StoreError::io(operation, path, error),
        other => damaged(path, other.to_string()),
    }
}

/// Whether it is what the file holds, or lacks at its end, and not the disk.
fn is_the_contents(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// What is said when redb panics over a file.
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
