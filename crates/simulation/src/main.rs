//! Months in the life of a fleet, in one thread and on paused time: the real supervisor, actors, decisions, budget
//! and store interface against the simulated WeChat, which is the oracle of which tokens live.
//!
//! A seed decides everything: latencies, faults, outages, lost answers, clients and operators, reloads, panics,
//! crashes with the loss of what was not written, failing disks, clocks that jump and machines that sleep. What
//! must hold is checked at every look; a seed that fails prints itself and replays exactly, which needs the build
//! that `scripts/simulate` makes, as tokio draws lots of its own otherwise.
#![expect(clippy::print_stdout, reason = "commands show what the simulation has seen")]
#![expect(clippy::unwrap_used, reason = "what cannot be in a world of our own ends the run")]

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
mod tally;
mod ticket_checker;
mod time;
mod troubles;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use self::fault_rates::Size;
use self::run::{TRACE_LINES, judged, simulate, simulate_all};

/// What a seed lives through to be replayed.
const REPLAYED: Size = Size { accounts: 12, days: 4, read_every_ms: 10_000 };
/// How many seeds are replayed.
const REPLAYS: u64 = 4;

/// Lives through months of a fleet's life and judges what it sees.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Months in the life of simulated fleets, with every trouble at once: what they saw, as a table, and each violation
    /// with its seed, which replays exactly
    Months(Months),
    /// Shows that a seed decides everything: each of a few is lived through again, with words and in another process
    Replays,
    /// Prints a digest of all that happens to a small fleet
    Digest {
        /// Which one
        seed: u64,
    },
    /// Calls, outages and recoveries in a world without weather, held against their goals
    Goals,
    /// The same, measured more often, as the table of README.md
    Figures {
        /// Fleets that live through months of trouble
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
    /// Simulated days of trouble, before a day of peace
    #[arg(long, default_value_t = 30)]
    days: i64,
    /// Simulated time between two looks at every account, on the average
    #[arg(long, default_value_t = 10_000)]
    read_every_ms: i64,
    /// How much of what led to a violation is told
    #[arg(long, default_value_t = TRACE_LINES)]
    trace_lines: usize,
    /// Ends with the first violation
    #[arg(long)]
    first_only: bool,
}

fn main() -> ExitCode {
    match Cli::parse().work {
        Work::Months(months) => live_through(&months),
        Work::Replays => replay(),
        Work::Digest { seed } => {
            println!("{:016x}", simulate(seed, REPLAYED, None).1);
            ExitCode::SUCCESS
        }
        Work::Goals => figures::hold_against_the_goals(),
        Work::Figures { seeds, repeats } => figures::print(seeds, repeats),
    }
}

fn live_through(months: &Months) -> ExitCode {
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
        let told = other.args(["digest", &seed.to_string()]).output().unwrap();
        let again = [
            (format!("{digest:016x}"), "as it is"),
            (format!("{:016x}", simulate(seed, REPLAYED, Some(TRACE_LINES)).1), "with words"),
            (String::from_utf8(told.stdout).unwrap().trim().to_owned(), "in another process"),
        ];
        for (told, how) in &again {
            println!("seed {seed}, {how}: {told}");
        }
        if tally.calls <= 100 || again.iter().any(|(told, _)| *told != again[0].0) {
            return judged(&[format!("seed {seed} does not replay exactly, or nothing happens in it")]);
        }
        digests.push(digest);
    }
    let differ = digests.windows(2).all(|pair| pair[0] != pair[1]);
    judged(if differ { &[] } else { &same })
}
