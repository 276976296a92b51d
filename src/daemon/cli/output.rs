//! Standard output, whose reader may have gone.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;

use super::failure::Failure;

/// Prints an answer. A closed pipe is not an error, as in `wxtokend status | head`.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_part(text).map(drop)
}

/// Prints a part of an answer; breaks if stdout has been closed.
pub(super) fn print_part(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::to("write to stdout", &error)),
    }
}

/// Formats a count: `1 account`, `2 accounts`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
