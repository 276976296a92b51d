//! Simulates months of a fleet's life, in one thread and on paused time: the real supervisor, actors,
//! decisions, budget and store interface against the simulated WeChat, which is the oracle of which tokens
//! are alive.
//!
//! A seed decides everything: latencies, faults, outages, lost answers, clients and operators, reloads,
//! panics, crashes with the loss of what was not written, failing disks, clocks that jump and machines that
//! are suspended. Invariants are checked at every read. A seed that fails is printed and replays exactly;
//! that needs the build that `scripts/simulate` makes, as tokio otherwise uses random numbers of its own.
#![expect(clippy::print_stdout, reason = "commands print what the simulation has seen")]
#![expect(clippy::unwrap_used, reason = "an impossible state of the simulation ends the run")]

mod checker;
mod clients;
mod disk;
mod events;
mod fault_rates;
mod figures;
mod life;
mod network;
mod panics;
mod reloads;
mod run;
mod sim;
mod strangers;
mod tally;
mod ticket_checker;
mod time;
mod troubles;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use self::fault_rates::Size;
use self::run::{TRACE_LINES, judged, simulate, simulate_all};

/// The size of a run that is replayed.
const REPLAYED: Size = Size { accounts: 12, days: 4, read_every_ms: 10_000 };
/// How many seeds are replayed.
const REPLAYS: u64 = 4;

/// Simulates months of a fleet's life and checks invariants.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Simulates months of fleets, with every kind of fault at once: prints what happened, as a table, and
    /// each violation with its seed, which replays exactly
    Months(Months),
    /// Shows that a seed decides everything: runs each of a few seeds again, with a trace and in another
    /// process
    Replays,
    /// Prints a digest of everything that happens to a small fleet
    Digest {
        /// Which one
        seed: u64,
    },
    /// Measures calls, outages and recoveries without other faults, against their goals
    Goals,
    /// Measures what strangers cost that mint with the same AppSecret, by what clients and we do about it
    Strangers,
    /// The same as `goals`, measured more often, as the table of README.md
    Figures {
        /// Fleets that are simulated for a month of faults
        #[arg(long, default_value_t = 24)]
        seeds: u64,
        /// Outages of each kind
        #[arg(long, default_value_t = 5)]
        repeats: u64,
    },
}

#[derive(Parser)]
struct Months {
    /// How many fleets
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first one's seed; to replay a seed: --from SEED --seeds 1
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Accounts in each
    #[arg(long, default_value_t = 20)]
    accounts: usize,
    /// Simulated days of faults, before a quiet day
    #[arg(long, default_value_t = 30)]
    days: i64,
    /// Mean simulated time between two reads of every account, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    read_every_ms: i64,
    /// How many lines of the trace that led to a violation are printed
    #[arg(long, default_value_t = TRACE_LINES)]
    trace_lines: usize,
    /// Stops at the first violation
    #[arg(long)]
    first_only: bool,
}

fn main() -> ExitCode {
    match Cli::parse().work {
        Work::Months(months) => run_months(&months),
        Work::Replays => replay(),
        Work::Digest { seed } => {
            println!("{:016x}", simulate(seed, REPLAYED, None).1);
            ExitCode::SUCCESS
        }
        Work::Goals => figures::check_goals(),
        Work::Strangers => strangers::measure(),
        Work::Figures { seeds, repeats } => figures::print(seeds, repeats),
    }
}

fn run_months(months: &Months) -> ExitCode {
    let &Months { seeds, from, accounts, days, read_every_ms, trace_lines, first_only } = months;
    let tally =
        simulate_all(from..from + seeds, Size { accounts, days, read_every_ms }, trace_lines, first_only);
    println!("{}", tally.table(seeds));
    judged(&tally.violations)
}

fn replay() -> ExitCode {
    if cfg!(not(tokio_unstable)) {
        return judged(&[
            "only a build with `--cfg tokio_unstable` replays: scripts/simulate makes it".to_owned()
        ]);
    }
    let (mut digests, same) = (Vec::new(), ["two seeds are one".to_owned()]);
    for seed in 0..REPLAYS {
        let (tally, digest) = simulate(seed, REPLAYED, None);
        let mut other = Command::new(std::env::current_exe().unwrap());
        let output = other.args(["digest", &seed.to_string()]).output().unwrap();
        let again = [
            (format!("{digest:016x}"), "as it is"),
            (format!("{:016x}", simulate(seed, REPLAYED, Some(TRACE_LINES)).1), "with words"),
            (String::from_utf8(output.stdout).unwrap().trim().to_owned(), "in another process"),
        ];
        for (digest, how) in &again {
            println!("seed {seed}, {how}: {digest}");
        }
        if tally.calls <= 100 || again.iter().any(|(other, _)| *other != again[0].0) {
            return judged(&[format!("seed {seed} does not replay exactly, or nothing happens in it")]);
        }
        digests.push(digest);
    }
    let differ = digests.windows(2).all(|pair| pair[0] != pair[1]);
    judged(if differ { &[] } else { &same })
}
