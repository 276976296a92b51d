//! Measures what an operator may rely on: calls without faults and in an outage, how long an outage is
//! survived, how soon every account has recovered. `scripts/figures` puts the table into README.md.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;
use wxtokend::Defaults;
use wxtokend::internals;
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::phase::Phase;
use wxtokend_core::secret::Secret;

use super::fault_rates::NAMES;
use super::fault_rates::{DAY, FaultRates, HOUR, MINUTE, SECOND, Size};
use super::life::{runtime, start};
use super::run::{TRACE_LINES, judged, simulate_all};
use super::sim::{HostTrouble, Sim, lock};

/// `stable_token` and `token`, as the columns of the table.
const COLUMNS: [Endpoint; 2] = [Endpoint::StableToken, Endpoint::Token];
const TROUBLES: [HostTrouble; 3] = [HostTrouble::Refuses, HostTrouble::Hangs, HostTrouble::Says(502)];

/// A fleet on one endpoint, with the file's defaults, and no faults.
fn fleet_of(endpoint: Endpoint, accounts: usize, seed: u64) -> Arc<Sim> {
    let defaults = Defaults { endpoint, ..Defaults::default() };
    let account = |n| {
        let appid = Appid::new(&format!("wx{n:02}")).unwrap();
        (defaults.account(appid, Secret::new(format!("secret of {n}"))), false)
    };
    let accounts: Vec<(Account, bool)> = (0..accounts).map(account).collect();
    let size = Size { accounts: accounts.len(), days: 0, read_every_ms: 10_000 };
    let sim = Sim::with(seed, size, FaultRates::default(), accounts, StdRng::seed_from_u64(seed), None);
    sim.oracle().config.upstream.max_per_second = 100;
    sim
}

/// Numbers whose mean and extremes are shown.
#[derive(Default)]
struct Sample(Vec<f64>);

impl Sample {
    fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::MIN, f64::max)
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::MAX, f64::min)
    }
}

/// Token calls of each account in each of a few days without faults.
fn calls_without_faults(endpoint: Endpoint) -> Sample {
    let sim = fleet_of(endpoint, 100, 1);
    let mut calls = Sample::default();
    runtime(&sim).block_on(async {
        sim.time.enter_runtime();
        let fleet = start(&sim).await.unwrap();
        for _ in 0..7 {
            sleep(Duration::from_secs(86_400)).await;
            let now = sim.now();
            sim.oracle()
                .checkers
                .iter_mut()
                .for_each(|checker| calls.add(checker.calls_in_a_day(now) as f64));
        }
        drop(fleet);
    });
    calls
}

/// What one outage did to the accounts.
struct Outage {
    /// How long each account still had a token, in minutes; without those that had one to the end.
    lasted: Sample,
    /// How long after the end of the outage each account had a token again, in seconds.
    back: Sample,
    /// How long after it each account was fresh, in seconds.
    fresh: Sample,
    /// Calls of each account within its last 24 h at the end.
    calls: Sample,
}

fn outage(endpoint: Endpoint, accounts: usize, trouble: HostTrouble, length: i64, seed: u64) -> Outage {
    let sim = fleet_of(endpoint, accounts, seed);
    let mut seen = Outage {
        lasted: Sample::default(),
        back: Sample::default(),
        fresh: Sample::default(),
        calls: Sample::default(),
    };
    runtime(&sim).block_on(async {
        sim.time.enter_runtime();
        let fleet = start(&sim).await.unwrap();
        sim.set_fleet(Some(fleet.clone()));
        // Long enough for the refreshes to have spread.
        let begin = Duration::from_millis(u64::try_from(sim.between(5 * HOUR, 8 * HOUR)).unwrap());
        sleep(begin).await;
        sim.oracle().hosts.insert(NAMES[0].to_owned(), trouble);
        let (began, mut lost) = (sim.now(), vec![false; accounts]);
        while sim.now() < began + length {
            sleep(Duration::from_secs(1)).await;
            sim.look_at_all();
            let oracle = sim.oracle();
            for (checker, lost) in
                oracle.checkers.iter().zip(&mut lost).filter(|(checker, lost)| !checker.served && !**lost)
            {
                *lost = true;
                seen.lasted.add((sim.now() - began) as f64 / MINUTE as f64);
                let _ = checker;
            }
        }
        let now = sim.now();
        sim.oracle()
            .checkers
            .iter_mut()
            .for_each(|checker| seen.calls.add(checker.calls_in_a_day(now) as f64));
        sim.oracle().hosts.clear();
        let ended = sim.now();
        let (mut back, mut fresh) = (vec![false; accounts], vec![false; accounts]);
        while !(back.iter().all(|back| *back) && fresh.iter().all(|fresh| *fresh)) {
            assert!(sim.now() < ended + HOUR, "some account never recovers");
            sleep(Duration::from_millis(100)).await;
            sim.look_at_all();
            let after = (sim.now() - ended) as f64 / SECOND as f64;
            let now = internals::now(&fleet);
            for (n, state) in internals::states(&fleet).iter().enumerate() {
                if !back[n] && state.is_usable(now) {
                    back[n] = true;
                    seen.back.add(after);
                }
                if !fresh[n] && state.phase(now) == Phase::Fresh {
                    fresh[n] = true;
                    seen.fresh.add(after);
                }
            }
        }
        sim.set_fleet(None);
    });
    assert!(lock(&sim.tally).violations.is_empty(), "{:?}", lock(&sim.tally).violations);
    seen
}

/// Measurements of one endpoint.
struct Column {
    without_faults: Sample,
    lasted: Sample,
    back: Sample,
    fresh: Sample,
    calls: Sample,
}

fn column(endpoint: Endpoint, accounts: usize, repeats: u64) -> Column {
    let mut column = Column {
        without_faults: calls_without_faults(endpoint),
        lasted: Sample::default(),
        back: Sample::default(),
        fresh: Sample::default(),
        calls: Sample::default(),
    };
    for (n, trouble) in TROUBLES.into_iter().enumerate() {
        for (m, length) in [10 * MINUTE, HOUR, DAY].into_iter().enumerate() {
            for repeat in 0..repeats {
                let seed = repeat * 100 + n as u64 * 10 + m as u64;
                let seen = outage(endpoint, accounts, trouble, length, seed);
                column.lasted.0.extend(seen.lasted.0);
                column.back.0.extend(seen.back.0);
                column.fresh.0.extend(seen.fresh.0);
                if length == DAY {
                    column.calls.0.extend(seen.calls.0);
                }
            }
        }
    }
    column
}

/// The columns of both endpoints, each on its own core.
fn columns(accounts: usize, repeats: u64) -> [Column; 2] {
    std::thread::scope(|scope| {
        COLUMNS
            .map(|endpoint| scope.spawn(move || column(endpoint, accounts, repeats)))
            .map(|column| column.join().unwrap())
    })
}

const ACCOUNTS: usize = 200;
/// Depends on the `upstream.max_per_second` of these fleets, so that the rate limit is accounted for.
const GOAL_S: f64 = 60.0 + ACCOUNTS as f64 / 100.0;

/// Measures once, and reports goals that are missed.
pub(super) fn check_goals() -> ExitCode {
    let [stable, token] = columns(ACCOUNTS, 1);
    let mut goals = vec![
        (
            "calls a day in peace on stable_token",
            stable.without_faults.max(),
            stable.without_faults.max() <= 16.0,
        ),
        ("calls a day in peace on token", token.without_faults.max(), token.without_faults.max() <= 24.0),
        ("seconds until all are fresh on stable_token", stable.fresh.max(), stable.fresh.max() <= GOAL_S),
        ("minutes that an outage may last on stable_token", stable.lasted.min(), stable.lasted.min() >= 3.0),
        ("minutes that an outage may last on token", token.lasted.min(), token.lasted.min() >= 20.0),
    ];
    for column in [&stable, &token] {
        goals.push(("calls in a day without WeChat", column.calls.max(), column.calls.max() <= 2000.0));
        goals.push(("seconds until all have a token", column.back.max(), column.back.max() <= GOAL_S));
    }
    let missed = |(what, reached, met): &(&str, f64, bool)| {
        println!("{what}: {reached:.1}");
        (!met).then(|| format!("missed: {what}, {reached:.1}"))
    };
    judged(&goals.iter().filter_map(missed).collect::<Vec<_>>())
}

/// Prints the table of README.md, into which `scripts/figures` writes it.
pub(super) fn print(seeds: u64, repeats: u64) -> ExitCode {
    let [stable, token] = columns(ACCOUNTS, repeats);
    let size = Size { accounts: 20, days: 30, read_every_ms: 10_000 };
    let months = simulate_all(0..seeds, size, TRACE_LINES, false);
    let mut table = String::new();
    let mut row = |name: &str, goal: &str, cell: &dyn Fn(&Column) -> String| {
        writeln!(table, "| {name} | {} | {} | {goal} |", cell(&stable), cell(&token)).unwrap();
    };
    row("calls a day in peace, mean / most", "16 / 24 at most", &|column| {
        format!("{:.1} / {:.0}", column.without_faults.mean(), column.without_faults.max())
    });
    row("calls in a day without WeChat, mean / most", "the budget, 2000", &|column| {
        format!("{:.0} / {:.0}", column.calls.mean(), column.calls.max())
    });
    row("an outage that no client notices, least / mean", "", &|column| {
        format!("{:.1} / {:.0} min", column.lasted.min(), column.lasted.mean())
    });
    row("a token again after an outage, mean / last", &format!("{GOAL_S:.0} s"), &|column| {
        format!("{:.1} / {:.1} s", column.back.mean(), column.back.max())
    });
    row(
        "fresh again after an outage, mean / last",
        &format!("{GOAL_S:.0} s; 5 min more in doubt"),
        &|column| format!("{:.1} / {:.1} s", column.fresh.mean(), column.fresh.max()),
    );
    print!("{table}");
    println!(
        "In all: {:.1} years of {} accounts in every trouble at once, {:.1} × 10⁸ reads checked, {} violations.",
        months.simulated_ms as f64 / DAY as f64 / 365.0,
        size.accounts,
        months.reads as f64 / 1e8,
        months.violations.len()
    );
    judged(&months.violations)
}
