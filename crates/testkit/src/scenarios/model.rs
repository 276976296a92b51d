//! The model of scenarios.yaml, fully validated before anything is played.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Map, Value, json};
use wxtokend::Config;
use wxtokend_core::account::Endpoint;
use wxtokend_sandbox::{Fault, Outage, Switches};

use super::pace::{Pace, Span};
use super::{APPID, NEIGHBOUR};

/// The AppSecret that WeChat initially has for the account.
const SECRET: &str = "first-secret";

/// An implementation that plays scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// The pure functions against WeChat's world: no actors, no runtime.
    Decision,
    /// Supervisor, actors and store on paused time.
    Fleet,
    /// The program as a process, over HTTP, in real time.
    Daemon,
}

impl Driver {
    const ALL: [Self; 3] = [Self::Decision, Self::Fleet, Self::Daemon];
}

/// An entry of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// A sentence.
    name: String,
    /// The drivers that play it, if not all do.
    only: Option<BTreeSet<Driver>>,
    /// Why not all do.
    because: Option<String>,
    given: Given,
    steps: Vec<Line>,
    /// What must hold at the end.
    expected: Expected,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    endpoint: On,
    /// Nothing falls due by itself: tokens live as long as WeChat's, in real time as well.
    #[serde(default)]
    quiet: bool,
    /// Keys of the account in accounts.yaml.
    #[serde(default)]
    account: Map<String, Value>,
    /// Switches of this WeChat. The decision plays both positions of those that are not given.
    #[serde(default)]
    switches: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum On {
    StableToken,
    Token,
    Both,
}

/// `- word` or `- word: …`
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
struct Line {
    #[serde(with = "serde_yaml::with::singleton_map")]
    step: Step,
}

/// Something that happens, is waited for, or must hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Time passes.
    Wait(Span),
    /// Time passes until this holds.
    Until(Expected),
    /// This holds now.
    Expect(Expected),
    /// From now on, WeChat fails like this for this account.
    Inject(#[serde(deserialize_with = "strict_fault")] Fault),
    /// WeChat stops failing.
    Clear,
    /// All tokens end, without notice.
    KillTokens,
    /// An outsider who has the AppSecret calls WeChat.
    MintElsewhere(Elsewhere),
    /// A client reports a token.
    Reject(Which),
    /// An operator requests a refresh.
    Refresh(How),
    /// The whole host fails, or recovers.
    Outage(#[serde(deserialize_with = "outage")] Option<Outage>),
    /// The AppSecret is reset in WeChat's console.
    ResetSecret(String),
    /// Keys of the account in accounts.yaml change, and the file is reloaded.
    Reload(Map<String, Value>),
    /// The account is taken out of the file.
    Remove,
    /// The account is put back.
    Add,
    /// A graceful stop and a start.
    Restart,
    /// kill -9 and a start.
    Crash,
    /// The wall clock is set forward.
    JumpForward(Span),
    /// The wall clock is set back.
    JumpBack(Span),
}

/// How an outsider calls.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elsewhere {
    Token,
    StableToken,
    /// `stable_token` with `force_refresh`.
    Forced,
}

/// Which token a client reports.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The newest that was read.
    Current,
    /// The one read before that.
    Previous,
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Normal,
    Force,
}

/// What must hold; fields that are left out are not compared.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expected {
    pub state: Option<State>,
    /// How far the version is above the first token's.
    pub version: Option<u64>,
    pub served: Option<Served>,
    /// The answer to the last report or refresh.
    pub outcome: Option<Outcome>,
    /// Our token calls that WeChat has seen since the beginning.
    pub calls: Option<Count>,
    /// Tokens it has minted for us.
    pub mints: Option<Count>,
    /// Forced mints among them.
    pub forced: Option<Count>,
    /// Check calls that it has seen.
    pub checks: Option<Count>,
    /// Failures in a row; 0 means that there is no fault.
    pub failures: Option<Count>,
    /// Token calls that the budget allows right now.
    pub remaining: Option<Count>,
    pub fault: Option<FaultLike>,
    /// Why the last token call since the start was made.
    pub reason: Option<String>,
}

/// Parts of a fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultLike {
    pub kind: Kind,
    /// Left out if WeChat gave none.
    pub errcode: Option<i64>,
    /// Text that the advice contains.
    pub advice: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Transient,
    Throttled,
    Parked,
    UnknownOutcome,
}

/// The account's state as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    Fresh,
    Refreshing,
    Degraded,
    Unavailable,
    Parked,
    /// The account does not exist.
    Removed,
}

/// What a reader gets.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Served {
    /// A token that WeChat honours.
    Alive,
    /// A token that WeChat does not honour, without our knowing.
    Dead,
    /// No token.
    None,
}

/// The outcome of a report or a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Refreshed,
    Superseded,
    StillValid,
    Limited,
    /// There is no valid token.
    Unavailable,
}

/// `2`, or from 2 to 4 as `2..4`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Count(u64, u64);

impl Count {
    pub fn admits(self, number: u64) -> bool {
        (self.0..=self.1).contains(&number)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(from)? {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text,
            _ => String::new(),
        };
        let (least, most) = text.split_once("..").unwrap_or((&text, &text));
        match (least.parse(), most.parse()) {
            (Ok(least), Ok(most)) if least <= most => Ok(Self(least, most)),
            _ => Err(D::Error::custom(format!("{text:?} is no count: 2, or 2..4"))),
        }
    }
}

/// Parses a fault of the sandbox and rejects unknown keys.
fn strict_fault<'de, D: Deserializer<'de>>(from: D) -> Result<Fault, D::Error> {
    let given = Map::deserialize(from)?;
    let fault: Fault = serde_json::from_value(Value::Object(given.clone())).map_err(D::Error::custom)?;
    let understood = serde_json::to_value(&fault).map_err(D::Error::custom)?;
    match given.keys().find(|key| understood.get(key).is_none()) {
        Some(key) => Err(D::Error::custom(format!("unknown key {key:?} of a fault"))),
        None => Ok(fault),
    }
}

fn outage<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Outage>, D::Error> {
    let text = String::deserialize(from)?;
    if text == "none" { Ok(None) } else { Outage::try_from(text).map(Some).map_err(D::Error::custom) }
}

/// One scenario on one endpoint, with everything needed to play it.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub endpoint: Endpoint,
    pub steps: Vec<Step>,
    pub expected: Expected,
    drivers: BTreeSet<Driver>,
    quiet: bool,
    /// Whether it is played in real time on a machine that is too busy for the usual pace.
    pub slow: bool,
    account: Map<String, Value>,
    switches: Map<String, Value>,
}

impl Scenario {
    /// Whether `driver` plays it.
    pub fn is_for(&self, driver: Driver) -> bool {
        self.drivers.contains(&driver)
    }

    /// The numbers that `driver` plays it at.
    pub fn pace(&self, driver: Driver) -> Pace {
        match driver {
            Driver::Decision | Driver::Fleet => Pace::WECHAT,
            Driver::Daemon => match (self.slow, self.quiet) {
                (false, false) => Pace::QUICK,
                (false, true) => Pace::QUIET,
                (true, false) => Pace::SLOW,
                (true, true) => Pace::SLOW_AND_QUIET,
            },
        }
    }

    /// A WeChat whose unknown behaviours are all as bad as possible, or all as good; given switches take
    /// precedence.
    pub fn switches(&self, bad: bool) -> Switches {
        let all = Switches {
            second_mint_kills_first: bad,
            forced_kills_at_once: bad,
            failed_calls_count: bad,
            hostile_tokens: bad,
            dead_stable_replaced: !bad,
            ..Switches::default()
        };
        all.patched(&self.switches).expect("switches are checked when the file is read")
    }

    /// The AppSecret that WeChat initially has.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// accounts.yaml at the start.
    pub fn config(&self, pace: &Pace, base_url: &str) -> Value {
        self.config_with(&Map::new(), true, pace, base_url)
    }

    /// accounts.yaml with other keys of the account, or with its neighbour instead.
    pub fn config_with(
        &self,
        changes: &Map<String, Value>,
        present: bool,
        pace: &Pace,
        base_url: &str,
    ) -> Value {
        let ms = |time: std::time::Duration| format!("{}ms", time.as_millis());
        let mut account = Map::new();
        account.insert("appid".to_owned(), APPID.into());
        account.insert("secret".to_owned(), SECRET.into());
        account.insert("endpoint".to_owned(), self.endpoint.as_str().into());
        account.extend(self.account.clone());
        account.extend(changes.clone());
        let neighbour = json!({ "appid": NEIGHBOUR, "secret": SECRET });
        json!({
            "api": { "listen": "127.0.0.1:0" },
            "store": { "path": "store.redb" },
            "upstream": {
                "base_urls": [base_url],
                "timeout": ms(pace.timeout),
                "overlap": ms(pace.overlap),
            },
            "defaults": {
                "retry": { "initial": ms(pace.retry.0), "max": ms(pace.retry.1) },
                "rejection_cooldown": ms(pace.cooldown),
            },
            "accounts": [if present { Value::Object(account) } else { neighbour }],
        })
    }

    /// Returns what the program would refuse, or the drivers could not play.
    fn problem(&self) -> Option<String> {
        if let Err(why) = Switches::default().patched(&self.switches) {
            return Some(format!("given.switches: {why}"));
        }
        let changes = self.steps.iter().filter_map(|step| match step {
            Step::Reload(changes) => Some(changes.clone()),
            _ => None,
        });
        for changes in std::iter::once(Map::new()).chain(changes) {
            let config = self.config_with(&changes, true, &Pace::WECHAT, "https://wechat.test/");
            if let Err(error) = Config::parse(&config.to_string(), Path::new(""), |_| None) {
                return Some(format!("a configuration that the program refuses{error}"));
            }
        }
        let absolute = self.steps.iter().any(|step| match step {
            Step::Wait(span) => span.is_absolute(),
            _ => false,
        });
        let jumps = self.steps.iter().any(|step| matches!(step, Step::JumpForward(_) | Step::JumpBack(_)));
        if self.is_for(Driver::Daemon) && (absolute || jumps) {
            return Some("the daemon cannot play it: it jumps, or waits in seconds".to_owned());
        }
        None
    }
}

impl Entry {
    fn scenarios(self) -> Result<Vec<Scenario>, String> {
        let refused = |why: &str| Err(format!("{:?}: {why}", self.name));
        let drivers = match (&self.only, &self.because) {
            (None, None) => BTreeSet::from(Driver::ALL),
            (Some(only), Some(because)) if !only.is_empty() && !because.trim().is_empty() => only.clone(),
            _ => return refused("`only` names drivers and goes with `because`, which says why"),
        };
        let endpoints = match self.given.endpoint {
            On::StableToken => vec![Endpoint::StableToken],
            On::Token => vec![Endpoint::Token],
            On::Both => vec![Endpoint::StableToken, Endpoint::Token],
        };
        let on = |endpoint| Scenario {
            name: self.name.clone(),
            endpoint,
            steps: self.steps.iter().map(|line| line.step.clone()).collect(),
            expected: self.expected.clone(),
            drivers: drivers.clone(),
            quiet: self.given.quiet,
            slow: false,
            account: self.given.account.clone(),
            switches: self.given.switches.clone(),
        };
        let scenarios: Vec<_> = endpoints.into_iter().map(on).collect();
        match scenarios.iter().find_map(Scenario::problem) {
            Some(problem) => refused(&problem),
            None => Ok(scenarios),
        }
    }
}

/// Parses a file of scenarios: each on each of its endpoints.
pub fn read(text: &str) -> Result<Vec<Scenario>, String> {
    let entries: Vec<Entry> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(entry.name.clone())) {
        return Err(format!("{:?}: stands here twice", twice.name));
    }
    Ok(entries
        .into_iter()
        .map(Entry::scenarios)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// All scenarios of scenarios.yaml.
pub fn all() -> Vec<Scenario> {
    read(include_str!("scenarios.yaml")).unwrap_or_else(|why| panic!("scenarios.yaml: {why}"))
}
