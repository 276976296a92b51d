//! The command line: `wxtokend run`, `check`, `status`, `token`, `refresh`, `sandbox`.
//!
//! Answers go to stdout, everything else to stderr. Nothing in here is part of the library's face.

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

/// How long threads that write or look up a name may take to end once all else has.
const LAST_THREADS: Duration = Duration::from_millis(500);
/// How long the last lines of a daemon may take to be written; one that stops has 10 s for all.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Does what the command line says: 0 done or asked to stop, 1 failed, 2 bad usage or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { log_format, core_dumps, command } = Cli::parse();
    // Whoever asks for an answer may take as long to read what is told beside it, in a pager for one.
    let last_lines = if command.stays() { LAST_LINES } else { Duration::MAX };
    let done = logging::init(log_format)
        .map_err(|error| Failure::to("start the thread that logs", &error))
        .and_then(|()| {
            if !core_dumps {
                core_dumps::forbid();
            }
            on_runtime(carry_out(command, log_format))
        });
    if let Err(failure) = &done {
        match log_format {
            Format::Text => logging::tell(&format!("error: {failure}\n")),
            Format::Json => tracing::error!(event = "failed", "{failure}"),
        }
    }
    logging::flush(last_lines);
    done.map_or_else(|failure| failure.exit_code(), |()| ExitCode::SUCCESS)
}

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::to("start the runtime", &error))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_THREADS);
    done
}

async fn carry_out(command: Command, log_format: Format) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(args, log_format).await,
        Command::Check(args) => check::check(args),
        Command::Status(args) => status::status(args).await,
        Command::Token(args) => token::token(args).await,
        Command::Refresh(args) => refresh::refresh(args).await,
        Command::Sandbox(args) => sandbox::sandbox(args, log_format).await,
    }
}
