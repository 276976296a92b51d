//! The real store: one redb file, readable by its owner only.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError,
};

use super::{Backend, Batch, Contents, StoreError, record};
use crate::account::Appid;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("wxtokend_meta");
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wxtokend_accounts");
const FORMAT: &str = "1";
/// What is said when redb panics over a file.
const CONTRADICTION: &str = "its pages contradict each other";
/// The file is small and read once; redb's default of 1 GiB is for others.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread reads a file that may be damaged: a panic of redb's is then the file's fault, and an error of
/// ours comes of it.
pub(crate) fn is_reading() -> bool {
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

/// A redb file. The first failed write closes it and the next one opens it again, because redb refuses to go on
/// after an I/O error.
#[derive(Debug, Clone)]
pub struct RedbBackend {
    path: Arc<PathBuf>,
    database: Arc<Mutex<Option<Database>>>,
}

impl RedbBackend {
    /// Opens the store, or creates it where there is none.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is there is never overwritten.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let is_new = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => found.len() == 0,
            Ok(_) => return Err(foreign(path, "not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(StoreError::io("open", path, error)),
        };
        if is_new {
            create(path)?;
        }
        inspect(path)?;
        let database = open(path)?;
        Ok(Self { path: Arc::new(path.to_owned()), database: Arc::new(Mutex::new(Some(database))) })
    }

    fn write_now(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let outcome = transact(&database, batch);
        if outcome.is_ok() {
            *held = Some(database);
        }
        outcome.map_err(|error| StoreError::io("write to", &self.path, into_io(error)))
    }
}

impl Backend for RedbBackend {
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<Contents, StoreError> {
        let held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = held.as_ref() else { return Err(StoreError::Closed) };
        reading(|| read_all(database))
            .unwrap_or_else(|| Err(CONTRADICTION.to_owned()))
            .map_err(|what| StoreError::Damaged { path: self.path.display().to_string(), what })
    }

    fn write(&self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        let backend = self.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || backend.write_now(&batch)).await;
            written.unwrap_or(Err(StoreError::Closed))
        })
    }
}

/// Makes an empty store beside `path` and moves it into place, so that a crash leaves a whole one or none.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("create", path, error);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = owner_only().create_new(true).open(&beside).map_err(failed)?;
    let database = on_file(file).map_err(|error| failed(into_io(error)))?;
    let begin = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(META)?.insert("format", FORMAT)?;
        write.open_table(ACCOUNTS)?;
        write.commit()?;
        Ok(())
    };
    begin().map_err(|error| failed(into_io(error)))?;
    drop(database);
    std::fs::rename(&beside, path).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Looks at a file without touching it: opening it to write marks it, and what is not ours or is damaged stays as
/// it is. A store whose program was killed cannot be looked at so; opening it mends it.
fn inspect(path: &Path) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.display().to_string(), what };
    let look = || -> Result<(), StoreError> {
        let database = match ReadOnlyDatabase::open(path) {
            Ok(database) => database,
            Err(DatabaseError::RepairAborted) => return Ok(()),
            Err(error) => return Err(refusal(path, error)),
        };
        check_format(path, &database)?;
        let contents = read_all(&database).map_err(damaged)?;
        for (appid, bytes) in &contents.records {
            record::check(bytes).map_err(|what| damaged(format!("{appid}: {what}")))?;
        }
        Ok(())
    };
    reading(look).unwrap_or_else(|| Err(damaged(CONTRADICTION.to_owned())))
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let file = owner_only().open(path).map_err(|error| StoreError::io("open", path, error))?;
    let contradictory =
        || StoreError::Damaged { path: path.display().to_string(), what: CONTRADICTION.to_owned() };
    let opened = reading(|| on_file(file)).ok_or_else(contradictory)?;
    let database = opened.map_err(|error| refusal(path, error))?;
    check_format(path, &database)?;
    keep_to_owner(path).map_err(|error| StoreError::io("open", path, error))?;
    Ok(database)
}

/// Why redb does not open the file.
fn refusal(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != ErrorKind::InvalidData => {
            StoreError::io("open", path, error)
        }
        other if other.to_string().contains("magic number") => foreign(path, "no redb file"),
        other => StoreError::Damaged { path: path.display().to_string(), what: other.to_string() },
    }
}

fn check_format(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    match format_of(database) {
        Ok(Some(format)) if format == FORMAT => Ok(()),
        Ok(Some(format)) => {
            Err(foreign(path, &format!("a store of format {format}; this program writes {FORMAT}")))
        }
        Ok(None) => Err(foreign(path, "some other program's redb file")),
        Err(what) => Err(StoreError::Damaged { path: path.display().to_string(), what }),
    }
}

fn format_of(database: &impl ReadableDatabase) -> Result<Option<String>, String> {
    let read = database.begin_read().map_err(|error| error.to_string())?;
    match read.open_table(META) {
        Ok(meta) => {
            let format = meta.get("format").map_err(|error| error.to_string())?;
            Ok(format.map(|format| format.value().to_owned()))
        }
        Err(TableError::Storage(error)) => Err(error.to_string()),
        Err(_other_table) => Ok(None),
    }
}

fn read_all(database: &impl ReadableDatabase) -> Result<Contents, String> {
    let text = |error: redb::Error| error.to_string();
    let read = database.begin_read().map_err(|error| text(error.into()))?;
    let meta = read.open_table(META).map_err(|error| text(error.into()))?;
    let hosts = meta.get("hosts").map_err(|error| text(error.into()))?;
    let hosts =
        hosts.map(|hosts| hosts.value().split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    let mut contents = Contents { hosts, ..Contents::default() };
    let accounts = read.open_table(ACCOUNTS).map_err(|error| text(error.into()))?;
    for entry in accounts.iter().map_err(|error| text(error.into()))? {
        let (appid, record) = entry.map_err(|error| text(error.into()))?;
        let appid = Appid::new(appid.value()).map_err(|_| "a record's key is no appid".to_owned())?;
        contents.records.insert(appid, record.value().to_vec());
    }
    Ok(contents)
}

/// One transaction, on disk when it returns.
fn transact(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut accounts = write.open_table(ACCOUNTS)?;
        for (appid, record) in &batch.records {
            accounts.insert(appid.as_str(), record.as_slice())?;
        }
        if let Some(hosts) = &batch.hosts {
            write.open_table(META)?.insert("hosts", hosts.join(" ").as_str())?;
        }
    }
    write.commit()?;
    Ok(())
}

fn on_file(file: File) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)
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

fn foreign(path: &Path, what: &str) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), what: what.to_owned() }
}

fn into_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
