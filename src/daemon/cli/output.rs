//! Standard output, which somebody may have closed.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;

use super::failure::Failure;

/// Prints an answer. That nobody reads on is fine: `wxtokend status | head`.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// Prints an answer to which there is more; stops where nobody reads on.
pub(super) fn print_on(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::to("write to stdout", &error)),
    }
}

/// `1 account`, `2 accounts`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
