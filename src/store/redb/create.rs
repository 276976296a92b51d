//! Creates a store next to its path and moves it there whole, and only where there is nothing.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageBackend};

use super::error::into_io;
use super::new_file::NewFile;
use super::open::{database_on, identity_of};
use super::tables::{ACCOUNTS, FORMAT, META, transact};
use crate::store::{Batch, StoreError};

/// How many symbolic links may lead to a store.
const MOST_LINKS: usize = 40;

/// Whether we created the store that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// We did.
    Here,
    /// Something appeared there meanwhile, and was left as it is.
    Elsewhere,
}

/// Creates a store that holds `batch` next to `path` and moves it there. A crash leaves a whole store or
/// none.
///
/// Only an empty file is ever replaced; a dangling symbolic link is followed.
pub(super) fn create<S: StorageBackend>(
    path: &Path,
    open_file: &impl Fn(File) -> Result<S, DatabaseError>,
    batch: &Batch,
) -> Result<Created, StoreError> {
    let failed = |error| StoreError::io("create", path, error);
    let place = end_of_links(path).map_err(failed)?;
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.");
    clear_leftovers(folder, &prefix);
    // A name of its own, since another start may be creating one, too.
    let (new_file, file) = NewFile::create(folder, &prefix).map_err(failed)?;
    let database = match open_file(file).and_then(database_on) {
        Ok(database) => database,
        // Another process that is creating a store there is about to remove it as a leftover.
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(Created::Elsewhere),
        Err(error) => return Err(failed(into_io(error))),
    };
    let begin = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(META)?.insert("format", FORMAT)?;
        write.open_table(ACCOUNTS)?;
        write.commit()?;
        if !batch.records.is_empty() || batch.hosts.is_some() {
            transact(&database, batch)?;
        }
        Ok(())
    };
    begin().map_err(|error| failed(into_io(error)))?;
    drop(database);
    let created = move_to(new_file, &place).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(created)
}

/// Moves `new_file` to `place`, if nothing is there but an empty file.
fn move_to(mut new_file: NewFile, place: &Path) -> io::Result<Created> {
    let moved = match new_file.move_to(place) {
        Ok(()) => Ok(Created::Here),
        Err(refused) if refused.kind() == ErrorKind::AlreadyExists => replace_empty(new_file, place),
        Err(refused) => Err(refused),
    };
    match moved {
        // Another process that is creating a store there has removed it as a leftover.
        Err(refused) if refused.kind() == ErrorKind::NotFound => Ok(Created::Elsewhere),
        moved => moved,
    }
}

/// Moves `new_file` to `place`, if the file there is empty. Holds that file's lock: of two processes that see
/// it empty, one backs off for the other.
fn replace_empty(new_file: NewFile, place: &Path) -> io::Result<Created> {
    if !fs::symlink_metadata(place)?.is_file() {
        return Ok(Created::Elsewhere);
    }
    let there = File::open(place)?;
    match there.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Created::Elsewhere),
        // Where files cannot be locked, nothing keeps two starts apart.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let (ours, theirs) = (there.metadata()?, fs::symlink_metadata(place)?);
    if ours.len() != 0 || identity_of(&ours) != identity_of(&theirs) {
        return Ok(Created::Elsewhere);
    }
    new_file.move_over(place)?;
    Ok(Created::Here)
}

/// Where the links at `path` lead, whether or not anything is there.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_no_link) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Removes what killed starts have left behind. A file that is being created is locked except for a moment; a
/// process that loses its file starts over.
fn clear_leftovers(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_leftover =
            name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(".new"));
        let path = entry.path();
        if is_leftover && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(path);
        }
    }
}
