//! A new file that is created next to its destination, and moved there whole or removed.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// How many names are tried.
const TRIES: usize = 100;

/// Removed on drop, unless it was moved.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    is_moved: bool,
}

impl NewFile {
    /// Creates a file in `folder` that only its owner can read, from the start. Its name is `prefix`, a
    /// random part, `.new`.
    pub(super) fn create(folder: &Path, prefix: &str) -> io::Result<(Self, File)> {
        for _ in 0..TRIES {
            let path = folder.join(format!("{prefix}{:08x}.new", rand::random::<u32>()));
            match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((Self { path, is_moved: false }, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Moves it to `place`, replacing what is there.
    pub(super) fn move_over(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)?;
        self.is_moved = true;
        Ok(())
    }

    /// Moves it to `place` if nothing is there; otherwise an error.
    pub(super) fn move_to(&mut self, place: &Path) -> io::Result<()> {
        match renameat_with(CWD, &self.path, CWD, place, RenameFlags::NOREPLACE) {
            // The file system does not support this flag.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&self.path, place)?;
                fs::remove_file(&self.path)?;
            }
            moved => moved?,
        }
        self.is_moved = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_moved {
            let _ = fs::remove_file(&self.path);
        }
    }
}
