//! The simulated WeChat as a deterministic state machine.
//!
//! It has no I/O, no runtime, no clock and no global randomness: the same seed, requests and instants give
//! the same reactions, so that a simulation can use a [`World`] as its oracle and replay what it found.
//! [`minting`], [`business`] and [`logins`] answer the calls, [`canned_answers`] where a test says what; [`console`] is what tests may see and do and no client can.

mod business;
mod canned_answers;
mod console;
mod logins;
mod minting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use console::AccountTruth;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use wxtokend_core::account::Appid;

use super::account_record::AccountRecord;
use super::answers::{AnswerContext, Outcome, Refusal, answer_for, page};
use super::call::Call;
use super::canned::CannedAnswer;
use super::faults::{FaultKind, Faults};
use super::known_calls;
use super::late::Late;
use super::limits::Limits;
use super::outage::Outage;
use super::raw::RawAnswer;
use super::settings::Settings;
use super::switches::Switches;
use super::tokens::Tokens;
use super::users::Users;
use super::wire::{Answer, Reaction, Request, Wire};

/// State of the simulated WeChat. Every `now` counts from its start and must not go back.
pub struct World {
    token_lifetime: Duration,
    overlap: Duration,
    epoch_wall_s: u64,
    switches: Switches,
    rng: StdRng,
    accounts: BTreeMap<Appid, AccountRecord>,
    tokens: Tokens,
    users: Users,
    faults: Faults,
    /// The answers that were set for business calls, oldest first.
    canned: Vec<Arc<CannedAnswer>>,
    limits: Limits,
    late: Late,
    outage: Option<Outage>,
    /// The latest instant passed in.
    now: Duration,
    strangers_refused: u64,
}

/// Prints no contents: they include tokens and tickets.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}

/// A request with what is known about it.
struct Arrival<'a> {
    /// `None` if WeChat has nothing at that path.
    call: Option<Call>,
    request: &'a Request,
    account: Option<Appid>,
    now: Duration,
}

impl World {
    /// A WeChat that has not issued any token yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let accounts = settings.accounts.into_iter();
        Self {
            token_lifetime: settings.token_lifetime,
            overlap: settings.overlap,
            epoch_wall_s: settings.epoch_wall_s,
            switches: settings.switches,
            rng: StdRng::seed_from_u64(settings.seed),
            accounts: accounts.map(|(appid, secret)| (appid, AccountRecord::new(secret))).collect(),
            tokens: Tokens::default(),
            users: Users::default(),
            faults: Faults::default(),
            canned: Vec::new(),
            limits: Limits::default(),
            late: Late::default(),
            outage: None,
            now: Duration::ZERO,
            strangers_refused: 0,
        }
    }

    /// Handles a request: applies its effects and returns what the client sees.
    pub fn handle(&mut self, request: &Request, now: Duration) -> Reaction {
        self.advance(now);
        let mut delay = Duration::ZERO;
        let wire = match self.outage {
            Some(Outage::Refuse) => Wire::Refuse,
            Some(Outage::Hang) => Wire::Hang,
            Some(Outage::Status(status)) => Wire::Answer(page(status)),
            None if request.method == "POST" && request.content_length.is_none() => Wire::Answer(page(412)),
            None => {
                let arrival = self.arrival(request, now);
                let (account, call) = (arrival.account.as_ref(), arrival.call);
                if let (Some(record), Some(call)) =
                    (account.and_then(|appid| self.accounts.get_mut(appid)), call)
                {
                    record.counters.count(call);
                }
                let fault = self.faults.take(account, (request, call), now, &mut self.rng);
                if let Some(FaultKind::Delay { delay_ms }) = fault {
                    delay = Duration::from_millis(delay_ms);
                }
                self.react(&arrival, fault)
            }
        };
        Reaction { delay, wire }
    }

    fn arrival<'a>(&self, request: &'a Request, now: Duration) -> Arrival<'a> {
        let is_set = || self.answer_set_for(request).map(|_| Call::Business);
        let call = Call::of(&request.path).or_else(is_set);
        Arrival { call, request, account: self.account_meant(call, request), now }
    }

    fn react(&mut self, arrival: &Arrival<'_>, fault: Option<FaultKind>) -> Wire {
        match fault {
            None | Some(FaultKind::Delay { .. }) => self.true_reaction(arrival),
            Some(FaultKind::Hang) => Wire::Hang,
            Some(FaultKind::Reset) => Wire::Reset,
            Some(FaultKind::Html) => Wire::Answer(page(200)),
            Some(FaultKind::Status { status }) => Wire::Answer(page(status)),
            Some(FaultKind::Errcode { errcode, errmsg }) => {
                let sent = arrival.request.field("access_token").unwrap_or_default();
                let errmsg = errmsg.map(|text| text.replace("{access_token}", &sent));
                Wire::Answer(self.answer_for(arrival, Err(Refusal { errcode, errmsg })))
            }
            Some(FaultKind::Raw(raw)) => Wire::Answer(self.raw_answer(arrival, &raw)),
            Some(FaultKind::EmptyToken) => {
                let empty = json!({"access_token": "", "expires_in": self.token_lifetime.as_secs()});
                Wire::Answer(self.answer_for(arrival, Ok(empty)))
            }
            Some(FaultKind::BadExpires { expires_in }) => {
                let mut outcome = self.outcome(arrival);
                if let Ok(value) = &mut outcome {
                    value["expires_in"] = Value::from(expires_in);
                }
                Wire::Answer(self.answer_for(arrival, outcome))
            }
            Some(FaultKind::Half) => match self.true_reaction(arrival) {
                Wire::Answer(answer) => Wire::HalfAnswer { sent: answer.body.len() / 2, answer },
                Wire::Canned(canned) => {
                    Wire::Canned(Arc::new(CannedAnswer { cut: Some(0.5), ..(*canned).clone() }))
                }
                other => other,
            },
            Some(FaultKind::Lost { seen_as }) => {
                self.true_answer(arrival);
                seen_as.wire()
            }
            Some(FaultKind::Late { after_ms, seen_as }) => {
                let due = arrival.now.saturating_add(Duration::from_millis(after_ms));
                self.late.add(due, arrival.request.clone());
                seen_as.wire()
            }
        }
    }

    /// Carries out the late requests that have arrived by `now`, each at its own instant. Call this before
    /// inspecting a `World` between requests; [`Sandbox::with`](super::Sandbox::with) does.
    pub fn advance(&mut self, now: Duration) {
        while let Some((due, request)) = self.late.due_by(now) {
            let arrival = self.arrival(&request, due);
            self.true_answer(&arrival);
        }
        self.now = self.now.max(now);
    }

    /// When the next late request is carried out; `None` if there is none.
    #[must_use]
    pub fn next_late(&self) -> Option<Duration> {
        self.late.next_due()
    }

    /// Builds the `raw` answer. Carries the request out if the answer is to contain a token.
    fn raw_answer(&mut self, arrival: &Arrival<'_>, raw: &RawAnswer) -> Answer {
        if !raw.wants_token() {
            return raw.with_token("");
        }
        match self.outcome(arrival) {
            Ok(value) => {
                let token = value.get("access_token").or_else(|| value.get("ticket"));
                raw.with_token(token.and_then(Value::as_str).unwrap_or_default())
            }
            refused => self.answer_for(arrival, refused),
        }
    }

    fn true_answer(&mut self, arrival: &Arrival<'_>) -> Answer {
        if arrival.call.is_none() && !arrival.request.plain_path().starts_with("/cgi-bin/") {
            return page(404);
        }
        let outcome = self.outcome(arrival);
        match known_calls::file(arrival.request) {
            Some(file) if outcome.is_ok() => file,
            _ => self.answer_for(arrival, outcome),
        }
    }

    fn outcome(&mut self, &Arrival { call, request, now, .. }: &Arrival<'_>) -> Outcome {
        match call {
            Some(Call::Token) => self.token(request, now),
            Some(Call::StableToken) => self.stable_token(request, now),
            Some(Call::Check) => self.check(request, now),
            Some(Call::Ticket) => self.ticket(request, now),
            Some(Call::Quota) => self.quota(request, now),
            Some(Call::Business) => self.business(request, now),
            None => Err(40066.into()),
        }
    }

    fn answer_for(&mut self, arrival: &Arrival<'_>, outcome: Outcome) -> Answer {
        if outcome.is_err() && self.switches.failed_calls_count {
            self.charge_failed(arrival.call, arrival.account.as_ref(), arrival.now);
        }
        let of = AnswerContext {
            call: arrival.call,
            wall_s: self.wall_s(arrival.now),
            source_ip: arrival.request.source_ip,
        };
        answer_for(outcome, of, &mut self.rng)
    }

    /// The account that a request is about, if it names one that exists.
    fn account_meant(&self, call: Option<Call>, request: &Request) -> Option<Appid> {
        let named = || Appid::new(&request.field("appid")?).ok();
        let by_token = || {
            let token = request.field("access_token")?;
            let of_user = || Some(self.users.by_access_token(&token, self.now)?.0.appid.clone());
            self.tokens.get(&token).map(|token| token.appid.clone()).or_else(of_user)
        };
        let meant = match call {
            Some(Call::Token) => named(),
            Some(Call::StableToken) => appid_in(&request.body),
            _ => by_token().or_else(named),
        };
        meant.filter(|appid| self.accounts.contains_key(appid))
    }

    /// Unix time by this WeChat's own clock, in seconds.
    #[must_use]
    pub fn wall_s(&self, now: Duration) -> u64 {
        self.epoch_wall_s + now.as_secs()
    }

    /// The time by this WeChat's own clock.
    #[must_use]
    pub fn time(&self, now: Duration) -> Timestamp {
        let nanos = i128::from(self.epoch_wall_s) * 1_000_000_000
            + i128::try_from(now.as_nanos()).unwrap_or_default();
        Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX)
    }

    /// Value of its `Date` header, by which clients notice that their own clock is wrong.
    #[must_use]
    pub fn date(&self, now: Duration) -> String {
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        printer.timestamp_to_rfc9110_string(&self.time(now)).unwrap_or_default()
    }

    fn day(&self, now: Duration) -> u64 {
        (self.wall_s(now) + 86_400).saturating_sub(u64::from(self.switches.day_begins_at_s)) / 86_400
    }

    fn random_text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(alphabet[self.rng.random_range(0..alphabet.len())])).collect()
    }
}

/// The appid in the body of a `stable_token` call.
fn appid_in(body: &[u8]) -> Option<Appid> {
    let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    Appid::new(body.get("appid")?.as_str()?).ok()
}
