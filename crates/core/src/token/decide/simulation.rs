//! Weeks in the life of an account, against a WeChat that knows which tokens really live.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Step, next_step};
use crate::account::{Account, Endpoint};
use crate::clock::Moment;
use crate::fault::{Fault, FaultScope};
use crate::phase::Phase;
use crate::secret::Secret;
use crate::token::Validity;
use crate::token::rejection::{Judgement, judge_refresh, judge_rejection};
use crate::token::schedule::{Draw, FORCED_A_DAY, FORCED_SPACING, Rules};
use crate::token::state::{AccountState, Activity};
use crate::token::transition::{Answer, CheckEnd, FetchEnd};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const TIMEOUT: i64 = 5 * SECOND;
/// How long after our time-out a call may arrive still, less what a call may have waited before it was sent.
const LATE: i64 = 29 * SECOND;

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap())
}

/// What happens in a run besides the passing of time.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// The share of calls that fail.
    faults: f64,
    /// Whether calls that were given up reach WeChat up to half a minute later.
    late: bool,
    /// Whether hosts go down.
    outages: bool,
    /// Whether clients reject tokens, rightly and wrongly, and operators refresh.
    requests: bool,
    /// Whether somebody else kills tokens and mints.
    outsiders: bool,
    /// Whether the wall clock jumps by up to an hour.
    jumps: bool,
    /// Whether the process crashes, and starts again in the same boot.
    crashes: bool,
    /// Whether it is the whole machine that starts again.
    reboots: bool,
    /// Whether the machine is suspended.
    suspends: bool,
}

/// One access_token as WeChat sees it.
#[derive(Debug)]
struct Minted {
    value: String,
    /// Its end as told.
    expires_at: i64,
    /// Its real end.
    dies_at: i64,
}

/// WeChat, by the true time, which no clock of ours shows.
#[derive(Debug)]
struct WeChat {
    endpoint: Endpoint,
    lifetime: i64,
    overlap: i64,
    /// Oldest first.
    minted: Vec<Minted>,
    /// What the documents leave open, at its worst.
    second_mint_kills_first: bool,
    forced_kills_at_once: bool,
    /// Whether normal mode replaces a token that died before its time, or hands it out again.
    dead_stable_replaced: bool,
    forced: Vec<i64>,
}

impl WeChat {
    fn dies_at(&self, value: &str) -> i64 {
        self.minted.iter().find(|minted| minted.value == value).map_or(0, |minted| minted.dies_at)
    }

    /// One call of the endpoint, as WeChat gets to it at `at`: a token and its whole seconds left.
    fn call(&mut self, force: bool, at: i64) -> (String, i64) {
        let force = force
            && self.forced.last().is_none_or(|last| at - last >= 29 * SECOND)
            && self.forced.iter().filter(|forced| at - **forced < DAY).count() < FORCED_A_DAY;
        if force {
            self.forced.push(at);
        }
        let current = self.minted.last().filter(|_| self.endpoint == Endpoint::StableToken && !force);
        let kept = |current: &&Minted| {
            let replaced = self.dead_stable_replaced && current.dies_at <= at;
            current.expires_at - at > self.overlap && !replaced
        };
        if let Some(current) = current.filter(kept) {
            return (current.value.clone(), (current.expires_at - at) / SECOND);
        }
        let kills = force && self.forced_kills_at_once;
        if let Some(current) = self.minted.last_mut() {
            current.dies_at = current.dies_at.min(if kills { at } else { at + self.overlap });
        }
        if self.second_mint_kills_first && self.endpoint == Endpoint::Token {
            for before in self.minted.iter_mut().rev().skip(1) {
                before.dies_at = before.dies_at.min(at);
            }
        }
        let value = format!("token-{}", self.minted.len());
        self.minted.push(Minted {
            value: value.clone(),
            expires_at: at + self.lifetime,
            dies_at: at + self.lifetime,
        });
        (value, self.lifetime / SECOND)
    }
}

/// How long a client that read a token keeps it.
#[derive(Debug, Default)]
struct Kept {
    for_max_age: i64,
    for_expires_in: i64,
}

/// How a token call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Course {
    Answered,
    Errcode(i64),
    NotSent,
    /// The answer is lost; whether WeChat got to see the call.
    Lost {
        minted: bool,
    },
    /// The process dies while the call is under way.
    Crash {
        sent: bool,
    },
}

struct World {
    seed: u64,
    rng: StdRng,
    weather: Weather,
    account: Account,
    rules: Rules,
    state: AccountState,
    disk: String,
    wechat: WeChat,
    /// The true time.
    t: i64,
    wall_offset: i64,
    boot_offset: i64,
    host_back_at: Option<i64>,
    /// Calls that reach WeChat later, nobody waiting for the answer any more.
    pending: Vec<(i64, bool)>,
    kept: HashMap<String, Kept>,
    /// Tokens that somebody else has killed, which we cannot know.
    killed: HashSet<String>,
    /// Tokens whose copies need not live on: they were known to be dead or were forced away.
    unkept: HashSet<String>,
    seen_version: u64,
    calls: Vec<i64>,
    checks: usize,
    reads: usize,
    misses: usize,
}

impl World {
    fn new(endpoint: Endpoint, weather: Weather, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let wechat = WeChat {
            endpoint,
            lifetime: 7200 * SECOND,
            overlap: 300 * SECOND,
            minted: Vec::new(),
            second_mint_kills_first: rng.random_bool(0.7),
            forced_kills_at_once: rng.random_bool(0.5),
            dead_stable_replaced: rng.random_bool(0.5),
            forced: Vec::new(),
        };
        let mut world = Self {
            seed,
            weather,
            account: Account::example(endpoint),
            rules: Rules::EXAMPLE,
            state: AccountState::default(),
            disk: String::new(),
            wechat,
            t: DAY,
            wall_offset: 1_790_000_000_000,
            boot_offset: rng.random_range(-DAY..DAY),
            host_back_at: None,
            pending: Vec::new(),
            kept: HashMap::new(),
            killed: HashSet::new(),
            unkept: HashSet::new(),
            seen_version: 0,
            calls: Vec::new(),
            checks: 0,
            reads: 0,
            misses: 0,
            rng,
        };
        world.persist();
        world
    }

    fn now(&self) -> Moment {
        Moment { wall_ms: self.t + self.wall_offset, boot_ms: self.t + self.boot_offset }
    }

    fn persist(&mut self) {
        self.disk = serde_json::to_string(&self.state).unwrap();
    }

    fn current(&self) -> Option<String> {
        self.state.token.as_ref().map(|token| token.value.expose().to_owned())
    }

    /// Lives until `until`, making no decision.
    fn advance(&mut self, until: i64) {
        while let Some((at, force)) = self.next_pending(until) {
            self.t = at.max(self.t);
            self.read();
            self.wechat_call(force);
            self.read();
        }
        self.t = self.t.max(until - 1);
        self.read();
        self.t = self.t.max(until);
        self.read();
    }

    /// The next call that is on its way still, if it arrives by `until`.
    fn next_pending(&mut self, until: i64) -> Option<(i64, bool)> {
        let (index, _) = self.pending.iter().enumerate().min_by_key(|(_, (at, _))| *at)?;
        (self.pending[index].0 <= until).then(|| self.pending.swap_remove(index))
    }

    /// A call reaches WeChat. Forced ones do so in the order they were sent: should one overtake the other, there is
    /// nothing we could know.
    fn wechat_call(&mut self, force: bool) -> (String, i64) {
        let in_order = self.account.endpoint == Endpoint::StableToken;
        if let Some((_, earlier)) = self.next_pending(if in_order { i64::MAX } else { self.t }) {
            self.wechat_call(earlier);
        }
        let answer = self.wechat.call(force, self.t);
        for (value, kept) in &self.kept {
            if self.killed.contains(value) || self.unkept.contains(value) {
                continue;
            }
            let dies_at = self.wechat.dies_at(value);
            assert!(
                kept.for_max_age <= dies_at,
                "seed {}: a copy of {value} kept for max_age outlives it by {} ms, t={}",
                self.seed,
                kept.for_max_age - dies_at,
                self.t
            );
            assert!(
                kept.for_expires_in <= dies_at,
                "seed {}: a copy of {value} kept for expires_in outlives it by {} ms, t={}",
                self.seed,
                kept.for_expires_in - dies_at,
                self.t
            );
        }
        answer
    }

    /// A reader comes by.
    fn read(&mut self) {
        let now = self.now();
        let read = self.state.read(now);
        let phase = self.state.phase(now);
        self.reads += 1;
        let Some(token) = read else {
            self.misses += 1;
            assert!(!matches!(phase, Phase::Fresh | Phase::Refreshing | Phase::Degraded), "{phase:?}");
            return;
        };
        assert!(matches!(phase, Phase::Fresh | Phase::Refreshing | Phase::Degraded | Phase::Parked));
        assert!(token.version() >= self.seen_version, "seed {}: a version went back", self.seed);
        self.seen_version = token.version();
        let value = token.access_token().to_owned();
        if self.killed.contains(&value) {
            return;
        }
        let dies_at = self.wechat.dies_at(&value);
        assert!(self.t < dies_at, "seed {}: read {value} {} ms after its death", self.seed, self.t - dies_at);
        let expires_in = ms(token.expires_in());
        assert!(expires_in > 0 || self.state.intent.is_some(), "seed {}: a promise of nothing", self.seed);
        // A jump can take a token away so soon after the last mint that the next one is the second.
        let excused = self.weather.jumps && self.wechat.second_mint_kills_first;
        let for_max_age = if excused { 0 } else { self.t + ms(token.max_age()) };
        assert!(for_max_age <= dies_at, "seed {}: max_age is too long", self.seed);
        let firm = !self.weather.requests && !self.weather.outsiders && !self.weather.jumps;
        let for_expires_in = if firm { self.t + expires_in } else { 0 };
        assert!(for_expires_in <= dies_at, "seed {}: expires_in is too long", self.seed);
        let kept = self.kept.entry(value).or_default();
        kept.for_max_age = kept.for_max_age.max(for_max_age);
        kept.for_expires_in = kept.for_expires_in.max(for_expires_in);
    }

    /// What the world does to us between two decisions.
    fn happen(&mut self) {
        if self.host_back_at.is_some_and(|at| at <= self.t) {
            self.host_back_at = None;
            self.state.host_is_back(self.now());
        }
        if self.weather.outages && self.host_back_at.is_none() && self.rng.random_bool(0.0005) {
            self.host_back_at = Some(self.t + self.rng.random_range(0..3 * HOUR));
        }
        if self.weather.jumps && self.rng.random_bool(0.002) {
            self.wall_offset = 1_790_000_000_000 + self.rng.random_range(-HOUR..HOUR);
        }
        if self.weather.suspends && self.rng.random_bool(0.002) {
            let until = self.t + self.rng.random_range(0..4 * HOUR);
            while let Some((at, force)) = self.next_pending(until) {
                self.t = at.max(self.t);
                self.wechat_call(force);
            }
            self.t = until;
        }
        if self.weather.outsiders && self.rng.random_bool(0.003) {
            self.outsider();
        }
        if self.weather.requests && self.rng.random_bool(0.05) {
            self.request();
        }
        if self.weather.crashes && self.rng.random_bool(0.003) {
            self.crash();
        }
    }

    /// Somebody else uses the account: a token of ours dies and we are not told.
    fn outsider(&mut self) {
        self.killed.extend(self.wechat.minted.iter().map(|minted| minted.value.clone()));
        if self.rng.random_bool(0.5) {
            let force = self.rng.random_bool(0.5);
            self.wechat_call(force);
        } else if let Some(current) = self.wechat.minted.last_mut() {
            // On `stable_token` it may still be handed out.
            current.dies_at = current.dies_at.min(self.t);
        }
    }

    fn request(&mut self) {
        let now = self.now();
        let before = self.state.version;
        match self.rng.random_range(0..8) {
            0 => {
                let force = self.rng.random_bool(0.5);
                judge_refresh(&mut self.state, &self.account, force, now);
            }
            1 => {
                let stale = Secret::new("token-of-another-day");
                let judgement = judge_rejection(&mut self.state, &self.account, &stale, now);
                assert_eq!(judgement, Judgement::Superseded);
            }
            _ => {
                let Some(value) = self.current() else { return };
                judge_rejection(&mut self.state, &self.account, &Secret::new(value), now);
            }
        }
        assert_eq!(self.state.version, before);
        self.persist();
    }

    fn crash(&mut self) {
        self.state = serde_json::from_str(&self.disk).unwrap();
        let down = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..2 * HOUR) };
        let until = self.t + down;
        while let Some((at, force)) = self.next_pending(until) {
            self.t = at.max(self.t);
            self.wechat_call(force);
        }
        self.t = until;
        if self.weather.reboots && self.rng.random_bool(0.5) {
            self.boot_offset = -self.t + self.rng.random_range(0..100 * SECOND);
            self.state = std::mem::take(&mut self.state).rebased(self.now());
        }
        self.state.recover(&self.account, self.rules, self.now());
        self.persist();
    }

    fn course(&mut self, peace: bool) -> Course {
        if peace {
            return Course::Answered;
        }
        if self.weather.crashes && self.rng.random_bool(0.1) {
            return Course::Crash { sent: self.rng.random_bool(0.7) };
        }
        if !self.rng.random_bool(self.weather.faults) {
            return Course::Answered;
        }
        match self.rng.random_range(0..8) {
            0 => Course::Errcode(-1),
            1 => Course::Errcode(45009),
            2 => Course::Errcode(40164),
            3 => Course::NotSent,
            _ => Course::Lost { minted: self.rng.random_bool(0.5) },
        }
    }

    fn fetch(&mut self, force: bool, peace: bool) {
        let jitter = self.rng.random::<f64>();
        if self.host_back_at.is_some() {
            let fault = Fault::host("the host is down");
            self.state.refuse_fetch(fault, &self.account, self.now(), jitter);
            return;
        }
        if self.rng.random_bool(0.2) {
            self.state.activity = Activity::Queued;
            let turn = self.t + self.rng.random_range(0..3 * SECOND);
            self.advance(turn);
            if !peace && self.weather.requests && self.rng.random_bool(0.2) {
                self.request();
            }
            self.state.activity = Activity::Idle;
        }
        let now = self.now();
        if let Err(free_at) = self.state.begin_fetch(&self.account, force, now) {
            let fault = Fault::budget_exhausted(self.account.daily_budget, free_at.until(now));
            self.state.refuse_fetch(fault, &self.account, now, jitter);
            return;
        }
        if force {
            let forced = &self.state.forced;
            assert!(forced.len() <= FORCED_A_DAY, "seed {}: forced too often", self.seed);
            assert!(forced.windows(2).all(|pair| pair[0].until(pair[1]).is_zero()));
            assert!(forced.windows(2).all(|pair| pair[1].until(pair[0]) >= FORCED_SPACING));
        }
        let excused =
            force || self.state.token.as_ref().is_some_and(|token| token.standing != Validity::Unchallenged);
        if excused || self.state.serving.is_some() && !self.account.verify_rejections {
            self.unkept.extend(self.wechat.minted.iter().map(|minted| minted.value.clone()));
        }
        self.persist();
        self.state.activity = Activity::Fetching;
        let delay = self.rng.random_range(0..200);
        self.advance(self.t + delay);
        let (sent_at, sent) = (self.now(), self.t);
        let course = self.course(peace);
        let latency = match course {
            Course::NotSent => 0,
            _ if peace => self.rng.random_range(20..300),
            _ => self.rng.random_range(20..TIMEOUT),
        };
        let reached = sent + self.rng.random_range(0..=latency);
        if course != Course::NotSent && course != (Course::Crash { sent: false }) {
            self.calls.push(self.t);
        }
        let mut may_have_minted = false;
        let result = match course {
            Course::Answered => {
                self.advance(reached);
                let (value, seconds) = self.wechat_call(force);
                Ok(Answer { value: Secret::new(value), expires_in: duration(seconds * SECOND) })
            }
            Course::Errcode(code) => Err(Fault::from_errcode(code, "")),
            Course::NotSent => Err(Fault::host("connection refused")),
            Course::Lost { minted } => {
                if minted {
                    // Sometimes long after we have given it up.
                    let token = self.account.endpoint == Endpoint::Token;
                    let late = token && self.weather.late && self.rng.random_bool(0.5);
                    let at = if late { sent + latency + self.rng.random_range(0..LATE) } else { reached };
                    self.pending.push((at, force));
                }
                may_have_minted = force || self.account.endpoint == Endpoint::Token;
                let whose = if self.rng.random_bool(0.5) { FaultScope::Host } else { FaultScope::Account };
                Err(match self.account.endpoint {
                    Endpoint::Token => Fault::unknown_outcome(whose, "timed out"),
                    Endpoint::StableToken => Fault::host("timed out"),
                })
            }
            Course::Crash { sent: was_sent } => {
                if was_sent {
                    // The request is on its way even if we are not there any more.
                    let longest = if self.weather.late && !force { TIMEOUT + LATE } else { TIMEOUT };
                    self.pending.push((sent + self.rng.random_range(0..longest), force));
                }
                let crashed = sent + self.rng.random_range(0..latency);
                self.advance(crashed);
                self.crash();
                return;
            }
        };
        self.read();
        if !peace && self.weather.requests && self.rng.random_bool(0.2) {
            self.request();
        }
        self.advance(sent + latency);
        if self.weather.suspends && !peace && self.rng.random_bool(0.02) {
            self.t += self.rng.random_range(0..3 * HOUR);
        }
        let sent_at = (course != Course::NotSent).then_some(sent_at);
        let end = FetchEnd { force, sent_at, may_have_minted, result };
        self.state.activity = Activity::Idle;
        let now = self.now();
        self.state.end_fetch(end, &self.account, self.rules, now, Draw::alone(jitter));
        assert!(self.state.intent.is_none());
        self.persist();
    }

    fn check(&mut self, peace: bool) {
        self.checks += 1;
        self.state.activity = Activity::Checking;
        let value = self.current().unwrap();
        let sent = self.t;
        let latency = self.rng.random_range(20..TIMEOUT);
        let reached = sent + self.rng.random_range(0..latency);
        self.advance(reached);
        let lives = self.t < self.wechat.dies_at(&value);
        if !peace && self.weather.requests && self.rng.random_bool(0.2) {
            self.request();
        }
        self.advance(sent + latency);
        let down = self.host_back_at.is_some();
        let end = if down || !peace && self.rng.random_bool(self.weather.faults) {
            CheckEnd::Inconclusive(Fault::from_errcode(-1, ""))
        } else if lives {
            CheckEnd::Honoured
        } else {
            CheckEnd::Refused
        };
        self.state.activity = Activity::Idle;
        let now = self.now();
        self.state.end_check(&end, &self.account, now);
        assert!(
            !matches!(end, CheckEnd::Refused) || !self.state.is_usable(now),
            "served what a check refused"
        );
        self.persist();
    }

    /// Decides once, and does what was decided.
    fn turn(&mut self, peace: bool) {
        if !peace {
            self.happen();
        } else if self.host_back_at.take().is_some() {
            self.state.host_is_back(self.now());
        }
        let now = self.now();
        // Nobody tells the sleeper that a clock has jumped: it looks up once a minute.
        let nap = self.rng.random_range(1..=MINUTE);
        match next_step(&self.state, &self.account, self.host_back_at.is_none(), now) {
            Step::Wait(due) => {
                assert!(!due.has_come(now), "a wait for what has come");
                self.state.next_at = Some(due);
                self.advance(self.t + ms(due.until(now)).min(nap));
            }
            Step::AwaitHost => {
                self.state.next_at = None;
                self.advance(self.t + nap);
            }
            Step::Fetch { force, .. } => {
                self.state.next_at = Some(now);
                self.fetch(force, peace);
            }
            Step::Check => {
                self.state.next_at = Some(now);
                self.check(peace);
            }
        }
    }

    fn run(&mut self, time: i64, peace: bool) {
        let end = self.t + time;
        while self.t < end {
            self.turn(peace);
        }
    }

    fn most_calls_within(&self, window: i64) -> usize {
        let from = |i: usize| self.calls[..i].partition_point(|at| *at <= self.calls[i] - window);
        (0..self.calls.len()).map(|i| i + 1 - from(i)).max().unwrap_or(0)
    }
}

/// Runs both endpoints through two weeks of `weather` with a few seeds, and sees them recover from it.
fn weather_it(weather: Weather, seeds: std::ops::Range<u64>, adjust: impl Fn(&mut World)) {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        for seed in seeds.clone() {
            let mut world = World::new(endpoint, weather, seed);
            adjust(&mut world);
            world.run(7 * DAY, false);
            let most = world.most_calls_within(DAY);
            assert!(most <= world.account.daily_budget as usize, "seed {seed}: {most} calls in a day");
            let most = world.most_calls_within(MINUTE);
            assert!(most <= 40, "seed {seed}: {most} calls in a minute");
            // The longest wait is the hour that 45009 asks for.
            world.run(61 * MINUTE, true);
            assert!(world.state.is_usable(world.now()), "seed {seed}: {:?}", world.state);
            let (before, misses) = (world.calls.len(), world.misses);
            world.run(DAY, true);
            assert_eq!(world.misses, misses, "seed {seed}: no token in peace");
            assert!(world.calls.len() - before <= 24);
        }
    }
}

#[test]
fn in_peace_a_day_costs_few_calls_and_a_token_is_always_there() {
    for (endpoint, most_a_day) in [(Endpoint::StableToken, 16), (Endpoint::Token, 24)] {
        for seed in 0..4 {
            let mut world = World::new(endpoint, Weather::default(), seed);
            world.run(MINUTE, true);
            let misses = world.misses;
            world.run(14 * DAY, true);
            assert_eq!(world.misses, misses, "seed {seed}: no token for a while");
            let most = world.most_calls_within(DAY);
            assert!(most <= most_a_day, "{endpoint:?}, seed {seed}: {most} calls in a day");
            assert!(most >= 11 && world.checks == 0);
        }
    }
}

#[test]
fn failing_calls_and_outages_never_let_a_dead_token_be_read() {
    weather_it(Weather { faults: 0.5, outages: true, late: true, ..Weather::default() }, 0..5, |_| {});
}

#[test]
fn crashes_and_reboots_in_the_midst_of_calls_never_let_a_dead_token_be_read() {
    let weather = Weather {
        faults: 0.3,
        late: true,
        outages: true,
        crashes: true,
        reboots: true,
        ..Weather::default()
    };
    weather_it(weather, 100..107, |_| {});
}

#[test]
fn jumping_clocks_and_suspends_never_let_a_dead_token_be_read() {
    let weather = Weather { faults: 0.3, jumps: true, suspends: true, crashes: true, ..Weather::default() };
    weather_it(weather, 200..205, |_| {});
}

#[test]
fn hostile_rejections_and_eager_operators_never_let_a_dead_token_be_read() {
    let weather = Weather {
        faults: 0.3,
        late: true,
        requests: true,
        outages: true,
        crashes: true,
        ..Weather::default()
    };
    weather_it(weather, 300..306, |_| {});
}

#[test]
fn believed_clients_never_let_a_dead_token_be_read() {
    let weather = Weather { faults: 0.3, requests: true, ..Weather::default() };
    weather_it(weather, 400..404, |world| world.account.verify_rejections = false);
}

#[test]
fn what_others_kill_is_replaced_within_the_budget() {
    let weather = Weather {
        faults: 0.2,
        late: true,
        requests: true,
        outsiders: true,
        outages: true,
        jumps: true,
        suspends: true,
        crashes: true,
        ..Weather::default()
    };
    weather_it(weather, 500..505, |_| {});
}

#[test]
fn short_lived_tokens_are_held_to_the_same() {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        for (lifetime, overlap) in [(1000, 300), (345, 300), (60, 10), (20, 4)] {
            for seed in 700..703 {
                let weather = Weather {
                    faults: 0.2,
                    crashes: true,
                    reboots: true,
                    suspends: true,
                    ..Weather::default()
                };
                let mut world = World::new(endpoint, weather, seed);
                (world.wechat.lifetime, world.wechat.overlap) = (lifetime * SECOND, overlap * SECOND);
                world.rules.overlap = duration(overlap * SECOND);
                world.account.daily_budget = 100_000;
                world.run(500 * lifetime * SECOND, false);
                let most = world.most_calls_within(10 * lifetime * SECOND);
                assert!(
                    most <= 100,
                    "{endpoint:?}, {lifetime} s, seed {seed}: {most} calls in ten lifetimes"
                );
            }
        }
    }
}

#[test]
fn a_small_budget_holds_through_everything() {
    let weather = Weather {
        faults: 0.5,
        requests: true,
        outsiders: true,
        crashes: true,
        suspends: true,
        ..Weather::default()
    };
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        for seed in 600..604 {
            let mut world = World::new(endpoint, weather, seed);
            world.account.daily_budget = 60;
            world.run(7 * DAY, false);
            let most = world.most_calls_within(DAY);
            assert!(most <= 60, "seed {seed}: {most} calls in a day");
        }
    }
}
