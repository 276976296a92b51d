//! Plays a scenario on a stage, and checks the invariants that hold in all scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Counters, Request, World};

use super::APPID;
use super::model::{Driver, Elsewhere, Expected, How, Kind, Outcome, Scenario, Served, State, Step, Which};
use super::pace::Pace;

/// What a scenario is played on. Instants count from the simulated WeChat's start.
pub trait Stage {
    /// Which of the three drivers it is.
    const DRIVER: Driver;

    /// Inspects or changes WeChat.
    fn wechat<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R;
    /// WeChat's base URL.
    fn base_url(&self) -> String;
    /// Lets time pass, and does what falls due.
    async fn pass(&mut self, time: Duration);
    /// Reads the account now, without waiting.
    async fn look(&mut self) -> Seen;
    /// Why the last token call was made, from the account's history; from the decision itself where there is
    /// none.
    async fn reason(&mut self) -> Option<String>;
    /// Reports `token` as a client.
    async fn reject(&mut self, token: &str) -> Outcome;
    /// Requests a refresh as an operator.
    async fn refresh(&mut self, force: bool) -> Outcome;
    /// Applies `config` as the new accounts.yaml.
    async fn reload(&mut self, config: &Value);
    /// Stops gracefully, and starts.
    async fn restart(&mut self);
    /// Dies at once, and starts.
    async fn crash(&mut self);
    /// Makes the wall clock jump by `ms`.
    async fn jump(&mut self, ms: i64);
}

/// The account at one instant.
#[derive(Debug, Clone)]
pub struct Seen {
    pub state: State,
    pub version: u64,
    pub failures: u64,
    pub remaining: u64,
    pub fault: Option<FaultSeen>,
    /// What a reader got.
    pub served: Option<Reading>,
}

#[derive(Debug, Clone)]
pub struct FaultSeen {
    pub kind: Kind,
    pub errcode: Option<i64>,
    pub advice: String,
}

/// A token as a reader got it.
#[derive(Clone)]
pub struct Reading {
    pub token: String,
    pub version: u64,
    pub expires_in: Duration,
    pub max_age: Duration,
}

/// Prints no token: it would be too long to read in a failure.
impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version {} for {:?}", self.version, self.expires_in)
    }
}

impl Seen {
    /// The account does not exist.
    pub fn removed() -> Self {
        Self { state: State::Removed, version: 0, failures: 0, remaining: 0, fault: None, served: None }
    }
}

/// Which of its two promises of how long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    ExpiresIn,
    /// Holds whatever is requested for the account.
    MaxAge,
}

struct Play<'a, S> {
    scenario: &'a Scenario,
    stage: &'a mut S,
    pace: Pace,
    changes: Map<String, Value>,
    first_version: Option<u64>,
    last_version: u64,
    /// Every value that was served, oldest first.
    tokens: Vec<String>,
    outcome: Option<Outcome>,
    /// The furthest instant until which each token was promised to live.
    promises: BTreeMap<(String, Promise), Duration>,
    /// Tokens that an outsider has ended, which we cannot know.
    killed: BTreeSet<String>,
    /// What outsiders did to the account.
    elsewhere: Counters,
}

/// Plays `scenario` to its end.
///
/// # Errors
/// Says where it deviated from what was expected.
pub async fn play<S: Stage>(scenario: &Scenario, stage: &mut S) -> Result<(), String> {
    let mut play = Play {
        scenario,
        pace: scenario.pace(S::DRIVER),
        stage,
        changes: Map::new(),
        first_version: None,
        last_version: 0,
        tokens: Vec::new(),
        outcome: None,
        promises: BTreeMap::new(),
        killed: BTreeSet::new(),
        elsewhere: Counters::default(),
    };
    let failure = |place: String, why: String| {
        let Scenario { name, endpoint, .. } = scenario;
        format!("{name:?} on {}, {:?}, {place}: {why}", endpoint.as_str(), S::DRIVER)
    };
    for (index, step) in scenario.steps.iter().enumerate() {
        let at = || format!("step {} ({})", index + 1, word(step));
        play.step(step).await.map_err(|why| failure(at(), why))?;
    }
    play.expect(&scenario.expected).await.map_err(|why| failure("expected".to_owned(), why))
}

/// The name of a step in the file.
fn word(step: &Step) -> String {
    let debug = format!("{step:?}");
    let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    let snake = name.char_indices().map(|(index, c)| match c.is_ascii_uppercase() {
        true if index > 0 => format!("_{}", c.to_ascii_lowercase()),
        _ => c.to_ascii_lowercase().to_string(),
    });
    snake.collect()
}

fn appid() -> Appid {
    Appid::new(APPID).expect("an appid")
}

impl<S: Stage> Play<'_, S> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Wait(span) => self.wait(span.at(&self.pace)).await?,
            Step::Until(expected) => self.until(expected).await?,
            Step::Expect(expected) => self.expect(expected).await?,
            Step::Inject(fault) => self.stage.wechat(|world, _| world.inject(Some(&appid()), fault.clone())),
            Step::Clear => self.stage.wechat(|world, _| world.clear_faults(Some(&appid()))),
            Step::KillTokens => {
                self.note_tokens_killed();
                self.stage.wechat(|world, now| world.kill_tokens(&appid(), now));
            }
            Step::MintElsewhere(how) => self.mint_elsewhere(*how),
            Step::Reject(which) => {
                self.look().await?;
                let token = self.named(*which)?;
                self.promises.clear();
                self.outcome = Some(self.stage.reject(&token).await);
                self.look().await?;
            }
            Step::Refresh(how) => {
                self.promises.retain(|(_, promise), _| *promise == Promise::MaxAge && *how == How::Normal);
                self.outcome = Some(self.stage.refresh(*how == How::Force).await);
                self.look().await?;
            }
            Step::Outage(outage) => self.stage.wechat(|world, _| world.set_outage(*outage)),
            Step::ResetSecret(secret) => {
                self.stage.wechat(|world, _| world.put_account(&appid(), Secret::new(secret.as_str())));
            }
            Step::Reload(changes) => {
                self.changes.extend(changes.clone());
                self.reload(true).await;
            }
            Step::Remove => self.reload(false).await,
            Step::Add => self.reload(true).await,
            Step::Restart => self.stage.restart().await,
            Step::Crash => self.stage.crash().await,
            Step::JumpForward(span) => self.jump(span.at(&self.pace), 1).await,
            Step::JumpBack(span) => self.jump(span.at(&self.pace), -1).await,
        }
        Ok(())
    }

    async fn wait(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now() + time;
        while self.now() < end {
            self.look().await?;
            let left = end.saturating_sub(self.now());
            self.stage.pass(self.pace.look_every.min(left)).await;
        }
        Ok(())
    }

    async fn until(&mut self, expected: &Expected) -> Result<(), String> {
        let end = self.now() + self.pace.patience;
        loop {
            let (seen, unmet) = self.compare(expected).await?;
            if unmet.is_empty() {
                return Ok(());
            }
            if self.now() >= end {
                return Err(format!("never came: {}; seen at last: {seen:?}", unmet.join(", ")));
            }
            self.stage.pass(self.pace.look_every).await;
        }
    }

    async fn expect(&mut self, expected: &Expected) -> Result<(), String> {
        let (seen, unmet) = self.compare(expected).await?;
        if unmet.is_empty() { Ok(()) } else { Err(format!("{}; seen: {seen:?}", unmet.join(", "))) }
    }

    async fn jump(&mut self, time: Duration, sign: i64) {
        self.promises.clear();
        self.stage.jump(sign * i64::try_from(time.as_millis()).expect("a time that fits")).await;
    }

    async fn reload(&mut self, present: bool) {
        // A changed secret is tried at once, which no promise of `expires_in` could foresee.
        self.promises.retain(|(_, promise), _| *promise == Promise::MaxAge);
        let config = self.scenario.config_with(&self.changes, present, &self.pace, &self.stage.base_url());
        self.stage.reload(&config).await;
    }

    fn now(&self) -> Duration {
        self.stage.wechat(|_, now| now)
    }

    fn named(&self, which: Which) -> Result<String, String> {
        let found = match which {
            Which::Current => self.tokens.last().cloned(),
            Which::Previous => self.tokens.iter().rev().nth(1).cloned(),
            Which::Garbage => Some("never-was-a-token".to_owned()),
        };
        found.ok_or_else(|| format!("{which:?}: no such token was served so far"))
    }

    fn note_tokens_killed(&mut self) {
        self.promises.clear();
        let living =
            self.stage.wechat(|world, now| world.truth(&appid(), now)).expect("an account").living_tokens;
        self.killed.extend(living.iter().map(|token| token.access_token.expose().to_owned()));
    }

    fn mint_elsewhere(&mut self, how: Elsewhere) {
        self.note_tokens_killed();
        let secret = self.changes.get("secret").and_then(Value::as_str).unwrap_or(self.scenario.secret());
        let pairs = [("grant_type", "client_credential"), ("appid", APPID), ("secret", secret)];
        let force = matches!(how, Elsewhere::Forced);
        let body = json!({
            "grant_type": "client_credential", "appid": APPID, "secret": secret, "force_refresh": force,
        });
        let (method, path, body) = match how {
            Elsewhere::Token => ("GET", "/cgi-bin/token", Vec::new()),
            Elsewhere::StableToken | Elsewhere::Forced => {
                ("POST", "/cgi-bin/stable_token", body.to_string().into_bytes())
            }
        };
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            content_length: Some(body.len() as u64),
            body,
            source_ip: [127, 0, 0, 1].into(),
        };
        let (before, after) = self.stage.wechat(|world, now| {
            let counted = |world: &World| world.truth(&appid(), now).expect("an account").counters;
            let before = counted(world);
            world.handle(&request, now);
            (before, counted(world))
        });
        let others = &mut self.elsewhere;
        others.token_calls += after.token_calls - before.token_calls;
        others.token_mints += after.token_mints - before.token_mints;
        others.stable_token_calls += after.stable_token_calls - before.stable_token_calls;
        others.stable_token_mints += after.stable_token_mints - before.stable_token_mints;
        others.forced_mints += after.forced_mints - before.forced_mints;
    }

    /// Reads once, and checks the result against the truth.
    async fn look(&mut self) -> Result<Seen, String> {
        let asked_at = self.now();
        let seen = self.stage.look().await;
        self.judge_promises()?;
        let Some(reading) = &seen.served else { return Ok(seen) };
        let dies_at = self.dies_at(&reading.token);
        if dies_at <= asked_at && !self.killed.contains(&reading.token) {
            return Err(format!("served a token {:?} after its death: {seen:?}", asked_at - dies_at));
        }
        if reading.version < self.last_version {
            return Err(format!("the version went back from {}: {seen:?}", self.last_version));
        }
        self.last_version = reading.version;
        self.first_version.get_or_insert(reading.version);
        if self.tokens.last() != Some(&reading.token) {
            self.tokens.push(reading.token.clone());
        }
        if !self.killed.contains(&reading.token) {
            for (promise, time) in
                [(Promise::ExpiresIn, reading.expires_in), (Promise::MaxAge, reading.max_age)]
            {
                let until = self.promises.entry((reading.token.clone(), promise)).or_default();
                *until = (*until).max(asked_at + time);
            }
        }
        Ok(seen)
    }

    fn dies_at(&self, token: &str) -> Duration {
        self.stage.wechat(|world, _| world.token_truth(token).map_or(Duration::ZERO, |token| token.dies_at))
    }

    /// Checks every promise whose end is still to come.
    fn judge_promises(&mut self) -> Result<(), String> {
        for ((token, promise), until) in &self.promises {
            let dies_at = self.dies_at(token);
            if dies_at < *until {
                return Err(format!("{promise:?} promised a token {:?} beyond its death", *until - dies_at));
            }
        }
        let now = self.now();
        self.promises.retain(|_, until| *until > now);
        Ok(())
    }

    /// Returns what is seen, and which parts of `expected` do not hold.
    async fn compare(&mut self, expected: &Expected) -> Result<(Seen, Vec<String>), String> {
        let seen = self.look().await?;
        let counters =
            self.stage.wechat(|world, now| world.truth(&appid(), now)).expect("an account").counters;
        let others = &self.elsewhere;
        let calls = counters.token_calls + counters.stable_token_calls
            - others.token_calls
            - others.stable_token_calls;
        let mints = counters.token_mints + counters.stable_token_mints
            - others.token_mints
            - others.stable_token_mints;
        let mut unmet = Vec::new();
        for (what, count, is) in [
            ("calls", expected.calls, calls),
            ("mints", expected.mints, mints),
            ("forced", expected.forced, counters.forced_mints - others.forced_mints),
            ("checks", expected.checks, counters.checks),
            ("failures", expected.failures, seen.failures),
            ("remaining", expected.remaining, seen.remaining),
        ] {
            if let Some(count) = count.filter(|count| !count.admits(is)) {
                unmet.push(format!("{what} is {is}, not {count:?}"));
            }
        }
        if let Some(state) = expected.state.filter(|state| *state != seen.state) {
            unmet.push(format!("state is {:?}, not {state:?}", seen.state));
        }
        if let Some(outcome) = expected.outcome.filter(|outcome| Some(*outcome) != self.outcome) {
            unmet.push(format!("outcome is {:?}, not {outcome:?}", self.outcome));
        }
        let above = self.first_version.map(|first| seen.version.saturating_sub(first));
        if let Some(version) = expected.version.filter(|version| Some(*version) != above) {
            unmet.push(format!("the version is {above:?} above the first, not {version}"));
        }
        let now = self.now();
        let served = match &seen.served {
            Some(reading) if self.dies_at(&reading.token) > now => Served::Alive,
            Some(_) => Served::Dead,
            None => Served::None,
        };
        if let Some(expected) = expected.served.filter(|expected| *expected != served) {
            unmet.push(format!("served is {served:?}, not {expected:?}"));
        }
        if let Some(like) = &expected.fault {
            let fits = |fault: &FaultSeen| {
                fault.kind == like.kind
                    && fault.errcode == like.errcode
                    && fault.advice.contains(&like.advice)
            };
            if !seen.fault.as_ref().is_some_and(fits) {
                unmet.push(format!("the fault is {:?}, not {like:?}", seen.fault));
            }
        }
        if let Some(expected) = &expected.reason {
            let reason = self.stage.reason().await;
            if reason.as_ref() != Some(expected) {
                unmet.push(format!("the reason is {reason:?}, not {expected}"));
            }
        }
        Ok((seen, unmet))
    }
}

/// Returns the newest reason among the events of a history, newest first.
pub fn last_reason(events: &Value) -> Option<String> {
    events.as_array()?.iter().find_map(|event| event["reason"].as_str().map(str::to_owned))
}
