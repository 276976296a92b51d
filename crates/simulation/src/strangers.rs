//! Measures what it costs that a stranger mints with the same AppSecret: business calls that WeChat refuses,
//! by what clients do about them and by what we do.
//!
//! There are no other faults, and every random number here is drawn from a stream of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;
use wxtokend::internals::{ask, token_at_once};
use wxtokend::{Defaults, Fleet, Token};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::Request as Asked;

use super::fault_rates::{DAY, FaultRates, HOUR, MINUTE, SECOND, Size};
use super::life::{runtime, start};
use super::run::judged;
use super::sim::{Sim, lock};

/// Accounts on `token`, each with one client.
const ACCOUNTS: usize = 20;
const DAYS: i64 = 2;
/// Each client calls WeChat this often.
const CALL_EVERY_S: i64 = 3;

/// What a client does about a refused call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Nothing: it keeps its token for as long as it was promised.
    Keeps,
    /// It asks the WeChat-shaped endpoint again.
    AsksAgain,
    /// It reports the token.
    Reports,
    /// Nothing, but it asks our own API for each call.
    AsksForEachCall,
}

/// What we do where nobody reports.
#[derive(Debug, Clone, Copy)]
struct Remedies {
    hints: bool,
    audits: bool,
}

const NONE: Remedies = Remedies { hints: false, audits: false };
const HINTS: Remedies = Remedies { hints: true, audits: false };
const AUDITS: Remedies = Remedies { hints: false, audits: true };
const ALL: Remedies = Remedies { hints: true, audits: true };

/// The most seconds, and the most calls in a row.
type Goal = (i64, u64);

/// What is measured, with the most seconds and calls that one mint of a stranger may cost a client. A check
/// that times out, as one in some thousands does here, costs its source a minute.
const CASES: [(Habit, Remedies, &str, Option<Goal>); 8] = [
    (Habit::Keeps, NONE, "keeps its token", None),
    (Habit::Keeps, ALL, "keeps its token, all remedies", None),
    (Habit::AsksForEachCall, NONE, "asks us for each call", None),
    (Habit::AsksForEachCall, AUDITS, "asks us for each call, audits", Some((5 * 60 + CALL_EVERY_S, 102))),
    (Habit::AsksAgain, NONE, "asks again", None),
    (Habit::AsksAgain, HINTS, "asks again, hints", Some((15, 4))),
    (Habit::AsksAgain, ALL, "asks again, all remedies", Some((15 + 60, 4 + 21))),
    (Habit::Reports, NONE, "reports", Some((15, 4))),
];

/// One application.
struct Client {
    /// The token it holds, and until when it keeps it.
    held: Option<(Token, i64)>,
    /// When the first of its last calls was refused, and how many were in a row.
    refused: Option<(i64, u64)>,
}

/// What one kind of client has seen.
#[derive(Default)]
struct Seen {
    calls: u64,
    refused: u64,
    /// The longest time for which a client's calls were refused,
    longest_ms: i64,
    /// and the most of its calls in a row.
    most: u64,
    /// Mints by strangers.
    strangers: u64,
    /// The most checks of an account in 24 h.
    checks: usize,
}

/// Prints a table, and reports goals that are missed.
pub(super) fn measure() -> ExitCode {
    println!(
        "{:34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "client", "calls", "refused", "longest", "most", "mints", "checks"
    );
    let mut missed = Vec::new();
    for (seed, (habit, remedies, name, goal)) in (0..).zip(CASES) {
        let (seen, violations) = run(seed, habit, remedies);
        let Seen { calls, refused, longest_ms, most, strangers, checks } = seen;
        let longest_s = longest_ms / SECOND;
        println!("{name:34}{calls:>9}{refused:>9}{longest_s:>8}s{most:>9}{strangers:>9}{checks:>9}");
        missed.extend(violations);
        if goal.is_some_and(|(s, calls)| longest_s > s || most > calls) {
            missed.push(format!("missed: {name}: {longest_s} s and {most} calls, the goal is {goal:?}"));
        }
        let budget = Defaults::default().check_budget as usize;
        if checks > budget {
            missed.push(format!("I3: {name}: {checks} checks in 24 h, the budget is {budget}"));
        }
    }
    judged(&missed)
}

fn run(seed: u64, habit: Habit, remedies: Remedies) -> (Seen, Vec<String>) {
    let mut defaults = Defaults { endpoint: Endpoint::Token, ..Defaults::default() };
    if !remedies.audits {
        defaults.audit = Duration::ZERO;
    }
    let account = |n| {
        let appid = Appid::new(&format!("wx{n:02}")).unwrap();
        (defaults.account(appid, Secret::new(format!("secret of {n}"))), false)
    };
    let accounts: Vec<(Account, bool)> = (0..ACCOUNTS).map(account).collect();
    let size = Size { accounts: ACCOUNTS, days: 0, read_every_ms: 10_000 };
    let sim = Sim::with(seed, size, FaultRates::default(), accounts, StdRng::seed_from_u64(seed), None);
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5742_a960);
    let mut seen = Seen::default();
    runtime(&sim).block_on(async {
        sim.time.enter_runtime();
        let fleet = start(&sim).await.unwrap();
        sim.set_fleet(Some(fleet.clone()));
        let mut clients: Vec<_> = (0..ACCOUNTS).map(|_| Client { held: None, refused: None }).collect();
        let mut mints_at: Vec<i64> = (0..ACCOUNTS).map(|_| rng.random_range(HOUR..4 * HOUR)).collect();
        let mut checks: Vec<Vec<(i64, u64)>> = vec![Vec::new(); ACCOUNTS];
        while sim.now() < DAYS * DAY {
            sleep(Duration::from_secs(3)).await;
            for (account, client) in clients.iter_mut().enumerate() {
                if mints_at[account] <= sim.now() {
                    mint(&sim, account);
                    seen.strangers += 1;
                    mints_at[account] = sim.now() + rng.random_range(HOUR..4 * HOUR);
                }
                client.call(&sim, &fleet, account, habit, remedies, &mut seen);
            }
            if sim.now() % MINUTE < CALL_EVERY_S * SECOND {
                note_checks(&sim, &mut checks, &mut seen);
            }
        }
        sim.set_fleet(None);
    });
    let violations = lock(&sim.tally).violations.clone();
    (seen, violations)
}

/// Takes down how many checks each account has had by now.
fn note_checks(sim: &Sim, checks: &mut [Vec<(i64, u64)>], seen: &mut Seen) {
    let now = sim.now();
    let oracle = sim.oracle();
    for (checker, checks) in oracle.checkers.iter().zip(checks) {
        let all = oracle.world.truth(&checker.appid, sim.time.now()).map_or(0, |truth| truth.counters.checks);
        checks.retain(|(at, _)| now - at <= DAY);
        checks.push((now, all));
        let in_a_day = all - checks.first().map_or(0, |(_, before)| *before);
        seen.checks = seen.checks.max(usize::try_from(in_a_day).unwrap());
    }
}

/// A stranger calls `token` with the account's AppSecret.
fn mint(sim: &Arc<Sim>, account: usize) {
    let time = sim.time.now();
    let mut oracle = sim.oracle();
    let oracle = &mut *oracle;
    let checker = &mut oracle.checkers[account];
    let living = oracle.world.truth(&checker.appid, time).map_or_else(Vec::new, |truth| truth.living_tokens);
    let living: Vec<_> = living.into_iter().map(|token| token.access_token.expose().to_owned()).collect();
    let query = [
        ("grant_type", "client_credential"),
        ("appid", checker.appid.as_str()),
        ("secret", checker.account.secret.expose()),
    ];
    let asked = Asked {
        method: "GET".to_owned(),
        path: "/cgi-bin/token".to_owned(),
        query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        content_length: None,
        body: Vec::new(),
        source_ip: [203, 0, 113, 9].into(),
    };
    oracle.world.handle(&asked, time);
    checker.outsider_ended(&oracle.world, &living, Some(Some(Endpoint::Token)));
    // Its token is replaced whenever that is found.
    checker.may_call_until = checker.may_call_until.max(sim.now() + 3 * HOUR);
}

impl Client {
    /// Makes one business call, and does what its habit is if that is refused.
    fn call(
        &mut self,
        sim: &Arc<Sim>,
        fleet: &Fleet,
        account: usize,
        habit: Habit,
        remedies: Remedies,
        seen: &mut Seen,
    ) {
        let (now, appid) = (sim.now(), sim.oracle().checkers[account].appid.clone());
        let get = || {
            let is_hint = remedies.hints && habit != Habit::AsksForEachCall;
            let token =
                if is_hint { ask(fleet, appid.as_str()) } else { token_at_once(fleet, appid.as_str()) };
            token.map(|token| {
                let promise = i64::try_from(token.expires_in().as_millis()).unwrap();
                (token, now + promise)
            })
        };
        if habit == Habit::AsksForEachCall || self.held.as_ref().is_none_or(|(_, until)| *until <= now) {
            self.held = get();
        }
        let Some((token, _)) = &self.held else { return };
        seen.calls += 1;
        if sim.oracle().world.is_alive(token.access_token(), sim.time.now()) {
            self.refused = None;
            return;
        }
        let (since, in_a_row) = self.refused.map_or((now, 1), |(since, in_a_row)| (since, in_a_row + 1));
        self.refused = Some((since, in_a_row));
        seen.refused += 1;
        seen.longest_ms = seen.longest_ms.max(now - since);
        seen.most = seen.most.max(in_a_row);
        match habit {
            Habit::Keeps | Habit::AsksForEachCall => {}
            Habit::AsksAgain => self.held = get(),
            Habit::Reports => {
                let (fleet, dead) = (fleet.clone(), token.clone());
                tokio::spawn(async move { fleet.reject(&appid, &dead).await });
                self.held = None;
            }
        }
    }
}
