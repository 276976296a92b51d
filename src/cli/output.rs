//! Standard output and standard error, either of which somebody may have closed.

use std::io::{self, ErrorKind, Write};

use super::failure::Failure;

/// Prints an answer. That nobody reads on is fine: `wxtokend status | head`.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::to("write to stdout", &error)),
        _ => Ok(()),
    }
}

/// Tells a person something that is no answer.
pub(super) fn tell(text: &str) {
    // Nowhere is left to complain.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
