//! Answers that a developer or a test sets for a path, in place of WeChat's own.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// What a business call gets instead of WeChat's own answer, and how it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CannedAnswer {
    /// The path that it is for, or with a trailing `*` a prefix of paths.
    pub path: String,
    /// The status, 200 to 599.
    #[serde(default = "ok", deserialize_with = "final_status")]
    pub status: u16,
    /// The headers, by name. The sandbox itself adds `Date` and what frames the body, and a `Content-Type` that
    /// suits the body if none is given here.
    #[serde(default, deserialize_with = "sendable")]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: CannedBody,
    /// Answers a call without a live token as well. Otherwise such a call is refused as WeChat refuses it.
    #[serde(default)]
    pub unauthenticated: bool,
    /// Sends the body with `Transfer-Encoding: chunked` instead of a `Content-Length`.
    #[serde(default)]
    pub chunked: bool,
    /// Compresses the body, whether or not the client accepts that.
    #[serde(default)]
    pub gzip: Option<Gzip>,
    /// How many bytes of the body are sent at once; 64 KiB by default.
    #[serde(default)]
    pub chunk_bytes: Option<NonZeroU32>,
    /// The pause between two of these, in milliseconds.
    #[serde(default)]
    pub chunk_delay_ms: u64,
    /// The share of the body, at least 0 and below 1, after which the connection ends.
    #[serde(default, deserialize_with = "share")]
    pub cut: Option<f64>,
    /// How fast the request's body is read, in bytes a second; as fast as it comes by default.
    #[serde(default)]
    pub upload_bytes_per_s: Option<NonZeroU64>,
}

impl CannedAnswer {
    /// An answer with status 200, sent whole and at once to calls with a live token.
    #[must_use]
    pub fn new(path: impl Into<String>, body: CannedBody) -> Self {
        Self {
            path: path.into(),
            status: ok(),
            headers: BTreeMap::new(),
            body,
            unauthenticated: false,
            chunked: false,
            gzip: None,
            chunk_bytes: None,
            chunk_delay_ms: 0,
            cut: None,
            upload_bytes_per_s: None,
        }
    }
}

/// The body of a canned answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CannedBody {
    /// This JSON.
    Json(Value),
    /// This text.
    Text(String),
    /// These bytes; base64 in JSON.
    Base64(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] Vec<u8>),
    /// This many bytes, each its offset modulo 251. They are made as they are sent, so memory does not bound them.
    Size(u64),
    /// A description of the request in JSON.
    Echo,
}

impl Default for CannedBody {
    fn default() -> Self {
        Self::Json(json!({"errcode": 0, "errmsg": "ok"}))
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gzip {
    /// As it should be.
    Whole,
    /// The second half of the compressed bytes is missing, although the answer is complete as HTTP.
    Half,
}

fn ok() -> u16 {
    200
}

fn final_status<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    match status {
        200..600 => Ok(status),
        _ => Err(D::Error::custom("a status is 200 to 599")),
    }
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let share = Option::<f64>::deserialize(from)?;
    match share {
        Some(share) if !(0.0..1.0).contains(&share) => {
            Err(D::Error::custom("a cut is at least 0 and below 1, a share of the body"))
        }
        _ => Ok(share),
    }
}

/// Framing is the sandbox's own here; for a false one there is the fault `raw`.
fn sendable<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let headers = BTreeMap::<String, String>::deserialize(from)?;
    let is_sendable = |name: &str, value: &str| {
        let framing = ["content-length", "transfer-encoding"];
        HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !framing.contains(&name.as_str()))
            && HeaderValue::from_bytes(value.as_bytes()).is_ok()
    };
    match headers.iter().find(|(name, value)| !is_sendable(name, value)) {
        Some((name, _)) => Err(D::Error::custom(format!("{name:?} is no header that can be set"))),
        None => Ok(headers),
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(|error| D::Error::custom(format!("the body is no base64: {error}")))
}
