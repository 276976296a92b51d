//! `accounts.yaml` as it is read: text → `file` (forms only) → `check` (rules) → [`Config`].
//!
//! Two layers of types: a mirror of the file, which holds whatever stands there, and the checked settings.

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

/// The longest file in bytes, 64 MiB: 100 000 accounts that say everything take 50 MB.
const LONGEST: u64 = 64 << 20;

impl Config {
    /// Reads the file at `path`, its `${NAME}` from the process's environment.
    ///
    /// It and the files that it names must be regular ones. One that is not read within 5 s ends the reading, so that a share
    /// that is away holds nobody up.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] when the file cannot be read, is no regular file, longer than 64 MiB or not UTF-8, else
    /// [`ConfigError::Problems`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut files = Files::default();
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let FileContent { text, mode } = files.read(path, LONGEST).map_err(unreadable)?;
        Self::checked(&text, path, Some(mode), &|name| std::env::var_os(name), files)
    }

    /// Reads `text` as the contents of a file at `path`, whose folder relative paths count from. `env` looks up
    /// environment variables.
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
