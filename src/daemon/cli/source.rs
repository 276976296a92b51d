//! Sources of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use super::failure::{Failure, chain};
use super::output::counted;
use crate::config::{Config, ConfigError};

/// The default for `--config`.
const DEFAULT: &str = "accounts.yaml";
/// Another default for the sandbox: it needs no real secrets.
const EXAMPLE: &str = "accounts.example.yaml";
const EMBEDDED: &str = include_str!("../../../accounts.example.yaml");

/// A file, or the example that is compiled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Embedded,
}

impl Source {
    /// The given file, or `accounts.yaml`.
    pub(super) fn for_daemon(given: Option<PathBuf>) -> Self {
        Self::File(given.unwrap_or_else(|| DEFAULT.into()))
    }

    /// The given file, or the first of `accounts.yaml` and `accounts.example.yaml` that exists in `folder`,
    /// or the embedded example.
    pub(super) fn for_sandbox(given: Option<PathBuf>, folder: &Path) -> Self {
        let existing = |name| Some(folder.join(name)).filter(|path| path.exists());
        let found = given.or_else(|| existing(DEFAULT)).or_else(|| existing(EXAMPLE));
        found.map_or(Self::Embedded, Self::File)
    }

    /// Reads the configuration now.
    pub(super) fn read(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => Config::load(path),
            Self::Embedded => Config::parse(EMBEDDED, Path::new(EXAMPLE), |_| None),
        }
    }

    /// Reads the configuration now; any problem counts as bad usage.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        self.read().map_err(|error| Failure::Usage(self.explain(&error)))
    }

    fn explain(&self, error: &ConfigError) -> String {
        match error {
            ConfigError::Problems { problems, warnings, .. } => {
                let head = format!("{self} has {}\n{error}", counted(problems.len(), "problem"));
                warnings.iter().fold(head, |text, warning| text + &format!("\nwarning: {self}: {warning}"))
            }
            ConfigError::Unreadable { source, .. } => {
                let hint = match source.kind() {
                    std::io::ErrorKind::NotFound => {
                        "\nwrite one after accounts.example.yaml and name it by --config, \
                         or try things out without: wxtokend run --sandbox"
                    }
                    _ => "",
                };
                format!("failed to {}{hint}", chain(error))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Embedded => f.write_str("the built-in example"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_reads_accounts_yaml_by_default() {
        assert_eq!(Source::for_daemon(None), Source::File("accounts.yaml".into()));
        assert_eq!(Source::for_daemon(Some("x.yaml".into())), Source::File("x.yaml".into()));
    }

    #[test]
    fn a_simulation_falls_back_to_the_example_and_then_to_the_embedded_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let found = || Source::for_sandbox(None, folder.path());
        assert_eq!(found(), Source::Embedded);
        std::fs::write(path(EXAMPLE), "").unwrap();
        assert_eq!(found(), Source::File(path(EXAMPLE)));
        std::fs::write(path(DEFAULT), "").unwrap();
        assert_eq!(found(), Source::File(path(DEFAULT)));
        let given = path("missing.yaml");
        assert_eq!(Source::for_sandbox(Some(given.clone()), folder.path()), Source::File(given));
    }

    #[test]
    fn the_embedded_example_loads() {
        assert_eq!(Source::Embedded.load().unwrap().accounts.len(), 6);
    }

    #[test]
    fn a_missing_file_is_bad_usage_with_a_hint() {
        let Err(Failure::Usage(text)) = Source::File("/nowhere/accounts.yaml".into()).load() else {
            panic!("bad usage expected")
        };
        assert!(text.starts_with("failed to read /nowhere/accounts.yaml: No such file"), "{text}");
        assert!(text.contains("run --sandbox"), "{text}");
    }

    #[test]
    fn all_problems_of_a_broken_file_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "accounts: [{ appid: a, secret: '' }, { appid: a, secret: s, nme: x }]")
            .unwrap();
        let Err(Failure::Usage(text)) = Source::File(path).load() else { panic!("bad usage expected") };
        assert!(text.lines().next().unwrap().ends_with("a.yaml has 3 problems"), "{text}");
        let warnings = text.lines().skip(4).filter(|line| line.starts_with("warning: ")).count();
        assert!(warnings > 0 && text.lines().count() == 4 + warnings, "{text}");
    }
}
