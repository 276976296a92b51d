//! The real store: one redb file, readable by its owner only.

mod file;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    TableError,
};

use self::file::{create, inspect, open, write_again};
use super::{Backend, Batch, Contents, StoreError};
use crate::account::Appid;
use crate::ticket::Credential;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("wxtokend_meta");
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wxtokend_accounts");
const TICKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wxtokend_tickets");
const FORMAT: &str = "1";
/// A file is read through once, and a page is written once in a long while; redb's default of 1 GiB is for others.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

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
fn reading<T>(read: impl FnOnce() -> T) -> Option<T> {
    READING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    outcome.ok()
}

/// How redb gets at a file.
type OnFile = fn(File) -> Result<FileBackend, DatabaseError>;

/// A redb file. The first failed write closes it and the next one opens it again, because redb refuses to go on
/// after an I/O error. `F` is how redb gets at the file: tests stand in between.
#[derive(Debug, Clone)]
pub struct RedbBackend<F = OnFile> {
    path: Arc<PathBuf>,
    database: Arc<Mutex<Held>>,
    on_file: F,
}

/// The open file, if it is. Closing it writes, and so meets what no reading has.
#[derive(Debug)]
struct Held(Option<Database>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = reading(|| drop(self.0.take()));
    }
}

impl RedbBackend {
    /// Opens the store, or creates it where there is none.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is there is never overwritten.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_by(path, FileBackend::new)
    }
}

impl<F, S> RedbBackend<F>
where
    F: Fn(File) -> Result<S, DatabaseError>,
    S: StorageBackend,
{
    pub(super) fn open_by(path: &Path, on_file: F) -> Result<Self, StoreError> {
        let is_new = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => found.len() == 0,
            Ok(_) => return Err(foreign(path, "not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(StoreError::io("open", path, error)),
        };
        if is_new {
            create(path, &on_file)?;
        }
        let is_tidy = inspect(path, &on_file)?;
        if !is_tidy {
            write_again(path, &on_file)?;
        }
        let database = open(path, &on_file)?;
        let database = Arc::new(Mutex::new(Held(Some(database))));
        Ok(Self { path: Arc::new(path.to_owned()), database, on_file })
    }

    fn write_now(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.0.take() {
            Some(database) => database,
            None => {
                write_again(&self.path, &self.on_file)?;
                open(&self.path, &self.on_file)?
            }
        };
        // A page that no reading has touched may be the one that lies.
        let outcome = reading(|| transact(&database, batch)).unwrap_or_else(|| Err(contradictory()));
        match &outcome {
            Ok(()) => held.0 = Some(database),
            Err(_) => drop(Held(Some(database))),
        }
        outcome.map_err(|error| StoreError::io("write to", &self.path, into_io(error)))
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
        let held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = held.0.as_ref() else { return Err(StoreError::Closed) };
        reading(|| read_all(database))
            .unwrap_or_else(|| Err(contradictory()))
            .map_err(|error| unusable("read", &self.path, error))
    }

    fn write(&self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        let backend = self.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || backend.write_now(&batch)).await;
            written.unwrap_or(Err(StoreError::Closed))
        })
    }
}

/// Why redb does not open the file.
fn refusal(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other if other.to_string().contains("magic number") => foreign(path, "no redb file"),
        other => unusable("open", path, other.into()),
    }
}

/// A disk that fails says nothing about what is on it.
fn unusable(operation: &'static str, path: &Path, error: redb::Error) -> StoreError {
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
fn contradictory() -> redb::Error {
    redb::Error::Corrupted("its pages contradict each other".to_owned())
}

fn check_format(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    match format_of(database) {
        Ok(Some(format)) if format == FORMAT => Ok(()),
        Ok(Some(format)) => {
            Err(foreign(path, &format!("a store of format {format}; this program writes {FORMAT}")))
        }
        Ok(None) => Err(foreign(path, "some other program's redb file")),
        Err(error) => Err(unusable("read", path, error)),
    }
}

fn format_of(database: &impl ReadableDatabase) -> Result<Option<String>, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|format| format.value().to_owned())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_other_table) => Ok(None),
    }
}

fn read_all(database: &impl ReadableDatabase) -> Result<Contents, redb::Error> {
    let mut records = HashMap::new();
    let hosts = each_record(database, |of, record| drop(records.insert(of, record.to_vec())))?;
    Ok(Contents { records, hosts })
}

/// Hands on every record; returns the hosts.
fn each_record(
    database: &impl ReadableDatabase,
    mut hand_on: impl FnMut(Credential, &[u8]),
) -> Result<Vec<String>, redb::Error> {
    let read = database.begin_read()?;
    let hosts = read.open_table(META)?.get("hosts")?;
    let hosts =
        hosts.map(|hosts| hosts.value().split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    for entry in read.open_table(ACCOUNTS)?.iter()? {
        let (key, record) = entry?;
        hand_on(credential(key.value())?, record.value());
    }
    let tickets = match read.open_table(TICKETS) {
        Ok(tickets) => tickets,
        // Nobody has kept tickets there yet.
        Err(TableError::TableDoesNotExist(_)) => return Ok(hosts),
        Err(error) => return Err(error.into()),
    };
    for entry in tickets.iter()? {
        let (key, record) = entry?;
        hand_on(credential(key.value())?, record.value());
    }
    Ok(hosts)
}

/// Of an account's record its appid; of a ticket's `appid/kind`, which no appid is.
fn credential(key: &str) -> Result<Credential, redb::Error> {
    let read = match key.split_once('/') {
        None => Appid::new(key).ok().map(Credential::token),
        Some((appid, kind)) => Appid::new(appid)
            .ok()
            .and_then(|appid| kind.parse().ok().map(|kind| Credential::ticket(appid, kind))),
    };
    read.ok_or_else(|| redb::Error::Corrupted("a record's key is neither an appid nor a ticket".to_owned()))
}

/// One transaction, on disk when it returns.
fn transact(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut accounts = write.open_table(ACCOUNTS)?;
        let (of_accounts, of_tickets): (Vec<_>, Vec<_>) =
            batch.records.iter().partition(|(of, _)| of.ticket.is_none());
        for (of, record) in of_accounts {
            accounts.insert(of.appid.as_str(), record.as_slice())?;
        }
        if !of_tickets.is_empty() {
            let mut tickets = write.open_table(TICKETS)?;
            for (of, record) in of_tickets {
                tickets.insert(of.to_string().as_str(), record.as_slice())?;
            }
        }
        if let Some(hosts) = &batch.hosts {
            write.open_table(META)?.insert("hosts", hosts.join(" ").as_str())?;
        }
    }
    write.commit()?;
    Ok(())
}

fn database_on(storage: impl StorageBackend) -> Result<Database, DatabaseError> {
    builder().create_with_backend(storage)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn damaged(path: &Path, what: String) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), what }
}

fn foreign(path: &Path, what: &str) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), what: what.to_owned() }
}

fn into_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
