//! Faults that a test or a developer injects.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::answers::page;
use super::call::Call;
use super::raw::RawAnswer;
use super::wire::{Request, Wire};

/// Something that goes wrong at WeChat, for one account or for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Which calls it hits; `None` (in JSON `any` or no key) for all.
    #[serde(default, with = "any_call")]
    pub endpoint: Option<Call>,
    /// The path that it hits, or with a trailing `*` a prefix of paths; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The token whose calls it hits; `None` for calls with any token or none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "token")]
    pub access_token: Option<Secret>,
    /// Probability of hitting a call, greater than 0 and at most 1; `None` for each call. Drawn from the
    /// sandbox's seed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "chance")]
    pub probability: Option<f64>,
    /// How many calls it hits; `None` for all until it is cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long it lasts after its injection, in milliseconds; `None` for until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// When it ends; set on injection.
    #[serde(skip)]
    pub(super) ends_at: Option<Duration>,
}

/// What goes wrong. Unless stated otherwise, the request changes nothing at WeChat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// WeChat answers with this error.
    Errcode {
        /// The code.
        errcode: i64,
        /// The message without its rid; `{access_token}` in it stands for the token that was sent. By
        /// default, WeChat's own message for that code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errmsg: Option<String>,
    },
    /// The gateway answers with this HTTP status and an HTML page; 412 has an empty body.
    Status {
        /// The status, 200 to 599.
        #[serde(deserialize_with = "final_status")]
        status: u16,
    },
    /// The gateway answers with an HTML page and status 200.
    Html,
    /// An arbitrary answer.
    Raw(RawAnswer),
    /// No answer.
    Hang,
    /// The true answer, late. The request takes effect on arrival.
    Delay {
        /// Delay in milliseconds.
        delay_ms: u64,
    },
    /// Half of the true answer, then the connection ends: a mint has happened.
    Half,
    /// The connection is reset.
    Reset,
    /// The request is carried out (a token is minted), but its answer is lost.
    Lost {
        /// What the client sees instead.
        #[serde(rename = "as")]
        seen_as: LostAs,
    },
    /// The request reaches WeChat only later, after the client has given up. A slow backend or a
    /// retransmission delivers it; it is carried out then, whatever has happened in the meantime.
    Late {
        /// How much later, in milliseconds.
        after_ms: u64,
        /// What the client sees immediately.
        #[serde(rename = "as", default)]
        seen_as: LostAs,
    },
    /// A token answer with an empty `access_token`.
    EmptyToken,
    /// The true answer with another `expires_in`.
    BadExpires {
        /// The value to report.
        expires_in: i64,
    },
}

fn final_status<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    if (200..600).contains(&status) {
        Ok(status)
    } else {
        Err(serde::de::Error::custom("a status is 200 to 599"))
    }
}

fn chance<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let chance = Option::<f64>::deserialize(from)?;
    if chance.is_none_or(|chance| chance > 0.0 && chance <= 1.0) {
        Ok(chance)
    } else {
        Err(serde::de::Error::custom("a probability is above 0 and at most 1"))
    }
}

impl Fault {
    /// A fault that hits every call until it is cleared.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            endpoint: None,
            path: None,
            access_token: None,
            probability: None,
            times: None,
            for_ms: None,
            ends_at: None,
        }
    }

    /// A fault: WeChat answers `errcode` with its usual message.
    #[must_use]
    pub fn errcode(errcode: i64) -> Self {
        Self::new(FaultKind::Errcode { errcode, errmsg: None })
    }

    /// Restricts the fault to one kind of call.
    #[must_use]
    pub fn on(self, call: Call) -> Self {
        Self { endpoint: Some(call), ..self }
    }

    /// Restricts the fault to this path, or with a trailing `*` to paths with this prefix.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// Restricts the fault to calls with this token.
    #[must_use]
    pub fn with_token(self, access_token: Secret) -> Self {
        Self { access_token: Some(access_token), ..self }
    }

    /// Hits a call only with this probability, greater than 0 and at most 1.
    #[must_use]
    pub fn by_chance(self, probability: f64) -> Self {
        Self { probability: Some(probability), ..self }
    }

    /// Restricts the fault to the next `times` calls.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Ends the fault `for_ms` milliseconds after its injection.
    #[must_use]
    pub fn lasting(self, for_ms: u64) -> Self {
        Self { for_ms: Some(for_ms), ..self }
    }

    /// Whether it applies to a request, disregarding its probability and its remaining count.
    fn fits(&self, request: &Request, call: Option<Call>) -> bool {
        let token_fits = |wanted: &Secret| request.param("access_token") == Some(wanted.expose());
        self.endpoint.is_none_or(|only| call == Some(only))
            && self.path.as_deref().is_none_or(|wanted| request.is_at(wanted))
            && self.access_token.as_ref().is_none_or(token_fits)
    }

    fn is_over(&self, now: Duration) -> bool {
        self.times == Some(0) || self.ends_at.is_some_and(|end| now >= end)
    }
}

/// How a lost answer looks to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostAs {
    /// No answer.
    #[default]
    Hang,
    /// The connection is reset.
    Reset,
    /// An HTML page with status 200.
    Html,
    /// HTTP 502 with an HTML page.
    #[serde(rename = "502")]
    BadGateway,
    /// HTTP 504 with an HTML page.
    #[serde(rename = "504")]
    GatewayTimeout,
}

impl LostAs {
    /// What the client sees.
    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Hang => Wire::Hang,
            Self::Reset => Wire::Reset,
            Self::Html => Wire::Answer(page(200)),
            Self::BadGateway => Wire::Answer(page(502)),
            Self::GatewayTimeout => Wire::Answer(page(504)),
        }
    }
}

/// Injected faults. Those of the account come first, then those for all, each in the order of injection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    of_all: Vec<Fault>,
    of_one: BTreeMap<Appid, Vec<Fault>>,
}

impl Faults {
    /// Returns the active faults for `account`, or those for all accounts.
    pub(super) fn list(&mut self, account: Option<&Appid>, now: Duration) -> &mut Vec<Fault> {
        let list = match account {
            Some(appid) => self.of_one.entry(appid.clone()).or_default(),
            None => &mut self.of_all,
        };
        list.retain(|fault| !fault.is_over(now));
        list
    }

    /// Adds a fault for `account`, or for all accounts, starting at `now`.
    pub(super) fn add(&mut self, account: Option<&Appid>, fault: Fault, now: Duration) {
        let ends_at = fault.for_ms.map(|ms| now.saturating_add(Duration::from_millis(ms)));
        self.list(account, now).push(Fault { ends_at, ..fault });
    }

    /// Returns the fault that hits a request about `account`, if any, and uses it up by one.
    pub(super) fn take(
        &mut self,
        account: Option<&Appid>,
        (request, call): (&Request, Option<Call>),
        now: Duration,
        rng: &mut StdRng,
    ) -> Option<FaultKind> {
        let own = account.and_then(|appid| self.of_one.get_mut(appid));
        for list in own.into_iter().chain([&mut self.of_all]) {
            list.retain(|fault| !fault.is_over(now));
            let hit = list.iter_mut().find(|fault| {
                fault.fits(request, call)
                    && fault.probability.is_none_or(|chance| rng.random::<f64>() < chance)
            });
            if let Some(fault) = hit {
                fault.times = fault.times.map(|times| times - 1);
                let kind = fault.kind.clone();
                list.retain(|fault| !fault.is_over(now));
                return Some(kind);
            }
        }
        None
    }
}

/// Serialises the token itself: readers of the control API may see tokens.
mod token {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Secret;

    pub(super) fn serialize<S: Serializer>(token: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
        token.as_ref().map(Secret::expose).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Secret::new))
    }
}

/// Represents `None` as `any`.
mod any_call {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Call;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Any {
        Any,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "endpoint: token, stable_token, check, ticket, quota, business or any")]
    enum Named {
        Any(Any),
        One(Call),
    }

    pub(super) fn serialize<S: Serializer>(call: &Option<Call>, to: S) -> Result<S::Ok, S::Error> {
        call.map_or(Named::Any(Any::Any), Named::One).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Call>, D::Error> {
        Ok(match Named::deserialize(from)? {
            Named::Any(_) => None,
            Named::One(call) => Some(call),
        })
    }
}
