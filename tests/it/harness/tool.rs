//! Programs of others, which must be there.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// A download and a compiler's run, on the slowest machine.
const LONGEST: Duration = Duration::from_secs(300);

/// A program from the PATH, found or told how to get it.
pub(crate) async fn tool(name: &str, package: &str) -> Command {
    let found =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    assert!(found.is_ok(), "this test needs {name}: install it (sudo apt-get install {package})");
    Command::new(name)
}

/// What `command` said and how it ended, once it has.
pub(crate) async fn said(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    timeout(LONGEST, command.output()).await.expect("the command never ended").unwrap()
}

/// All that `output` said, for a message.
pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
