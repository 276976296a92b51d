//! The errors of the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A disk that takes longer than this counts as failed: serving must not wait for it.
pub(super) const SLOWEST_COMMIT: Duration = Duration::from_secs(5);

/// Why the store cannot be used, or a write to it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process is using the file.
    #[error("open the store {}: another wxtokend is using it; stop that one, or give this one a store.path of its own", .0.display())]
    InUse(PathBuf),
    /// The file is not a store of ours.
    #[error(
        "open the store {path}: this is not a wxtokend store ({what}), and it was left as it is; correct store.path"
    )]
    Foreign {
        /// The file.
        path: String,
        /// What is there instead.
        what: String,
    },
    /// The file was ours and cannot be read.
    #[error(
        "read the store {path}: it is damaged ({what}), and it was left as it is; restore it from a backup, or move \
         it away: the daemon then starts with an empty one, fetches every token again and forgets what was spent \
         of today's budgets"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("{operation} the store {path}")]
    Io {
        /// The operation: open, create, write.
        operation: &'static str,
        /// The file.
        path: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file was deleted, moved away or emptied while it was in use.
    #[error("write to the store {}: there is no file any more", .0.display())]
    Gone(PathBuf),
    /// Something else is in the file's place, or in the file.
    #[error(
        "write to the store {path}: {what}, which was left as it is; move it away, and the store is rewritten from \
         memory within a minute, or stop the daemon to go on with what is there"
    )]
    Replaced {
        /// The file.
        path: String,
        /// What is there instead.
        what: String,
    },
    /// The disk did not answer in time.
    #[error("write to the store: the disk did not answer within {} s", SLOWEST_COMMIT.as_secs())]
    Slow,
    /// The writer has ended, since the program is stopping.
    #[error("write to the store: it is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.display().to_string(), source }
    }
}
