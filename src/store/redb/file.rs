//! Inspects, repairs and opens a store's file.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend};
use wxtokend_core::ticket::TicketState;
use wxtokend_core::token::state::AccountState;

use super::error::{contradictory, damaged, reading, refusal, unusable};
use super::open::{Open, builder, database_on};
use super::tables::{check_format, each_record};
use crate::store::{StoreError, record};

/// How many bytes are copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Inspects a file without touching it, and returns whether it was closed cleanly.
///
/// Opening a file for writing marks it, and one that is not ours or is damaged must stay as it is. The file
/// of a killed process cannot be inspected in place, since opening it repairs it: a copy is repaired instead.
pub(super) fn inspect<S: StorageBackend>(
    path: &Path,
    open_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<bool, StoreError> {
    let attempt = || -> Result<bool, StoreError> {
        let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
        let opened = open_file(file).and_then(|storage| builder().open_read_only_with_backend(storage));
        match opened {
            Ok(database) => check_contents(path, &database).map(|()| true),
            Err(DatabaseError::RepairAborted) => {
                check_contents(path, &repaired_copy(path, open_file)?).map(|()| false)
            }
            Err(error) => Err(refusal(path, error)),
        }
    };
    reading(attempt).unwrap_or_else(|| Err(unusable("read", path, contradictory())))
}

fn check_contents(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    check_format(path, database)?;
    let mut checked = Ok(());
    each_record(database, |of, bytes| {
        let of_this = match of.ticket {
            None => record::check::<AccountState>(bytes),
            Some(_) => record::check::<TicketState>(bytes),
        };
        if let (Ok(()), Err(what)) = (&checked, of_this) {
            checked = Err(damaged(path, format!("{of}: {what}")));
        }
    })
    .map_err(|error| unusable("read", path, error))?;
    checked
}

/// A copy in memory of what the file becomes when it is opened for writing.
fn repaired_copy<S: StorageBackend>(
    path: &Path,
    open_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<Database, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    let storage = open_file(file).map_err(|error| refusal(path, error))?;
    let copy = InMemoryBackend::new();
    let copied = storage.len().and_then(|len| {
        copy.set_len(len)?;
        in_pieces(&storage, |at, piece| copy.write(at, piece))
    });
    let closed = storage.close();
    copied.and(closed).map_err(|error| StoreError::io("read", path, error))?;
    // No disk is involved, so a failure is due to the contents.
    database_on(copy).map_err(|error| damaged(path, error.to_string()))
}

/// Passes on a file's contents in pieces. The whole may be larger than all else that the program keeps in
/// memory.
fn in_pieces(
    storage: &impl StorageBackend,
    mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let len = storage.len()?;
    let mut piece = vec![0; PIECE_BYTES];
    for at in (0..len).step_by(PIECE_BYTES) {
        let left = usize::try_from(len - at).unwrap_or(usize::MAX);
        let piece = &mut piece[..left.min(PIECE_BYTES)];
        storage.read(at, piece)?;
        visit(at, piece)?;
    }
    Ok(())
}

/// Rewrites all bytes of a file that was not closed cleanly.
///
/// After a failed sync the system counts the data as written and returns it to readers, though it may be
/// lost; what is built on it would then be lost with the next power failure.
pub(super) fn write_again<S: StorageBackend>(
    path: &Path,
    open_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<(), StoreError> {
    let file = owner_only().open(path).map_err(|error| StoreError::io("open", path, error))?;
    let storage = open_file(file).map_err(|error| refusal(path, error))?;
    let again = || -> io::Result<bool> {
        let is_ours = storage.try_lock_range(Bound::Unbounded, Bound::Unbounded).map_err(io::Error::other)?;
        if is_ours {
            in_pieces(&storage, |at, piece| storage.write(at, piece))?;
            storage.sync_data()?;
        }
        Ok(is_ours)
    };
    let done = again().map_err(|error| StoreError::io("write to", path, error));
    let closed = storage.close().map_err(|error| StoreError::io("close", path, error));
    if done? { closed } else { Err(StoreError::InUse(path.to_owned())) }
}

pub(super) fn open<S: StorageBackend>(
    path: &Path,
    open_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<Open, StoreError> {
    let file = owner_only().open(path).map_err(|error| StoreError::io("open", path, error))?;
    let opened = reading(|| {
        let open = Open::new(file, open_file).map_err(|error| refusal(path, error))?;
        open.database().map_or(Ok(()), |database| check_format(path, database))?;
        Ok(open)
    });
    let open = opened.unwrap_or_else(|| Err(unusable("read", path, contradictory())))?;
    restrict_to_owner(path).map_err(|error| StoreError::io("open", path, error))?;
    Ok(open)
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Restricts the file to its owner, whatever its mode was, since it holds tokens.
fn restrict_to_owner(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let _ = path;
    Ok(())
}
