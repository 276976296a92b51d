//! Plays the testkit's scenarios on the decision alone, without actor, runtime or socket.
//!
//! Pure functions stand on one side, the simulated WeChat's world on the other, and the clock between them is
//! a number.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::decide::{Step, next_step};
use wxtokend_core::token::rejection::{RequestDecision, decide_refresh, decide_rejection};
use wxtokend_core::token::schedule::{Draw, Rules};
use wxtokend_core::token::state::{AccountState, Activity, Verdict};
use wxtokend_core::token::transition::{CheckEnd, FetchEnd, Fetched};
use wxtokend_sandbox::{Request, Settings, Wire, World};
use wxtokend_testkit::scenarios::pace::Pace;
use wxtokend_testkit::scenarios::{
    APPID, Driver, FaultSeen, NEIGHBOUR, Outcome, Reading, Scenario, Seen, Stage, all, play,
};

use crate::config::Config;
use crate::wechat::answers::{FailedFetch, no_answer, read_check, read_token};
use crate::wechat::transport::{Lost, Response};

const ONE_WAY: Duration = Duration::from_millis(10);
const PROBE_EVERY: Duration = Duration::from_secs(2);
const JITTER: f64 = 0.5;
const BASE_URL: &str = "https://wechat.test/";

/// A call in flight.
struct InFlightCall {
    /// `None`: a check.
    force: Option<bool>,
    sent: Duration,
    sent_at: Moment,
    token: Secret,
    /// Once it has reached WeChat: when its answer, or the lack of one, reaches us.
    answer: Option<(Duration, Result<Response, Lost>)>,
    abandoned: bool,
}

/// What ended last.
#[derive(Clone, Copy, PartialEq)]
enum Ended {
    Check,
    Fetch(Fetched),
}

struct Decision {
    world: World,
    /// Time since WeChat's start.
    t: Duration,
    wall_ahead_ms: i64,
    pace: Pace,
    account: Account,
    present: bool,
    state: AccountState,
    disk: String,
    call: Option<InFlightCall>,
    due: Option<Duration>,
    host_up: bool,
    probe_at: Option<Duration>,
    ended: Option<Ended>,
}

fn account_in(config: &Value) -> Option<Account> {
    let config = Config::parse(&config.to_string(), Path::new(""), |_| None).unwrap();
    config.accounts.iter().find(|account| account.appid.as_str() == APPID).map(|account| (**account).clone())
}

impl Decision {
    fn new(scenario: &Scenario, bad: bool) -> Self {
        let pace = scenario.pace(Driver::Decision);
        let known = [APPID, NEIGHBOUR].map(|id| (Appid::new(id).unwrap(), Secret::new(scenario.secret())));
        let world = World::new(Settings {
            token_lifetime: pace.lifetime,
            overlap: pace.overlap,
            switches: scenario.switches(bad),
            accounts: known.into(),
            ..Settings::default()
        });
        Self {
            world,
            t: Duration::ZERO,
            wall_ahead_ms: 1_790_000_000_000,
            pace,
            account: account_in(&scenario.config(&pace, BASE_URL)).unwrap(),
            present: true,
            state: AccountState::default(),
            disk: serde_json::to_string(&AccountState::default()).unwrap(),
            call: None,
            due: None,
            host_up: true,
            probe_at: None,
            ended: None,
        }
    }

    fn now(&self) -> Moment {
        let ms = i64::try_from(self.t.as_millis()).unwrap();
        Moment { wall_ms: self.wall_ahead_ms + ms, boot_ms: 1_000_000 + ms }
    }

    fn rules(&self) -> Rules {
        Rules { overlap: self.pace.overlap, timeout: self.pace.timeout, ..Rules::EXAMPLE }
    }

    fn persist(&mut self) {
        self.disk = serde_json::to_string(&self.state).unwrap();
    }

    /// Begins what is due, if no call is in flight.
    fn decide(&mut self) {
        self.due = None;
        while self.call.is_none() && self.present {
            let now = self.now();
            let step = next_step(&self.state, &self.account, self.host_up, now);
            if let Step::Fetch { reason, .. } = step {
                self.state.reason = Some(reason);
            }
            match step {
                Step::Wait(at) | Step::FollowHint(at) => {
                    self.state.next_at = Some(at);
                    self.due = Some(self.t + at.until(now));
                    return;
                }
                Step::AwaitHost => {
                    self.state.next_at = None;
                    return;
                }
                Step::Fetch { .. } if !self.host_up => self.refuse(Fault::host("the host is down")),
                Step::Fetch { force, .. } => match self.state.begin_fetch(&self.account, force, now) {
                    Err(free_at) => {
                        self.refuse(Fault::budget_exhausted(
                            self.account.settings.daily_budget,
                            free_at.until(now),
                        ));
                    }
                    Ok(()) => {
                        self.persist();
                        self.send(Some(force), Activity::Fetching);
                    }
                },
                Step::Check => self.send(None, Activity::Checking),
            }
        }
    }

    fn refuse(&mut self, fault: Fault) {
        let fetched = self.state.refuse_fetch(fault, &self.account, self.now(), JITTER);
        self.ended = Some(Ended::Fetch(fetched));
    }

    fn send(&mut self, force: Option<bool>, activity: Activity) {
        self.state.next_at = Some(self.now());
        self.state.activity = activity;
        let token = self.state.token.as_ref().map_or_else(|| Secret::new(""), |token| token.value.clone());
        let (sent, sent_at) = (self.t, self.now());
        self.call = Some(InFlightCall { force, sent, sent_at, token, answer: None, abandoned: false });
    }

    /// When the next event happens.
    fn next_event(&self) -> Option<Duration> {
        let of_call = self.call.as_ref().map(|call| match &call.answer {
            None => call.sent + ONE_WAY,
            Some((ends_at, _)) => *ends_at,
        });
        [of_call, self.due, self.probe_at].into_iter().flatten().min()
    }

    /// Runs the next event, unless `end` comes first; returns whether it ran.
    fn advance(&mut self, end: Duration) -> bool {
        self.decide();
        let Some(at) = self.next_event().filter(|at| *at <= end) else {
            self.t = end;
            return false;
        };
        self.t = self.t.max(at);
        if self.probe_at.is_some_and(|at| at <= self.t) {
            self.probe();
        }
        let arrives = |call: &InFlightCall| call.answer.is_none() && call.sent + ONE_WAY <= self.t;
        if self.call.as_ref().is_some_and(arrives) {
            self.arrive();
        }
        let has_ended =
            |call: &mut InFlightCall| call.answer.as_ref().is_some_and(|(ends_at, _)| *ends_at <= self.t);
        if let Some(call) = self.call.take_if(has_ended) {
            self.end_call(call);
        }
        true
    }

    fn run_to(&mut self, end: Duration) {
        while self.advance(end) {}
    }

    /// The call reaches WeChat.
    fn arrive(&mut self) {
        let call = self.call.as_ref().unwrap();
        let request = match call.force {
            None => check_request(call.token.expose()),
            Some(force) => token_request(&self.account, force),
        };
        let gives_up = call.sent + self.pace.timeout;
        let (took, answer) = answer_of(&mut self.world, &request, self.t);
        let ends_at = took.map_or(gives_up, |took| self.t + took + ONE_WAY);
        let answer = if ends_at < gives_up { answer } else { Err(Lost::TimedOut) };
        self.call.as_mut().unwrap().answer = Some((ends_at.min(gives_up), answer));
    }

    /// The answer, or the lack of one, reaches us.
    fn end_call(&mut self, call: InFlightCall) {
        let (_, answer) = call.answer.unwrap();
        self.state.activity = Activity::Idle;
        match &answer {
            Ok(answer) if answer.status < 500 => self.host_answers(),
            _ => self.probe_at = self.probe_at.or(Some(self.t)),
        }
        let now = self.now();
        let Some(force) = call.force else {
            let end: CheckEnd = read_check(answer.as_ref(), &call.token);
            self.state.end_check(&end, &self.account, now);
            self.ended = Some(Ended::Check);
            return self.persist();
        };
        let was_sent = !matches!(answer, Err(Lost::NotSent(_)));
        let result = match answer {
            Ok(answer) => read_token(self.account.settings.endpoint, &answer, &self.account.secret),
            Err(lost) => Err(no_answer(self.account.settings.endpoint, &lost)),
        };
        if call.abandoned {
            self.state.drop_fetch(force, was_sent);
        } else {
            let end = FetchEnd {
                force,
                sent_at: was_sent.then_some(call.sent_at),
                may_have_minted: result.as_ref().is_err_and(|none| none.reply.may_have_minted()),
                result: result.map_err(|FailedFetch { fault, .. }| fault),
            };
            let fetched = self.state.end_fetch(end, &self.account, self.rules(), now, Draw::alone(JITTER));
            self.ended = Some(Ended::Fetch(fetched));
        }
        self.persist();
    }

    /// The harmless check call shows whether the host is up.
    fn probe(&mut self) {
        let (took, answer) = answer_of(&mut self.world, &check_request("probe"), self.t);
        if answer.is_ok_and(|answer| answer.status < 500) {
            self.host_answers();
        } else {
            self.host_up = false;
            self.probe_at = Some(self.t + took.unwrap_or(self.pace.timeout) + PROBE_EVERY);
        }
    }

    fn host_answers(&mut self) {
        self.probe_at = None;
        if !std::mem::replace(&mut self.host_up, true) {
            self.state.host_is_back(self.now());
        }
    }

    /// The outcome for a client that has reported `presented`, or else asked for a refresh.
    fn settle(&mut self, decided: RequestDecision, presented: Option<&Secret>) -> Outcome {
        let end = self.t + self.pace.timeout * 4;
        match decided {
            RequestDecision::Superseded if self.state.is_usable(self.now()) => return Outcome::Superseded,
            RequestDecision::Superseded => return Outcome::Unavailable,
            RequestDecision::StillValid => return Outcome::StillValid,
            RequestDecision::Limited => return Outcome::Limited,
            RequestDecision::WaitForCurrent | RequestDecision::Accepted => self.persist(),
        }
        let version = self.state.version;
        self.ended = None;
        self.decide();
        while (self.call.is_some() || self.ended.is_none()) && self.advance(end) {
            self.decide();
        }
        let usable = self.state.is_usable(self.now());
        let honoured = self.state.rejections.verdict == Some(Verdict::Honoured);
        match self.ended {
            _ if self.state.version > version => Outcome::Refreshed,
            _ if !usable => Outcome::Unavailable,
            Some(Ended::Fetch(Fetched::Failed)) | None if presented.is_some() => Outcome::Limited,
            Some(Ended::Check) if !honoured => Outcome::Limited,
            _ => Outcome::StillValid,
        }
    }

    /// Starts a new process, which knows what is on disk.
    fn boot(&mut self) {
        self.state = serde_json::from_str(&self.disk).unwrap();
        self.state.recover(&self.account, self.rules(), self.now());
        self.state.next_at = Some(self.now());
        (self.call, self.probe_at, self.host_up) = (None, None, true);
    }
}

fn check_request(token: &str) -> Request {
    request("GET", "/cgi-bin/get_api_domain_ip", &[("access_token", token)], Vec::new())
}

fn token_request(account: &Account, force: bool) -> Request {
    let (appid, secret) = (account.appid.as_str(), account.secret.expose());
    match account.settings.endpoint {
        Endpoint::Token => {
            let query = [("grant_type", "client_credential"), ("appid", appid), ("secret", secret)];
            request("GET", "/cgi-bin/token", &query, Vec::new())
        }
        Endpoint::StableToken => {
            let body = json!({
                "grant_type": "client_credential", "appid": appid, "secret": secret, "force_refresh": force,
            });
            request("POST", "/cgi-bin/stable_token", &[], body.to_string().into_bytes())
        }
    }
}

fn request(method: &str, path: &str, query: &[(&str, &str)], body: Vec<u8>) -> Request {
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        content_length: Some(body.len() as u64),
        body,
        source_ip: [127, 0, 0, 1].into(),
    }
}

/// How long WeChat takes for a request that reaches it at `t`, `None` for forever, and the result.
fn answer_of(
    world: &mut World,
    request: &Request,
    t: Duration,
) -> (Option<Duration>, Result<Response, Lost>) {
    let reaction = world.handle(request, t);
    let answer = match reaction.wire {
        Wire::Answer(answer) => {
            Ok(Response { status: answer.status, body: answer.body, date: None, retry_after: None })
        }
        Wire::HalfAnswer { .. } | Wire::Reset => Err(Lost::Cut("connection reset".to_owned())),
        Wire::Refuse => Err(Lost::NotSent("connection refused".to_owned())),
        Wire::Hang | Wire::Canned(_) => return (None, Err(Lost::TimedOut)),
    };
    (Some(reaction.delay), answer)
}

/// Lets [`Stage`] access WeChat through a shared reference.
struct SharedDecision(std::cell::RefCell<Decision>);

impl Stage for SharedDecision {
    const DRIVER: Driver = Driver::Decision;

    fn wechat<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R {
        let mut decision = self.0.borrow_mut();
        let t = decision.t;
        look(&mut decision.world, t)
    }

    fn base_url(&self) -> String {
        BASE_URL.to_owned()
    }

    async fn pass(&mut self, time: Duration) {
        let decision = self.0.get_mut();
        decision.run_to(decision.t + time);
    }

    async fn look(&mut self) -> Seen {
        let decision = self.0.get_mut();
        decision.decide();
        let (state, now) = (&decision.state, decision.now());
        if !decision.present {
            return Seen::removed();
        }
        let word = |word: &str| serde_json::from_value(json!(word)).unwrap();
        Seen {
            state: serde_json::from_value(json!(state.phase(now))).unwrap(),
            version: state.version,
            failures: state.failures().into(),
            remaining: state
                .ledger
                .remaining(Bucket::Calls, decision.account.settings.daily_budget, now)
                .into(),
            fault: state.last_failure.as_deref().map(|last_failure| last_failure.cause().0).map(|fault| {
                FaultSeen {
                    kind: word(fault.kind.as_str()),
                    errcode: fault.errcode,
                    advice: fault.advice.clone(),
                }
            }),
            served: state.read(now).map(|token| Reading {
                token: token.access_token().to_owned(),
                version: token.version(),
                expires_in: token.expires_in(),
                max_age: token.max_age(),
            }),
        }
    }

    async fn reason(&mut self) -> Option<String> {
        self.0.get_mut().state.reason.map(|reason| reason.as_str().to_owned())
    }

    async fn reject(&mut self, token: &str) -> Outcome {
        let decision = self.0.get_mut();
        let (presented, now) = (Secret::new(token), decision.now());
        let decided = decide_rejection(&mut decision.state, &decision.account, &presented, now);
        decision.settle(decided, Some(&presented))
    }

    async fn refresh(&mut self, force: bool) -> Outcome {
        let decision = self.0.get_mut();
        let now = decision.now();
        let decided = decide_refresh(&mut decision.state, &decision.account, force, now);
        decision.settle(decided, None)
    }

    async fn reload(&mut self, config: &Value) {
        let decision = self.0.get_mut();
        let now = decision.now();
        match (account_in(config), decision.present) {
            (Some(new), true) => {
                decision.state.reconfigured(&decision.account, &new, now);
                decision.account = new;
            }
            (Some(new), false) => {
                decision.account = new;
                decision.state.next_at = Some(now);
            }
            (None, _) => {
                decision.state = decision.state.tombstone();
                decision.call.as_mut().into_iter().for_each(|call| call.abandoned = true);
                decision.persist();
            }
        }
        decision.present = account_in(config).is_some();
    }

    async fn restart(&mut self) {
        let decision = self.0.get_mut();
        while decision.call.is_some() {
            let end = decision.next_event().unwrap();
            decision.advance(end);
        }
        decision.persist();
        decision.boot();
    }

    async fn crash(&mut self) {
        self.0.get_mut().boot();
    }

    async fn jump(&mut self, ms: i64) {
        self.0.get_mut().wall_ahead_ms += ms;
    }
}

/// Polls a future that never has to wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the decision waited for something"),
    }
}

#[test]
fn every_scenario_goes_as_expected_for_the_decision_alone() {
    let mut failures = Vec::new();
    for scenario in all().iter().filter(|scenario| scenario.is_for(Driver::Decision)) {
        for bad in [true, false] {
            let mut stage = SharedDecision(Decision::new(scenario, bad).into());
            let played = at_once(play(scenario, &mut stage));
            failures.extend(played.err().map(|why| format!("{why} (WeChat at its worst: {bad})")));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}
