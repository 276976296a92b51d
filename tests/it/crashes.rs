//! `kill -9` at any moment, and what the next process makes of the store.
//!
//! A hundred rounds by default; for more, `WXTOKEND_CRASH_ROUNDS=1000 cargo test --test it crashes --
//! --nocapture`.
//!
//! `WXTOKEND_CRASH_SEED` repeats the random choices of a failed run, though not its timing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use wxtokend::internals::{Backend as _, RedbBackend};
use wxtokend_core::account::Appid;
use wxtokend_core::budget::{Bucket, burst, interval};
use wxtokend_core::clock::{ClockSource as _, SystemClock};
use wxtokend_core::ticket::Credential;
use wxtokend_core::token::state::AccountState;
use wxtokend_sandbox::{Call, Fault, FaultKind};

use crate::harness::{Http, Lab, Reader, WeChat, appid, until};

/// Delay of WeChat's answer to a token call; it mints at once.
const ANSWER_DELAY: Duration = Duration::from_millis(120);
const LONGEST_LIFE_MS: u64 = 300;

/// The clients of one account, which outlive the daemon, and all tokens that they ever received.
struct AccountClients {
    account: &'static str,
    daily_budget: u32,
    /// No client requests refreshes, which may end a token early, so promises are checked.
    holds_promises: bool,
    /// Somebody else ends its tokens now and then.
    tokens_get_killed: bool,
    by_version: RefCell<HashMap<u64, String>>,
    reads: Cell<u64>,
}

impl AccountClients {
    fn new(lab: &mut Lab, account: &'static str, daily_budget: u32) -> Self {
        let endpoint = if account.contains("classic") { "token" } else { "stable_token" };
        lab.add(account, json!({ "endpoint": endpoint, "daily_budget": daily_budget }));
        let [holds_promises, tokens_get_killed] = ["quiet", "plundered"].map(|lot| account.starts_with(lot));
        let (by_version, reads) = (RefCell::default(), Cell::new(0));
        Self { account, daily_budget, holds_promises, tokens_get_killed, by_version, reads }
    }

    /// Reads once. Unless somebody else ends tokens, the reader requires that the token is alive.
    async fn read(&self, reader: &mut Reader, http: &Http) -> Option<(u64, String)> {
        let before = self.newest();
        let (version, token) = if self.tokens_get_killed {
            let answer = http.try_token(self.account).await.filter(|answer| answer.status == 200)?;
            (answer.json()["version"].as_u64().unwrap(), answer.access_token())
        } else {
            let read =
                if self.holds_promises { reader.read_and_keep(http).await } else { reader.read(http).await };
            let reading = read?;
            (reading.version, reading.access_token)
        };
        assert!(version >= before, "{}: version {version} after {before}", self.account);
        self.reads.set(self.reads.get() + 1);
        self.remember(version, &token);
        Some((version, token))
    }

    fn remember(&self, version: u64, token: &str) {
        let mut by_version = self.by_version.borrow_mut();
        let known = by_version.entry(version).or_insert_with(|| token.to_owned());
        assert_eq!(known, token, "{}: version {version} has two values", self.account);
    }

    /// The newest version that any client has seen.
    fn newest(&self) -> u64 {
        self.by_version.borrow().keys().max().copied().unwrap_or(0)
    }

    /// Reads forever, and reports tokens as rejected, seldom or if they are.
    async fn consume(&self, reader: &mut Reader, http: &Http, wechat: &WeChat, mut random: StdRng) {
        loop {
            if let Some((_, token)) = self.read(reader, http).await
                && (random.random_bool(0.1) || !wechat.is_alive(&token))
            {
                http.try_reject(self.account, &token).await;
            }
            sleep(Duration::from_millis(random.random_range(4..20))).await;
        }
    }

    /// Requests refreshes, and ends tokens if the account is one whose tokens are ended.
    async fn meddle(&self, http: &Http, wechat: &WeChat, mut random: StdRng) {
        loop {
            sleep(Duration::from_millis(random.random_range(1..400))).await;
            if self.tokens_get_killed {
                wechat.kill_tokens(&appid(self.account));
            }
            if !self.holds_promises {
                http.try_refresh(self.account, random.random_bool(0.3)).await;
            }
        }
    }

    /// Checks the stored state after a kill: it is not older than what clients have received, and every call
    /// that WeChat has counted is charged. In addition, each kill may have come between a charge and its
    /// call.
    fn check_stored(&self, stored: &AccountState, calls: u64, kills: u32, since: Duration) {
        let (account, newest) = (self.account, self.newest());
        assert!(stored.version >= newest, "{account}: version {} where {newest} was served", stored.version);
        if let Some(token) = &stored.token {
            self.remember(token.version, token.value.expose());
        }
        let (calls, burst) = (u32::try_from(calls).unwrap(), burst(self.daily_budget));
        let returned = since.as_nanos() / interval(self.daily_budget).as_nanos();
        let returned = u32::try_from(returned).unwrap();
        let remaining = stored.ledger.remaining(Bucket::Calls, self.daily_budget, SystemClock::new().now());
        let summary =
            format!("{calls} calls, {remaining} of {burst} left, {returned} came back, {kills} kills");
        assert!(remaining + calls <= burst + returned, "{account}: a charge is forgotten: {summary}");
        assert!(remaining + calls + kills >= burst, "{account}: charged without need: {summary}");
        assert!(calls <= self.daily_budget, "{account}: beyond the budget: {summary}");
    }

    /// Checks the first read after a restart: a token that is alive and was not at risk when the process died
    /// is served again without a call. Returns whether there was one.
    fn check_restart(&self, stored: &AccountState, again: &Again, ended: f64) -> bool {
        // It may have ended or become due during the read.
        let lives = is_living(stored);
        if lives {
            assert_eq!(again.served, Some(stored.version), "{}: what is served again", self.account);
            assert_eq!((&*again.state, ended), ("fresh", 0.0), "{}: a needless call", self.account);
        }
        lives
    }
}

/// Whether there is a stored token that may be served now, is not due and is not at risk.
fn is_living(stored: &AccountState) -> bool {
    let now = SystemClock::new().now();
    let is_due = stored.token.as_ref().is_none_or(|token| token.refresh_at.has_come(now));
    stored.intent.is_none() && stored.doubt.is_none() && stored.is_usable(now) && !is_due
}

/// The first answers of a new process.
struct Again {
    served: Option<u64>,
    state: String,
}

/// The number of an account's token calls that have ended in a process, from its metrics.
fn calls_ended(metrics: &str, account: &str) -> f64 {
    let series = format!("wxtokend_refreshes_total{{appid=\"{account}\",");
    let samples = metrics.lines().filter(|line| line.starts_with(&series));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Waits until the process is to be killed.
async fn until_kill_time(all_clients: &[AccountClients], http: &Http, wechat: &WeChat, random: &mut StdRng) {
    let calls = || all_clients.iter().map(|clients| wechat.calls(clients.account)).sum::<u64>();
    let before = calls();
    let any = Duration::from_millis(random.random_range(0..LONGEST_LIFE_MS));
    let soon = Duration::from_millis(random.random_range(0..6));
    match random.random_range(0..3) {
        0 => sleep(any).await,
        1 => {
            let called = until("a call has arrived", async || calls() > before);
            let _ = timeout(Duration::from_millis(LONGEST_LIFE_MS), called).await;
            sleep(soon).await;
        }
        // A refresh request is charged, noted, written and sent within milliseconds.
        _ => {
            sleep(any / 2).await;
            let requesting: Vec<_> = all_clients.iter().filter(|clients| !clients.holds_promises).collect();
            let account = requesting[random.random_range(0..requesting.len())].account;
            let _ = timeout(soon, http.try_refresh(account, random.random_bool(0.5))).await;
        }
    }
}

/// The state that a process left on disk. Reads a copy, so that the next process finds the file unchanged.
fn stored_states(lab: &Lab) -> HashMap<Appid, AccountState> {
    let copy = lab.path("copy.redb");
    fs::copy(lab.path("store.redb"), &copy).unwrap();
    let stored = RedbBackend::open(&copy).and_then(|backend| backend.load()).unwrap();
    let decoded = |(of, record): (Credential, Vec<u8>)| (of.appid, serde_json::from_slice(&record).unwrap());
    stored.records.into_iter().map(decoded).collect()
}

type Load<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs `loads`, which never end, until `end` completes.
async fn run_loads(mut loads: Vec<Load<'_>>, end: impl Future<Output = ()>) {
    let all = poll_fn(|context| {
        for load in &mut loads {
            let _ = load.as_mut().poll(context);
        }
        Poll::<()>::Pending
    });
    tokio::select! {
        () = all => {}
        () = end => {}
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

#[tokio::test]
async fn a_hundred_kills_9_at_any_instant_lose_no_version_forget_no_charge_and_cost_no_needless_call() {
    let rounds = number("WXTOKEND_CRASH_ROUNDS").unwrap_or(100);
    let seed = number("WXTOKEND_CRASH_SEED").unwrap_or_else(rand::random);
    eprintln!("WXTOKEND_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = Lab::new(3_000, 700).await;
    let all_clients = [
        ("quiet-stable", 20_000),
        ("quiet-classic", 20_000),
        ("stable", 20_000),
        ("classic", 20_000),
        ("plundered-stable", 20_000),
        ("plundered-classic", 20_000),
        ("poor-stable", 16),
        ("poor-classic", 8),
    ]
    .map(|(account, daily_budget)| AccountClients::new(&mut lab, account, daily_budget));
    let mut readers =
        all_clients.each_ref().map(|clients| [(); 2].map(|()| Reader::new(&lab.wechat, clients.account)));
    let late = FaultKind::Delay { delay_ms: ANSWER_DELAY.as_millis().try_into().unwrap() };
    for call in [Call::StableToken, Call::Token] {
        lab.wechat.inject(None, Fault::new(late.clone()).on(call));
    }
    let born = Instant::now();
    let (mut interrupted, mut served_again) = (0, 0);
    let mut stored = HashMap::<Appid, AccountState>::new();
    for kills in 1..=rounds {
        let started = lab.wechat.now();
        let daemon = lab.start().await;
        let mut again = Vec::new();
        for (clients, readers) in all_clients.iter().zip(&mut readers) {
            let living = stored.get(&appid(clients.account)).filter(|stored| is_living(stored));
            let Some(stored) = living else { continue };
            let served = clients.read(&mut readers[0], &daemon).await.map(|(version, _)| version);
            again.push((clients, stored, Again { served, state: daemon.state(clients.account).await }));
        }
        let metrics = daemon.get("/metrics").await.body;
        for (clients, stored, again) in again {
            let ended = calls_ended(&metrics, clients.account);
            served_again += u64::from(clients.check_restart(stored, &again, ended));
        }
        let mut loads: Vec<Load<'_>> = Vec::new();
        let mut seeds = || StdRng::seed_from_u64(random.random());
        for (clients, readers) in all_clients.iter().zip(&mut readers) {
            loads.push(Box::pin(clients.meddle(&daemon, &lab.wechat, seeds())));
            for reader in readers {
                loads.push(Box::pin(clients.consume(reader, &daemon, &lab.wechat, seeds())));
            }
        }
        run_loads(loads, until_kill_time(&all_clients, &daemon, &lab.wechat, &mut random)).await;
        daemon.kill().await;
        stored = stored_states(&lab);
        for clients in &all_clients {
            let stored = stored.entry(appid(clients.account)).or_default();
            let calls = lab.wechat.calls(clients.account);
            clients.check_stored(stored, calls, u32::try_from(kills).unwrap(), born.elapsed());
            let truth = lab.wechat.truth(&appid(clients.account)).unwrap();
            let held = stored.token.as_ref().map(|token| &token.value);
            let missed = truth
                .living_tokens
                .last()
                .is_some_and(|newest| newest.minted_at >= started && held != Some(&newest.access_token));
            interrupted += u64::from(missed || stored.intent.is_some());
        }
    }
    let daemon = lab.start().await;
    for (clients, readers) in all_clients.iter().zip(&mut readers) {
        let seen = clients.newest();
        let recovers = async || match clients.read(&mut readers[0], &daemon).await {
            Some((version, _)) => version > seen,
            None => clients.daily_budget < 20,
        };
        until(&format!("{} recovers", clients.account), recovers).await;
    }
    for clients in all_clients.iter().filter(|clients| clients.daily_budget < 20 && rounds >= 100) {
        let view = daemon.view(clients.account).await;
        assert_eq!(view["budget"]["remaining"], 0, "{}: its budget was no limit", clients.account);
    }
    assert!(interrupted * 10 > rounds, "{interrupted} of {rounds} kills came during a call");
    assert!(served_again * 2 > rounds, "{served_again} tokens lived through {rounds} kills");
    let kept: usize = readers.iter().flatten().map(|reader| reader.kept).sum();
    let reads: u64 = all_clients.iter().map(|clients| clients.reads.get()).sum();
    let calls: u64 = all_clients.iter().map(|clients| lab.wechat.calls(clients.account)).sum();
    eprintln!(
        "{rounds} rounds in {} s: {interrupted} calls cut off, {served_again} tokens served again at once, {reads} reads \
         checked, {kept} promises kept, {calls} calls, no violation",
        born.elapsed().as_secs()
    );
}
