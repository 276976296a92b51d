//! Runs seeds, one or many.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault_rates::{FaultRates, Size};
use super::sim::{Sim, lock};
use super::tally::Tally;
use super::{life, panics};

/// How much of what happened is told in words where nobody asks for more.
pub(super) const TRACE_LINES: usize = 400;

/// Tells what is not as it must be.
pub(super) fn judged(violations: &[String]) -> ExitCode {
    violations.iter().for_each(|violation| println!("{violation}"));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed, with so much of what happened in words; the digest tells apart runs that differ in anything.
pub(super) fn simulate(seed: u64, size: Size, words: Option<usize>) -> (Tally, u64) {
    panics::quieten();
    let sim = Sim::new(seed, size, FaultRates::of(seed), words);
    life::run(&sim);
    let tally = lock(&sim.tally).clone();
    let digest = lock(&sim.trace).digest();
    (tally, digest)
}

/// Runs one seed, once more with words if it fails; a panic that is not the weather's is a violation, too.
fn simulate_or_tell(seed: u64, size: Size, trace_lines: usize) -> Tally {
    let lived = std::panic::catch_unwind(|| {
        let (mut tally, _) = simulate(seed, size, None);
        if !tally.violations.is_empty() {
            tally.violations = simulate(seed, size, Some(trace_lines)).0.violations;
        }
        tally
    });
    let panicked = || vec![format!("seed {seed}, the simulation: panicked, as is told above")];
    lived.unwrap_or_else(|_| Tally { violations: panicked(), ..Tally::default() })
}

/// Runs `seeds` on all cores; where the first violation is enough, the program ends with it.
pub(super) fn simulate_all(seeds: Range<u64>, size: Size, trace_lines: usize, first_only: bool) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let total = std::sync::Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let tally = simulate_or_tell(seed, size, trace_lines);
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
