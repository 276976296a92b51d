//! Runs seeds, one or many.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault_rates::{FaultRates, Size};
use super::sim::{Sim, lock};
use super::tally::Tally;
use super::{life, panics};

/// Default number of trace lines that are kept.
pub(super) const TRACE_LINES: usize = 400;

/// Prints the violations.
pub(super) fn judged(violations: &[String]) -> ExitCode {
    violations.iter().for_each(|violation| println!("{violation}"));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed, keeping up to `words` lines of trace. The digest distinguishes runs that differ in
/// anything.
pub(super) fn simulate(seed: u64, size: Size, words: Option<usize>) -> (Tally, u64) {
    panics::quieten();
    let sim = Sim::new(seed, size, FaultRates::of(seed), words);
    life::run(&sim);
    let tally = lock(&sim.tally).clone();
    let digest = lock(&sim.trace).digest();
    (tally, digest)
}

/// Runs one seed, and runs it again with a trace if it fails. A panic that was not injected is a violation,
/// too.
fn simulate_and_trace(seed: u64, size: Size, trace_lines: usize) -> Tally {
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

/// Runs `seeds` on all cores. With `first_only`, the program exits at the first violation.
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
                    let tally = simulate_and_trace(seed, size, trace_lines);
                    if first_only && !tally.violations.is_empty() {
                        // At once: the other seed under way may take long.
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
