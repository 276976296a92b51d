//! Tasks of the project that are too much for a shell script: `cargo xtask --help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints what it does")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it has no runtime, and waits for programs"
)]

mod build;
mod generate;
mod mutate;
mod run;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Breaks the program on purpose, in one way after another, and shows that the simulation or a test
    /// notices
    Mutate(mutate::Mutate),
    /// Writes what follows from the program's own tables into documents, the page and Grafana's files
    Gen(generate::Generate),
}

fn main() -> ExitCode {
    let Cli { task } = Cli::parse();
    // Root of the workspace, in which cargo runs this.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let done = match task {
        Task::Mutate(task) => task.run(root),
        Task::Gen(task) => task.run(root),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
