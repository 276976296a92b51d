//! Reads regular files, in bounded time and memory.
//!
//! A named pipe, a device or a share that is away can keep whoever opens or reads it for ever. So anything but a
//! regular file is refused, and a thread of its own does what the file system may hold up.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

/// How long one file may take; a healthy share answers within a second.
const PATIENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// What a file holds, and who may read it.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) text: String,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// Access to the files that a configuration is made of.
pub(crate) struct Files {
    patience: Duration,
    /// Started with the first job; given up with the first that takes too long.
    worker: Option<Sender<Job>>,
    hung: bool,
    /// What stands there never answers.
    #[cfg(test)]
    away: Option<PathBuf>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            worker: None,
            hung: false,
            #[cfg(test)]
            away: None,
        }
    }
}

impl Files {
    /// Whether a file took too long. From then on no other is tried: they tend to lie on the same share, and a thousand
    /// waits of 5 s would be an hour.
    pub(crate) fn hung(&self) -> bool {
        self.hung
    }

    /// Reads the regular file at `path`, of at most `longest` bytes.
    ///
    /// # Errors
    /// What the system says, or in the same form that it is no regular file, longer, not UTF-8, or not read in time.
    pub(crate) fn read(&mut self, path: &Path, longest: u64) -> io::Result<FileContent> {
        self.in_time(path.to_owned(), move |path| read(path, longest))
    }

    /// Access with the same patience to what has nothing to do with these files: when it hangs, they are still read.
    pub(crate) fn apart(&self) -> Self {
        Self {
            patience: self.patience,
            #[cfg(test)]
            away: self.away.clone(),
            ..Self::default()
        }
    }

    /// Does `job`, which looks at `path`.
    ///
    /// # Errors
    /// What `job` says, or that it took too long.
    pub(crate) fn in_time<T: Send + 'static>(
        &mut self,
        path: PathBuf,
        job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let too_late = || io::Error::new(ErrorKind::TimedOut, "it was not read in time");
        if self.hung {
            return Err(too_late());
        }
        let (answer, answered) = mpsc::sync_channel(1);
        #[cfg(test)]
        let away = self.away.clone();
        let job = move || {
            #[cfg(test)]
            while away.as_ref().is_some_and(|away| path.starts_with(away)) {
                thread::park();
            }
            job(&path)
        };
        self.hand_over(job, answer)?;
        match answered.recv_timeout(self.patience) {
            Ok(done) => done,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the reading thread has ended")),
            Err(RecvTimeoutError::Timeout) => {
                self.hung = true;
                // The thread ends when the file system lets it go.
                self.worker = None;
                let seconds = self.patience.as_secs();
                let what = format!("it was not read within {seconds} s; its share may not answer");
                Err(io::Error::new(ErrorKind::TimedOut, what))
            }
        }
    }

    fn hand_over<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
        answer: SyncSender<io::Result<T>>,
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
        // Nobody listens any more where the time is up.
        let job: Job = Box::new(move || drop(answer.send(job())));
        // A thread that has ended lets go of the answer, which is noticed there.
        let _ = worker.send(job);
        self.worker = Some(worker);
        Ok(())
    }
}

#[cfg(test)]
impl Files {
    /// Access to files of which those under `away` never answer.
    pub(crate) fn without(away: &Path) -> Self {
        Self { patience: Duration::from_millis(50), away: Some(away.to_owned()), ..Self::default() }
    }
}

fn read(path: &Path, longest: u64) -> io::Result<FileContent> {
    // Looked at first, since opening a device can already do something; and again once open, since it may have changed.
    must_be_regular(&fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    must_be_regular(&found)?;
    let text = read_open(file, found.len(), longest)?;
    Ok(FileContent { text, mode: found.mode() & 0o7777 })
}

fn read_open(file: File, told: u64, longest: u64) -> io::Result<String> {
    let too_long =
        || io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {} KiB", longest / 1024));
    if told > longest {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn must_be_regular(found: &Metadata) -> io::Result<()> {
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

    const LONGEST: u64 = 64 * 1024;

    fn refused(path: &Path) -> String {
        Files::default().read(path, LONGEST).unwrap_err().to_string()
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
            let told = refused(&path);
            assert!(told.starts_with(&format!("it is {what}, ")), "{}: {told}", path.display());
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(refused(&path), "it is longer than 64 KiB");
        // Its length is told as nothing.
        assert_eq!(refused("/proc/kallsyms".as_ref()), "it is longer than 64 KiB");
        fs::write(&path, "x".repeat(64 * 1024)).unwrap();
        assert_eq!(Files::default().read(&path, LONGEST).unwrap().text.len(), 64 * 1024);
        fs::write(&path, [0xe9]).unwrap();
        assert_eq!(refused(&path), "it is not UTF-8 text");
    }

    #[test]
    fn a_file_that_is_not_read_in_time_is_told_and_no_other_is_tried() {
        let mut files = Files::without("/away".as_ref());
        let hung = files.read("/away/a".as_ref(), LONGEST).unwrap_err();
        assert_eq!(hung.kind(), ErrorKind::TimedOut);
        assert!(hung.to_string().contains("may not answer") && files.hung());
        let mut look = |path: &str| files.in_time(path.into(), |_| Ok(()));
        assert_eq!(look("/here").unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(
            files.apart().in_time("/here".into(), |_| Ok(())).is_ok(),
            "what is apart is still looked at"
        );
    }
}
