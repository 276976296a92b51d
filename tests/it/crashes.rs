//! `kill -9` in the middle of everything, and what the next process makes of the store.
//!
//! A hundred rounds by default; for more, `WXTOKEND_CRASH_ROUNDS=1000 cargo test --test it crashes -- --nocapture`.
//! `WXTOKEND_CRASH_SEED` makes the choices of a failed run again, though not its timing.

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

use crate::harness::{Http, Lab, Reader, WeChat, appid, find, until};

const ACCOUNTS: [&str; 2] = ["stable", "classic"];
/// How late WeChat answers a token call: it mints at once.
const CALL: Duration = Duration::from_millis(120);
const LONGEST_LIFE_MS: u64 = 300;

/// Clients of one account that outlive the daemon, and what they were ever given.
struct Crowd {
    account: &'static str,
    daily_budget: u32,
    /// Nobody asks for refreshes, which may end a token before its time: promises are held.
    quiet: bool,
    /// Somebody else ends its tokens now and then.
    plundered: bool,
    by_version: RefCell<HashMap<u64, String>>,
    reads: Cell<u64>,
}

impl Crowd {
    fn new(lab: &mut Lab, account: &'static str, daily_budget: u32) -> Self {
        let endpoint = if account.contains("classic") { "token" } else { "stable_token" };
        lab.add(account, json!({ "endpoint": endpoint, "daily_budget": daily_budget }));
        let [quiet, plundered] = ["quiet", "plundered"].map(|lot| account.starts_with(lot));
        let (by_version, reads) = (RefCell::default(), Cell::new(0));
        Self { account, daily_budget, quiet, plundered, by_version, reads }
    }

    /// Reads once. Where nobody else ends tokens, the reader holds what it is given to be alive.
    async fn read(&self, reader: &mut Reader, http: &Http) -> Option<(u64, String)> {
        let before = self.newest();
        let (version, token) = if self.plundered {
            let answer = http.try_token(self.account).await.filter(|answer| answer.status == 200)?;
            (answer.json()["version"].as_u64().unwrap(), answer.access_token())
        } else {
            let read = if self.quiet { reader.read_and_keep(http).await } else { reader.read(http).await };
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

    /// The newest version that anybody has seen.
    fn newest(&self) -> u64 {
        self.by_version.borrow().keys().max().copied().unwrap_or(0)
    }

    /// Reads on and on, and reports a token as refused, seldom or when it is.
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

    /// Asks for refreshes, and ends tokens where that is the account's lot.
    async fn meddle(&self, http: &Http, wechat: &WeChat, mut random: StdRng) {
        loop {
            sleep(Duration::from_millis(random.random_range(1..400))).await;
            if self.plundered {
                wechat.kill_tokens(&appid(self.account));
            }
            if !self.quiet {
                http.try_refresh(self.account, random.random_bool(0.3)).await;
            }
        }
    }

    /// Whatever was cut off, what is stored is nothing older than what anybody was given, and every call that WeChat
    /// has counted is charged: besides, each kill may have come between a charge and its call.
    fn judge_stored(&self, stored: &AccountState, calls: u64, kills: u32, since: Duration) {
        let (account, newest) = (self.account, self.newest());
        assert!(stored.version >= newest, "{account}: version {} where {newest} was served", stored.version);
        if let Some(token) = &stored.token {
            self.remember(token.version, token.value.expose());
        }
        let (calls, burst) = (u32::try_from(calls).unwrap(), burst(self.daily_budget));
        let came_back = since.as_nanos() / interval(self.daily_budget).as_nanos();
        let came_back = u32::try_from(came_back).unwrap();
        let remaining = stored.ledger.remaining(Bucket::Calls, self.daily_budget, SystemClock::new().now());
        let told =
            format!("{calls} calls, {remaining} of {burst} left, {came_back} came back, {kills} kills");
        assert!(remaining + calls <= burst + came_back, "{account}: a charge is forgotten: {told}");
        assert!(remaining + calls + kills >= burst, "{account}: charged without need: {told}");
        assert!(calls <= self.daily_budget, "{account}: beyond the budget: {told}");
    }

    /// What lives and was not at risk when the process died is served again at once, and nobody is called for it.
    fn judge_again(&self, stored: &AccountState, again: &Again, ended: f64) -> bool {
        // It may have ended, or have been due, while it was asked for.
        let lives = is_living(stored);
        if lives {
            assert_eq!(again.served, Some(stored.version), "{}: what is served again", self.account);
            assert_eq!((&*again.state, ended), ("fresh", 0.0), "{}: a needless call", self.account);
        }
        lives
    }
}

/// Whether a token was stored that may be served now, is not due and is not at risk.
fn is_living(stored: &AccountState) -> bool {
    let now = SystemClock::new().now();
    let is_due = stored.token.as_ref().is_none_or(|token| token.refresh_at.has_come(now));
    stored.intent.is_none() && stored.doubt.is_none() && stored.is_usable(now) && !is_due
}

/// What a new process was asked at once.
struct Again {
    served: Option<u64>,
    state: String,
}

/// How many token calls of an account have ended in a process, from its metrics.
fn calls_ended(metrics: &str, account: &str) -> f64 {
    let series = format!("wxtokend_refreshes_total{{appid=\"{account}\",");
    let samples = metrics.lines().filter(|line| line.starts_with(&series));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// When the process is to die.
async fn moment_to_die(crowds: &[Crowd], http: &Http, wechat: &WeChat, random: &mut StdRng) {
    let calls = || crowds.iter().map(|crowd| wechat.calls(crowd.account)).sum::<u64>();
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
        // A wish is charged, noted, written and called for within milliseconds.
        _ => {
            sleep(any / 2).await;
            let loud: Vec<_> = crowds.iter().filter(|crowd| !crowd.quiet).collect();
            let account = loud[random.random_range(0..loud.len())].account;
            let _ = timeout(soon, http.try_refresh(account, random.random_bool(0.5))).await;
        }
    }
}

/// What a process left on disk, by a copy: the next one is to find it as it was left.
fn what_is_stored(lab: &Lab) -> HashMap<Appid, AccountState> {
    let copy = lab.path("copy.redb");
    fs::copy(lab.path("store.redb"), &copy).unwrap();
    let stored = RedbBackend::open(&copy).and_then(|backend| backend.load()).unwrap();
    let decoded = |(of, record): (Credential, Vec<u8>)| (of.appid, serde_json::from_slice(&record).unwrap());
    stored.records.into_iter().map(decoded).collect()
}

type Load<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs `loads`, none of which ends, until `end` does.
async fn under(mut loads: Vec<Load<'_>>, end: impl Future<Output = ()>) {
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
    let crowds = [
        ("quiet-stable", 20_000),
        ("quiet-classic", 20_000),
        ("stable", 20_000),
        ("classic", 20_000),
        ("plundered-stable", 20_000),
        ("plundered-classic", 20_000),
        ("poor-stable", 16),
        ("poor-classic", 8),
    ]
    .map(|(account, daily_budget)| Crowd::new(&mut lab, account, daily_budget));
    let mut readers =
        crowds.each_ref().map(|crowd| [(); 2].map(|()| Reader::new(&lab.wechat, crowd.account)));
    let late = FaultKind::Delay { delay_ms: CALL.as_millis().try_into().unwrap() };
    for call in [Call::StableToken, Call::Token] {
        lab.wechat.inject(None, Fault::new(late.clone()).on(call));
    }
    let born = Instant::now();
    let (mut cut_off, mut served_again) = (0, 0);
    let mut stored = HashMap::<Appid, AccountState>::new();
    for kills in 1..=rounds {
        let started = lab.wechat.now();
        let daemon = lab.start().await;
        let mut again = Vec::new();
        for (crowd, readers) in crowds.iter().zip(&mut readers) {
            let living = stored.get(&appid(crowd.account)).filter(|stored| is_living(stored));
            let Some(stored) = living else { continue };
            let served = crowd.read(&mut readers[0], &daemon).await.map(|(version, _)| version);
            again.push((crowd, stored, Again { served, state: daemon.state(crowd.account).await }));
        }
        let metrics = daemon.get("/metrics").await.body;
        for (crowd, stored, again) in again {
            let ended = calls_ended(&metrics, crowd.account);
            served_again += u64::from(crowd.judge_again(stored, &again, ended));
        }
        let mut loads: Vec<Load<'_>> = Vec::new();
        let mut seeds = || StdRng::seed_from_u64(random.random());
        for (crowd, readers) in crowds.iter().zip(&mut readers) {
            loads.push(Box::pin(crowd.meddle(&daemon, &lab.wechat, seeds())));
            for reader in readers {
                loads.push(Box::pin(crowd.consume(reader, &daemon, &lab.wechat, seeds())));
            }
        }
        under(loads, moment_to_die(&crowds, &daemon, &lab.wechat, &mut random)).await;
        daemon.kill().await;
        stored = what_is_stored(&lab);
        for crowd in &crowds {
            let stored = stored.entry(appid(crowd.account)).or_default();
            let calls = lab.wechat.calls(crowd.account);
            crowd.judge_stored(stored, calls, u32::try_from(kills).unwrap(), born.elapsed());
            let truth = lab.wechat.truth(&appid(crowd.account)).unwrap();
            let held = stored.token.as_ref().map(|token| &token.value);
            let missed = truth
                .living_tokens
                .last()
                .is_some_and(|newest| newest.minted_at >= started && held != Some(&newest.access_token));
            cut_off += u64::from(missed || stored.intent.is_some());
        }
    }
    let daemon = lab.start().await;
    for (crowd, readers) in crowds.iter().zip(&mut readers) {
        let seen = crowd.newest();
        let recovers = async || match crowd.read(&mut readers[0], &daemon).await {
            Some((version, _)) => version > seen,
            None => crowd.daily_budget < 20,
        };
        until(&format!("{} recovers", crowd.account), recovers).await;
    }
    for crowd in crowds.iter().filter(|crowd| crowd.daily_budget < 20 && rounds >= 100) {
        let view = daemon.view(crowd.account).await;
        assert_eq!(view["budget"]["remaining"], 0, "{}: its budget was no limit", crowd.account);
    }
    assert!(cut_off * 10 > rounds, "{cut_off} of {rounds} kills came during a call");
    assert!(served_again * 2 > rounds, "{served_again} tokens lived through {rounds} kills");
    let kept: usize = readers.iter().flatten().map(|reader| reader.kept).sum();
    let reads: u64 = crowds.iter().map(|crowd| crowd.reads.get()).sum();
    let calls: u64 = crowds.iter().map(|crowd| lab.wechat.calls(crowd.account)).sum();
    eprintln!(
        "{rounds} rounds in {} s: {cut_off} calls cut off, {served_again} tokens served again at once, {reads} reads \
         checked, {kept} promises kept, {calls} calls, no violation",
        born.elapsed().as_secs()
    );
}

#[tokio::test]
async fn after_kill_9_a_valid_token_is_served_again_without_a_call() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let mut before = Vec::new();
    for account in ACCOUNTS {
        daemon.until_state(account, "fresh").await;
        before.push(daemon.token(account).await.json());
    }
    daemon.kill().await;
    lab.wechat.close().await;
    for _ in 0..3 {
        let daemon = lab.start().await;
        for (account, before) in ACCOUNTS.into_iter().zip(&before) {
            let after = daemon.token(account).await.json();
            for key in ["access_token", "version", "expires_at"] {
                assert_eq!(after[key], before[key], "{account}: {key}");
            }
            assert_eq!(daemon.state(account).await, "fresh");
            assert_eq!(lab.wechat.calls(account), 1);
        }
        daemon.kill().await;
    }
}

#[tokio::test]
async fn after_kill_9_during_a_call_on_token_the_old_token_is_trusted_for_the_overlap_only() {
    let mut lab = Lab::new(60_000, 2_000).await.with("classic", json!({ "endpoint": "token" }));
    lab.config["upstream"]["timeout"] = json!("10s");
    let daemon = lab.start().await;
    daemon.until_state("classic", "fresh").await;
    let mut reader = Reader::new(&lab.wechat, "classic");
    let first = reader.read(&daemon).await.unwrap();
    lab.wechat
        .inject(Some(&appid("classic")), Fault::new(FaultKind::Delay { delay_ms: 9_000 }).on(Call::Token));
    // It mints at once, so the first token dies an overlap later, with most of its promised life left.
    until("the second call is under way", async || {
        let http = daemon.http.clone();
        let asked = tokio::spawn(async move { http.try_refresh("classic", false).await });
        sleep(Duration::from_millis(300)).await;
        asked.abort();
        lab.wechat.mints("classic") == 2
    })
    .await;
    daemon.kill().await;
    lab.wechat.clear_faults(Some(&appid("classic")));
    let daemon = lab.start().await;
    let next = find("another token", async || {
        let reading = reader.read(&daemon).await;
        reading.filter(|reading| reading.access_token != first.access_token)
    })
    .await;
    assert_eq!(next.version, first.version + 1);
    assert!(lab.wechat.is_alive(&next.access_token));
}
