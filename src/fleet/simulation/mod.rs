//! Months in the life of a fleet, in one thread and on paused time: the real supervisor, actors, decisions, budget
//! and store interface against the simulated WeChat, which is the oracle of which tokens live.
//!
//! A seed decides everything: latencies, faults, outages, lost answers, clients and operators, reloads, panics,
//! crashes with the loss of what was not written, failing disks, clocks that jump and machines that sleep. What
//! must hold is checked at every look; a seed that fails prints itself and replays exactly, which needs the build
//! that `scripts/simulate` makes, as tokio draws lots of its own otherwise.
#![expect(clippy::print_stdout, reason = "commands show what the simulation has seen")]

mod book;
mod clients;
mod climate;
mod disk;
mod figures;
mod life;
mod network;
mod reloads;
mod sim;
mod tally;
mod ticket_book;
mod time;
mod troubles;
mod weather;

use std::sync::Once;

use self::climate::{Climate, Size};
use self::sim::{Sim, lock};
use self::tally::Tally;

/// What panics on purpose says, so that it is not printed.
const PANIC: &str = "a panic of the simulation's";

/// Panics are part of the weather: only others are printed.
fn quieten_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.payload_as_str().is_some_and(|text| text == PANIC || text == "asked to");
            if !ours {
                before(info);
            }
        }));
    });
}

/// Runs one seed; the digest tells apart runs that differ in anything.
fn simulate(seed: u64, size: Size, in_words: bool) -> (Tally, u64) {
    quieten_panics();
    let sim = Sim::new(seed, size, Climate::of(seed), in_words);
    life::run(&sim);
    let tally = lock(&sim.tally).clone();
    let digest = lock(&sim.trace).digest();
    (tally, digest)
}

/// Runs one seed, once more with words if it fails; a panic that is not the weather's is a violation, too.
fn simulate_or_tell(seed: u64, size: Size) -> Tally {
    let lived = std::panic::catch_unwind(|| {
        let (mut tally, _) = simulate(seed, size, false);
        if !tally.violations.is_empty() {
            tally.violations = simulate(seed, size, true).0.violations;
        }
        tally
    });
    let panicked = || vec![format!("seed {seed}, the simulation: panicked, as is told above")];
    lived.unwrap_or_else(|_| Tally { violations: panicked(), ..Tally::default() })
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => otherwise,
    }
}

/// Runs `seeds` on both cores; where the first violation is enough, the program ends with it.
fn simulate_all(seeds: std::ops::Range<u64>, size: Size) -> Tally {
    let first_only = from_environment("WXTOKEND_FIRST_ONLY", 0) > 0;
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let total = std::sync::Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let tally = simulate_or_tell(seed, size);
                    if first_only && !tally.violations.is_empty() {
                        // At once: the other seed under way may take long to end.
                        println!("{}", tally.violations.join("\n"));
                        std::process::exit(1);
                    }
                    lock(&total).add(tally);
                }
            });
        }
    });
    total.into_inner().unwrap()
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "scripts/test runs it in the build of scripts/simulate")]
fn for_months_of_every_trouble_the_invariants_hold() {
    let size = Size {
        accounts: from_environment("WXTOKEND_ACCOUNTS", 20) as usize,
        days: from_environment("WXTOKEND_DAYS", 30) as i64,
        read_every_ms: from_environment("WXTOKEND_READ_EVERY_MS", 10_000) as i64,
    };
    let from = from_environment("WXTOKEND_SEED", 0);
    let seeds = from..from + from_environment("WXTOKEND_SEEDS", 20);
    let count = usize::try_from(seeds.end - seeds.start).unwrap();
    let tally = simulate_all(seeds, size);
    println!("{}", tally.table(count));
    assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
}

/// Prints the digest of the seed, for [`a_seed_replays_exactly_in_another_process_too`].
#[test]
#[ignore = "is run by another test, in a process of its own"]
fn print_the_digest() {
    let (_, digest) = simulate(from_environment("WXTOKEND_SEED", 0), REPLAYED, false);
    println!("digest {digest:016x}");
}

const REPLAYED: Size = Size { accounts: 12, days: 4, read_every_ms: 10_000 };

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "scripts/test runs it in the build of scripts/simulate")]
fn a_seed_replays_exactly_in_another_process_too() {
    for seed in 0..4 {
        let (tally, digest) = simulate(seed, REPLAYED, false);
        assert!(tally.calls > 100, "{}", tally.table(1));
        assert_eq!(simulate(seed, REPLAYED, true).1, digest, "seed {seed}, with words");
        let program = std::env::current_exe().unwrap();
        let mut other = std::process::Command::new(program);
        other.args(["--ignored", "--nocapture", "--exact", "fleet::simulation::print_the_digest"]);
        let told = other.env("WXTOKEND_SEED", seed.to_string()).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains(&format!("digest {digest:016x}")), "seed {seed}: {told}");
    }
    assert_ne!(simulate(0, REPLAYED, false).1, simulate(1, REPLAYED, false).1);
}
