//! Third-party programs that tests need.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Time for a download and a compilation on the slowest machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A program from the PATH. Panics with install instructions if it is missing.
pub(crate) async fn tool(name: &str, package: &str) -> Command {
    let found =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    assert!(found.is_ok(), "this test needs {name}: install it (sudo apt-get install {package})");
    Command::new(name)
}

/// Runs `command` to its end and returns its output.
pub(crate) async fn said(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    timeout(TIMEOUT, command.output()).await.expect("the command never ended").unwrap()
}

/// Everything in `output`, for messages.
pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
