//! The command line: `wxtokend run`, `check`, `status`, `token`, `refresh`, `sandbox`.
//!
//! Answers go to stdout, everything else to stderr. Only [`main`] is part of the library's API.

mod accounts;
mod args;
mod check;
mod client;
mod core_dumps;
mod embedded_sandbox;
mod failure;
mod open_files;
mod output;
mod refresh;
mod reload;
mod run;
mod sandbox;
mod signals;
mod source;
mod status;
mod stream;
mod summary;
mod table;
mod token;
mod warnings;
mod watch;
mod welcome;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime;

use self::args::{Cli, Command};
use self::failure::Failure;
use crate::daemon::telemetry::logging::{self, Format};

/// Time for threads that still write or resolve a name, after everything else has ended.
const THREADS_GRACE: Duration = Duration::from_millis(500);
/// Time for writing the last log lines of a daemon. A supervisor gives it 10 s in total to stop.
const LINES_GRACE: Duration = Duration::from_secs(1);

/// Runs the command given by the arguments. Exit codes: 0 for success or a requested stop, 1 for failure, 2
/// for bad usage or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { log_format, core_dumps, command } = Cli::parse();
    // An interactive command waits until its messages are read, for instance in a pager.
    let lines_grace = if command.is_server() { LINES_GRACE } else { Duration::MAX };
    let result = logging::init(log_format)
        .map_err(|error| Failure::to("start the thread that logs", &error))
        .and_then(|()| {
            if !core_dumps {
                core_dumps::forbid();
            }
            on_runtime(run_command(command, log_format))
        });
    if let Err(failure) = &result {
        match log_format {
            Format::Text => logging::print_message(&format!("error: {failure}\n")),
            Format::Json => tracing::error!(event = "failed", "{failure}"),
        }
    }
    logging::flush(lines_grace);
    result.map_or_else(|failure| failure.exit_code(), |()| ExitCode::SUCCESS)
}

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::to("start the runtime", &error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS_GRACE);
    result
}

async fn run_command(command: Command, log_format: Format) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(args, log_format).await,
        Command::Check(args) => check::check(args),
        Command::Status(args) => status::status(args).await,
        Command::Token(args) => token::token(args).await,
        Command::Refresh(args) => refresh::refresh(args).await,
        Command::Sandbox(args) => sandbox::sandbox(args, log_format).await,
    }
}
