//! Faults that a test or a developer injects.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::answers::page;
use super::call::Call;
use super::wire::Wire;
use crate::account::Appid;

/// Something that goes wrong at WeChat, for one account or for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Which calls it hits; `None` (in JSON `any` or no key): all of them.
    #[serde(default, with = "any_call")]
    pub endpoint: Option<Call>,
    /// How many calls it hits; `None`: all until it is cleared.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What goes wrong. Unless it says otherwise the request changes nothing at WeChat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// WeChat answers with this error.
    Errcode {
        /// The code.
        errcode: i64,
        /// The message without its rid; by default what WeChat says with that code.
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
    /// No answer.
    Hang,
    /// The true answer, late. What the request does is done on arrival.
    Delay {
        /// How late.
        delay_ms: u64,
    },
    /// Half of the true answer, then the connection ends: a mint has happened.
    Half,
    /// The connection is reset.
    Reset,
    /// The request is carried out (a token is minted), but its answer gets lost.
    Lost {
        /// What the client sees instead.
        #[serde(rename = "as")]
        seen_as: LostAs,
    },
    /// The request reaches WeChat only later, as one that a slow backend or a retransmission delivers after the
    /// client has given up. It is carried out then, whatever has happened in the meantime.
    Late {
        /// How much later, in milliseconds.
        after_ms: u64,
        /// What the client sees at once.
        #[serde(rename = "as", default)]
        seen_as: LostAs,
    },
    /// A token answer with an empty `access_token`.
    EmptyToken,
    /// The true answer with another `expires_in`.
    BadExpires {
        /// The number it says.
        expires_in: i64,
    },
}

fn final_status<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    if (200..600).contains(&status) { Ok(status) } else { Err(D::Error::custom("a status is 200 to 599")) }
}

impl Fault {
    /// A fault that hits every call until it is cleared.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, endpoint: None, times: None }
    }

    /// WeChat answers `errcode` in its usual words.
    #[must_use]
    pub fn errcode(errcode: i64) -> Self {
        Self::new(FaultKind::Errcode { errcode, errmsg: None })
    }

    /// The same, only for one kind of call.
    #[must_use]
    pub fn on(self, call: Call) -> Self {
        Self { endpoint: Some(call), ..self }
    }

    /// The same, only for the next `times` calls.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
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

/// The faults that wait for their calls. Those of the account go first, then those of all, each in the order of
/// injection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    of_all: Vec<Fault>,
    of_one: BTreeMap<Appid, Vec<Fault>>,
}

impl Faults {
    /// The faults for `account`, or those for all accounts.
    pub(super) fn list(&mut self, account: Option<&Appid>) -> &mut Vec<Fault> {
        match account {
            Some(appid) => self.of_one.entry(appid.clone()).or_default(),
            None => &mut self.of_all,
        }
    }

    /// The fault that hits this call, if any, which is thereby used up by one.
    pub(super) fn take(&mut self, account: Option<&Appid>, call: Call) -> Option<FaultKind> {
        let own = account.and_then(|appid| self.of_one.get_mut(appid)).and_then(|list| take_from(list, call));
        own.or_else(|| take_from(&mut self.of_all, call))
    }
}

fn take_from(faults: &mut Vec<Fault>, call: Call) -> Option<FaultKind> {
    faults.retain(|fault| fault.times != Some(0));
    let fault = faults.iter_mut().find(|fault| fault.endpoint.is_none_or(|only| only == call))?;
    fault.times = fault.times.map(|times| times - 1);
    let kind = fault.kind.clone();
    faults.retain(|fault| fault.times != Some(0));
    Some(kind)
}

/// `any` for `None`.
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
