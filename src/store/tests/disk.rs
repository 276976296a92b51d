//! A disk under redb that records operations, fails on request, and models what a crash leaves of a file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::ops::{Bound, Range};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};
use std::{io, iter};

use ::redb::backends::FileBackend;
use ::redb::{BackendError, DatabaseError, StorageBackend};
use rand::RngExt as _;
use rand::rngs::StdRng;

const SECTOR: usize = 512;

/// An operation that changes a file, or makes its changes durable.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// The file of this name.
    Opened(String),
    Write {
        at: u64,
        data: Vec<u8>,
    },
    SetLen(u64),
    Synced,
    /// What it should have written is lost, and counts as written.
    SyncFailed,
    Closed,
}

/// All files that are opened through it are one file to it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    state: Mutex<DiskState>,
}

#[derive(Debug, Default)]
struct DiskState {
    ops: Vec<Op>,
    /// How many operations were requested, reads included.
    asked: usize,
    failing: Range<usize>,
    syncs: usize,
    failing_sync: Option<usize>,
    full: bool,
    /// What failed, for messages.
    failed: Vec<&'static str>,
}

impl Disk {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Opens a file for redb.
    pub(super) fn open_file(
        self: &Arc<Self>,
    ) -> impl Fn(File) -> Result<DiskFile, DatabaseError> + Clone + Send + Sync + 'static {
        let disk = Arc::clone(self);
        move |file| {
            let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
            disk.note(Op::Opened(name.file_name().unwrap().to_str().unwrap().to_owned()));
            Ok(DiskFile { file: FileBackend::new(file)?, disk: Arc::clone(&disk) })
        }
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.state.lock().unwrap().ops.clone()
    }

    pub(super) fn ops_so_far(&self) -> usize {
        self.state.lock().unwrap().ops.len()
    }

    pub(super) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// Makes the operations in `range` fail, counted from 0.
    pub(super) fn fail(&self, range: Range<usize>) {
        self.state.lock().unwrap().failing = range;
    }

    /// Makes the `n`-th sync fail, from 0.
    pub(super) fn fail_sync(&self, n: usize) {
        self.state.lock().unwrap().failing_sync = Some(n);
    }

    /// Sets whether the disk is full and takes no writes; what is in place can be synced.
    pub(super) fn set_full(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    /// What has failed since the last call of this.
    pub(super) fn failed(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state.lock().unwrap().failed)
    }

    fn note(&self, op: Op) {
        self.state.lock().unwrap().ops.push(op);
    }

    fn ask(&self, what: &'static str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.asked += 1;
        state.syncs += usize::from(what == "sync_data");
        let failing_sync = what == "sync_data" && state.failing_sync == Some(state.syncs - 1);
        let full = state.full && matches!(what, "write" | "set_len");
        if full || failing_sync || state.failing.contains(&(state.asked - 1)) {
            state.failed.push(what);
            return Err(io::Error::other("the disk fails as it was told to"));
        }
        Ok(())
    }
}

/// A real file without syncs, which only a loss of power would need.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.ask("len")?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.ask("read")?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.ask("set_len")?;
        self.disk.note(Op::SetLen(len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let asked = self.disk.ask("sync_data");
        self.disk.note(if asked.is_ok() { Op::Synced } else { Op::SyncFailed });
        asked
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let asked = self.disk.ask("write");
        // A failed write has written a part.
        let data = if asked.is_ok() { data } else { &data[..data.len() / 2] };
        self.disk.note(Op::Write { at: offset, data: data.to_vec() });
        self.file.write(offset, data)?;
        asked
    }

    fn close(&self) -> io::Result<()> {
        self.disk.note(Op::Closed);
        // The lock is released whatever else fails.
        self.file.close()?;
        self.disk.ask("close")
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// A file as the system shows it, as it is on disk, and the operations since these last agreed.
#[derive(Debug, Clone, Default)]
pub(super) struct Remains {
    shown: Vec<u8>,
    on_disk: Vec<u8>,
    since: Vec<Op>,
}

impl Remains {
    pub(super) fn add(&mut self, op: &Op) {
        match op {
            Op::Write { .. } | Op::SetLen(_) => {
                apply(&mut self.shown, op, |range| vec![range]);
                self.since.push(op.clone());
            }
            Op::Synced => {
                let since = std::mem::take(&mut self.since);
                since.iter().for_each(|op| apply(&mut self.on_disk, op, |range| vec![range]));
            }
            Op::SyncFailed => {
                let since = std::mem::take(&mut self.since);
                let lengths = since.iter().filter(|op| matches!(op, Op::SetLen(_)));
                lengths.for_each(|op| apply(&mut self.on_disk, op, |range| vec![range]));
            }
            Op::Opened(_) | Op::Closed => {}
        }
    }

    /// Whether a loss of power leaves the same as a kill.
    pub(super) fn is_synced(&self) -> bool {
        self.since.is_empty() && self.shown == self.on_disk
    }

    /// What a killed process leaves: the system finishes all operations.
    pub(super) fn when_all_was_done(&self) -> Vec<u8> {
        self.shown.clone()
    }

    /// What a loss of power may leave of what was not synced: whole operations, parts, or some sectors.
    pub(super) fn when_power_is_lost(&self, random: &mut StdRng) -> Vec<u8> {
        let mut file = self.on_disk.clone();
        // Most of everything, most of nothing, or anything.
        let kept = [0.1, 0.5, 0.9][random.random_range(0..3)];
        for op in &self.since {
            apply(&mut file, op, |range| match random.random_range(0..4) {
                0 => {
                    let end = random.random_range(range.start..=range.end);
                    iter::once(range.start..end).collect()
                }
                1 => sectors(range).filter(|_| random.random_bool(kept)).collect(),
                _ if random.random_bool(kept) => vec![range],
                _ => Vec::new(),
            });
        }
        file
    }
}

/// Applies `op` to `file`: of a write, the parts that `kept` returns. A new length is applied unless `kept`
/// returns nothing. What was written beyond a length that was not kept is lost.
fn apply(file: &mut Vec<u8>, op: &Op, kept: impl FnOnce(Range<usize>) -> Vec<Range<usize>>) {
    match op {
        Op::Write { at, data } => {
            let at = usize::try_from(*at).unwrap();
            for part in kept(at..at + data.len()) {
                let part = part.start..part.end.min(file.len());
                if !part.is_empty() {
                    file[part.clone()].copy_from_slice(&data[part.start - at..part.end - at]);
                }
            }
        }
        Op::SetLen(len) if !kept(0..1).iter().all(Range::is_empty) => {
            file.resize(usize::try_from(*len).unwrap(), 0);
        }
        Op::SetLen(_) | Op::Opened(_) | Op::Synced | Op::SyncFailed | Op::Closed => {}
    }
}

fn sectors(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = range.start - range.start % SECTOR;
    (first..range.end)
        .step_by(SECTOR)
        .map(move |start| start.max(range.start)..(start + SECTOR).min(range.end))
}

/// The operations at which the life of a process may be cut: those after which a file differs.
pub(super) fn kinds(ops: &[Op]) -> HashSet<&'static str> {
    ops.iter()
        .map(|op| match op {
            Op::Opened(_) => "opened",
            Op::Write { .. } => "write",
            Op::SetLen(_) => "set_len",
            Op::Synced | Op::SyncFailed => "sync_data",
            Op::Closed => "close",
        })
        .collect()
}
