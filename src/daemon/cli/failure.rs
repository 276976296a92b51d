//! Errors of commands, and their exit codes.

use std::error::Error;
use std::process::ExitCode;

/// Why a command failed. Printed unchanged after `error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Bad usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The daemon cannot be reached or cannot answer now, but may later: exit code 1.
    #[error("{0}")]
    Later(String),
    /// Everything else: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// An error that reads `failed to …: …`, with the causes of `error`.
    pub(super) fn to(what: &str, error: &dyn Error) -> Self {
        Self::Failed(format!("failed to {what}: {}", chain(error)))
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Later(_) | Self::Failed(_) => 1,
        })
    }
}

/// Formats an error and its causes: `open the store: permission denied`.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct TestError(&'static str, #[source] Option<Box<TestError>>);

    #[test]
    fn a_chain_shows_every_cause_once() {
        let cause = TestError("permission denied", None);
        let error = TestError("open it: permission denied", Some(Box::new(cause)));
        let error = TestError("start", Some(Box::new(error)));
        assert_eq!(chain(&error), "start: open it: permission denied");
    }

    #[test]
    fn bad_usage_is_2_and_everything_else_is_1() {
        let code = |failure: Failure| format!("{:?}", failure.exit_code());
        assert_eq!(code(Failure::Usage(String::new())), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(Failure::Failed(String::new())), format!("{:?}", ExitCode::from(1)));
    }
}
