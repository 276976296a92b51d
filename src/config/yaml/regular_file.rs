//! Reads regular files in bounded time and memory.
//!
//! A named pipe, a device or an unreachable network share can block an open or a read forever. So anything
//! but a regular file is refused, and file access runs on a thread of its own.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

/// Time limit for one file; a healthy share answers within a second.
const TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// The content of a file, and its permissions.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) text: String,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// Access to the files of a configuration.
pub(crate) struct Files {
    timeout: Duration,
    /// Started with the first job, and abandoned with the first that takes too long.
    worker: Option<Sender<Job>>,
    hung: bool,
    /// Files below this path never answer.
    #[cfg(test)]
    unreachable: Option<PathBuf>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT,
            worker: None,
            hung: false,
            #[cfg(test)]
            unreachable: None,
        }
    }
}

impl Files {
    /// Whether a file took too long. After that no other file is tried: they tend to be on the same share,
    /// and a thousand waits of 5 s would take more than an hour.
    pub(crate) fn hung(&self) -> bool {
        self.hung
    }

    /// Reads the regular file at `path`, of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// The system's error, or one that says that the file is not regular, too long, not UTF-8, or not read in
    /// time.
    pub(crate) fn read(&mut self, path: &Path, max_bytes: u64) -> io::Result<FileContent> {
        self.run_with_timeout(path.to_owned(), move |path| read(path, max_bytes))
    }

    /// Access with the same time limit for unrelated paths: if one of them hangs, these files can still be
    /// read.
    pub(crate) fn separate(&self) -> Self {
        Self {
            timeout: self.timeout,
            #[cfg(test)]
            unreachable: self.unreachable.clone(),
            ..Self::default()
        }
    }

    /// Runs `job` on `path` with the time limit.
    ///
    /// # Errors
    /// The error of `job`, or that it took too long.
    pub(crate) fn run_with_timeout<T: Send + 'static>(
        &mut self,
        path: PathBuf,
        job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let timed_out = || io::Error::new(ErrorKind::TimedOut, "it was not read in time");
        if self.hung {
            return Err(timed_out());
        }
        let (result_sender, result) = mpsc::sync_channel(1);
        #[cfg(test)]
        let unreachable = self.unreachable.clone();
        let job = move || {
            #[cfg(test)]
            while unreachable.as_ref().is_some_and(|unreachable| path.starts_with(unreachable)) {
                thread::park();
            }
            job(&path)
        };
        self.send_to_worker(job, result_sender)?;
        match result.recv_timeout(self.timeout) {
            Ok(done) => done,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the reading thread has ended")),
            Err(RecvTimeoutError::Timeout) => {
                self.hung = true;
                // The thread ends when the file system releases it.
                self.worker = None;
                let seconds = self.timeout.as_secs();
                let what = format!("it was not read within {seconds} s; its share may not answer");
                Err(io::Error::new(ErrorKind::TimedOut, what))
            }
        }
    }

    fn send_to_worker<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
        result_sender: SyncSender<io::Result<T>>,
    ) -> io::Result<()> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                let (worker, jobs) = mpsc::channel::<Job>();
                let run = move || jobs.into_iter().for_each(|job| job());
                thread::Builder::new().name("config-files".to_owned()).spawn(run)?;
                worker
            }
        };
        // Fails if the wait for the result has timed out.
        let job: Job = Box::new(move || drop(result_sender.send(job())));
        // If the thread has ended, it has dropped the result's sender, which the receiver notices.
        let _ = worker.send(job);
        self.worker = Some(worker);
        Ok(())
    }
}

#[cfg(test)]
impl Files {
    /// Access to files, of which those below `unreachable` never answer.
    pub(crate) fn with_unreachable(unreachable: &Path) -> Self {
        Self {
            timeout: Duration::from_millis(50),
            unreachable: Some(unreachable.to_owned()),
            ..Self::default()
        }
    }
}

fn read(path: &Path, max_bytes: u64) -> io::Result<FileContent> {
    // Check before opening, since opening a device can already have effects, and again afterwards, since the
    // file may have been replaced.
    require_regular(&fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    require_regular(&found)?;
    let text = read_open(file, found.len(), max_bytes)?;
    Ok(FileContent { text, mode: found.mode() & 0o7777 })
}

fn read_open(file: File, reported_length: u64, max_bytes: u64) -> io::Result<String> {
    let too_long =
        || io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {} KiB", max_bytes / 1024));
    if reported_length > max_bytes {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn require_regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let (kind, what) = kind(found.file_type());
    Err(io::Error::new(kind, format!("it is {what}, and only a regular file can be read again at a reload")))
}

fn kind(found: FileType) -> (ErrorKind, &'static str) {
    match found {
        found if found.is_dir() => (ErrorKind::IsADirectory, "a folder"),
        found if found.is_fifo() => (ErrorKind::InvalidInput, "a pipe"),
        found if found.is_socket() => (ErrorKind::InvalidInput, "a socket"),
        _ => (ErrorKind::InvalidInput, "a device"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const MAX_BYTES: u64 = 64 * 1024;

    fn refused(path: &Path) -> String {
        Files::default().read(path, MAX_BYTES).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
        for (path, what) in [
            (path("pipe"), "a pipe"),
            (path("link"), "a pipe"),
            (path("socket"), "a socket"),
            (folder.path().to_owned(), "a folder"),
            ("/dev/zero".into(), "a device"),
            ("/dev/null".into(), "a device"),
        ] {
            let reported_length = refused(&path);
            assert!(
                reported_length.starts_with(&format!("it is {what}, ")),
                "{}: {reported_length}",
                path.display()
            );
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(refused(&path), "it is longer than 64 KiB");
        // The metadata of this file reports a length of 0.
        assert_eq!(refused("/proc/kallsyms".as_ref()), "it is longer than 64 KiB");
        fs::write(&path, "x".repeat(64 * 1024)).unwrap();
        assert_eq!(Files::default().read(&path, MAX_BYTES).unwrap().text.len(), 64 * 1024);
        fs::write(&path, [0xe9]).unwrap();
        assert_eq!(refused(&path), "it is not UTF-8 text");
    }

    #[test]
    fn a_file_that_is_not_read_in_time_is_reported_and_no_other_is_tried() {
        let mut files = Files::with_unreachable("/away".as_ref());
        let hung = files.read("/away/a".as_ref(), MAX_BYTES).unwrap_err();
        assert_eq!(hung.kind(), ErrorKind::TimedOut);
        assert!(hung.to_string().contains("may not answer") && files.hung());
        let mut access = |path: &str| files.run_with_timeout(path.into(), |_| Ok(()));
        assert_eq!(access("/here").unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(
            files.separate().run_with_timeout("/here".into(), |_| Ok(())).is_ok(),
            "what is apart is still looked at"
        );
    }
}
