//! Reading of `accounts.yaml`: text → `file` (forms only) → `check` (rules) → [`Config`].
//!
//! There are two layers of types: a mirror of the file, which holds whatever is written there, and the
//! checked settings.

mod check;
pub(super) mod file;
mod node;
mod parse;
mod place;
mod reader;
mod regular_file;
mod secrets;
mod tags;
mod value;

use std::ffi::OsString;
use std::path::Path;

use reader::{Diagnostics, Env};
use regular_file::{FileContent, Files};

use super::{Config, ConfigError};

/// The maximum size of a file in bytes, 64 MiB: 100 000 accounts with every key set take 50 MB.
const MAX_BYTES: u64 = 64 << 20;

impl Config {
    /// Reads the file at `path`, with `${NAME}` taken from the process's environment.
    ///
    /// The file and all files that it names must be regular files. The first that is not read within 5 s ends
    /// the reading, so that an unreachable share blocks nobody.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] when the file cannot be read, is not a regular file, is longer than 64 MiB
    /// or is not UTF-8; otherwise [`ConfigError::Problems`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut files = Files::default();
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let FileContent { text, mode } = files.read(path, MAX_BYTES).map_err(unreadable)?;
        Self::checked(&text, path, Some(mode), &|name| std::env::var_os(name), files)
    }

    /// Parses `text` as the content of a file at `path`, against whose folder relative paths are resolved.
    /// `env` looks up environment variables.
    ///
    /// # Errors
    /// [`ConfigError::Problems`] with everything that is wrong.
    pub fn parse(
        text: &str,
        path: &Path,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        Self::checked(text, path, None, &env, Files::default())
    }

    fn checked(
        text: &str,
        path: &Path,
        mode: Option<u32>,
        env: Env<'_>,
        files: Files,
    ) -> Result<Self, ConfigError> {
        let problems = |Diagnostics { problems, warnings }| ConfigError::Problems {
            path: path.to_owned(),
            problems,
            warnings,
        };
        check::config(text, path, mode, env, files).map_err(problems)
    }
}
