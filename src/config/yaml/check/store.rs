//! Checks `store`.

use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::config::checked::StoreConfig;
use crate::config::yaml::file;
use crate::config::yaml::node::Node;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;

const NO_FOLDER: &str = "the folder of this path does not exist; a start needs it";
/// The number of links that Linux follows.
const MAX_LINKS: usize = 40;

/// The store settings of the configuration file at `config`.
pub(super) fn store(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    store: Node<file::Store>,
    config: &Path,
) -> StoreConfig {
    let path = match reader.mapping(at, store).path {
        Node::Absent => Some(reader.resolve(&StoreConfig::default().path)),
        path => reader.path(&at.key("path"), path),
    };
    if let Some(path) = &path {
        warn_if_unusable(reader, &at.key("path"), path, config);
    }
    StoreConfig { path: path.unwrap_or_default() }
}

fn warn_if_unusable(reader: &mut ConfigReader<'_>, at: &Place<'_>, path: &Path, config: &Path) {
    // A store that hangs must not keep secret files from being read.
    let mut files = reader.files().separate();
    let config = config.to_owned();
    match files.run_with_timeout(path.to_owned(), move |path| problem(path, &config)) {
        Ok(None) => {}
        Ok(Some(problem)) => reader.warn(at, problem),
        Err(error) if files.hung() => reader.warn(at, format!("cannot be checked: {error}")),
        // Ignored: opening the store at the start reports it, as the user who runs the program.
        Err(_) => {}
    }
}

/// Why the existing file at `path` cannot be a store.
fn problem(path: &Path, config: &Path) -> io::Result<Option<&'static str>> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Ok(Some("ends with a slash, as a folder does; the store is a file"));
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Ok(Some(kind(found.file_type()))),
        Ok(found) => {
            let same = fs::metadata(config)
                .is_ok_and(|config| (config.dev(), config.ino()) == (found.dev(), found.ino()));
            Ok(same.then_some("is this file itself; the store is a file of its own"))
        }
        Err(error) if is_missing(&error) => missing(path),
        Err(error) => Err(error),
    }
}

fn kind(found: FileType) -> &'static str {
    match found {
        found if found.is_dir() => "is a folder; the store is a file",
        found if found.is_fifo() => "is a pipe; the store is a regular file",
        found if found.is_socket() => "is a socket; the store is a regular file",
        _ => "is a device; the store is a regular file",
    }
}

/// Why no store can be created where nothing exists. Links are followed, since it is created at their end.
fn missing(path: &Path) -> io::Result<Option<&'static str>> {
    let mut end: PathBuf = path.to_owned();
    let mut problem = NO_FOLDER;
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&end) else { break };
        end = end.parent().unwrap_or(Path::new("")).join(target);
        problem = "is a link into a folder that does not exist; a start needs it";
    }
    let folder = end.parent().filter(|folder| !folder.as_os_str().is_empty());
    match fs::metadata(folder.unwrap_or(Path::new("."))) {
        Ok(found) => Ok((!found.is_dir()).then_some(problem)),
        Err(error) if is_missing(&error) => Ok(Some(problem)),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
