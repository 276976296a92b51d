//! A store's file: looked at, mended, opened.

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

/// So much of a file is copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Looks at a file without touching it: opening it to write marks it, and what is not ours or is damaged stays as
/// it is. A store whose program was killed cannot be looked at so, since opening it mends it: a copy is mended. Says
/// whether it was closed tidily.
pub(super) fn inspect<S: StorageBackend>(
    path: &Path,
    on_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<bool, StoreError> {
    let look = || -> Result<bool, StoreError> {
        let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
        let opened = on_file(file).and_then(|storage| builder().open_read_only_with_backend(storage));
        match opened {
            Ok(database) => look_through(path, &database).map(|()| true),
            Err(DatabaseError::RepairAborted) => {
                look_through(path, &mended_copy(path, on_file)?).map(|()| false)
            }
            Err(error) => Err(refusal(path, error)),
        }
    };
    reading(look).unwrap_or_else(|| Err(unusable("read", path, contradictory())))
}

fn look_through(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
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

/// What becomes of the file when it is opened to write, in memory.
fn mended_copy<S: StorageBackend>(
    path: &Path,
    on_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<Database, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    let storage = on_file(file).map_err(|error| refusal(path, error))?;
    let copy = InMemoryBackend::new();
    let copied = storage.len().and_then(|len| {
        copy.set_len(len)?;
        in_pieces(&storage, |at, piece| copy.write(at, piece))
    });
    let closed = storage.close();
    copied.and(closed).map_err(|error| StoreError::io("read", path, error))?;
    // No disk takes part in it: what fails is the contents' fault.
    database_on(copy).map_err(|error| damaged(path, error.to_string()))
}

/// Hands on what a file holds, piece by piece: as a whole it may be larger than all that the program keeps.
fn in_pieces(
    storage: &impl StorageBackend,
    mut hand_on: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let len = storage.len()?;
    let mut piece = vec![0; PIECE_BYTES];
    for at in (0..len).step_by(PIECE_BYTES) {
        let left = usize::try_from(len - at).unwrap_or(usize::MAX);
        let piece = &mut piece[..left.min(PIECE_BYTES)];
        storage.read(at, piece)?;
        hand_on(at, piece)?;
    }
    Ok(())
}

/// Writes the bytes of a file that was not closed tidily once more. What a failed sync was to write the system counts
/// as written and shows to whoever reads it, though it may be lost: what is built on that ends with the next loss
/// of power.
pub(super) fn write_again<S: StorageBackend>(
    path: &Path,
    on_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<(), StoreError> {
    let file = owner_only().open(path).map_err(|error| StoreError::io("open", path, error))?;
    let storage = on_file(file).map_err(|error| refusal(path, error))?;
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
    on_file: &impl Fn(File) -> Result<S, DatabaseError>,
) -> Result<Open, StoreError> {
    let file = owner_only().open(path).map_err(|error| StoreError::io("open", path, error))?;
    let opened = reading(|| {
        let open = Open::new(file, on_file).map_err(|error| refusal(path, error))?;
        open.database().map_or(Ok(()), |database| check_format(path, database))?;
        Ok(open)
    });
    let open = opened.unwrap_or_else(|| Err(unusable("read", path, contradictory())))?;
    keep_to_owner(path).map_err(|error| StoreError::io("open", path, error))?;
    Ok(open)
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// It holds tokens: whatever its mode was, it is the owner's alone from now on.
fn keep_to_owner(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let _ = path;
    Ok(())
}
