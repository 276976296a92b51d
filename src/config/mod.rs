//! `accounts.yaml`: what the operator decides.
//!
//! Two layers of types: a mirror of the file, which holds whatever stands there, and the checked settings that
//! the program uses. A reading ends with a whole [`Config`] or with every problem of the file, none of which
//! prints a secret. It goes text → `file` (forms only) → `check` (rules) → [`Config`].
mod check;
mod checked;
pub mod duration;
mod file;
mod grants;
mod node;
mod parse;
mod place;
mod problem;
#[cfg(test)]
mod properties;
mod reader;
mod show;
mod sink;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

pub use checked::{Api, Config, Defaults, Metrics, PerAccount, Store, Upstream};
pub use grants::{Allow, Client, Grants, InvalidGrant};
pub use problem::{ConfigError, Position, Problem};
pub use sink::Sink;

impl Config {
    /// Reads the file at `path`, its `${NAME}` from the process's environment.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] when the file cannot be read or is not UTF-8, else [`ConfigError::Problems`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path, |name| std::env::var_os(name))
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
        let problems = |problems| ConfigError::Problems { path: path.to_owned(), problems };
        check::config(text, path, &env).map_err(problems)
    }
}
