//! An arbitrary answer that a fault injects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::wire::Answer;

/// Placeholder for the true token or ticket in a body; if present, the request is carried out.
const TOKEN: &str = "{access_token}";

/// A status, headers and a body, sent verbatim. The headers may include framing (`Content-Length` or
/// `Transfer-Encoding`), even wrong; without either, the true length is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawAnswer {
    /// The status, 100 to 999.
    #[serde(default = "ok", deserialize_with = "three_digits")]
    pub status: u16,
    /// The headers, by name.
    #[serde(default, deserialize_with = "sendable")]
    pub headers: BTreeMap<String, String>,
    /// The body. `{access_token}` in it stands for the token (or ticket) of the true answer: the request is
    /// then carried out, and where WeChat refuses it, so does the answer, in WeChat's words.
    #[serde(default)]
    pub body: String,
    /// The body in base64, for bytes that are not text; takes precedence over `body`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "decodable")]
    pub body_base64: Option<String>,
}

impl RawAnswer {
    /// Whether the answer needs a token, so that the request is carried out.
    pub(super) fn wants_token(&self) -> bool {
        self.body_base64.is_none() && self.body.contains(TOKEN)
    }

    /// Builds the answer, with `token` in place of the placeholder.
    pub(super) fn with_token(&self, token: &str) -> Answer {
        let decoded = self.body_base64.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let text: Cow<'_, str> = if self.wants_token() {
            self.body.replace(TOKEN, token).into()
        } else {
            self.body.as_str().into()
        };
        let headers = self.headers.iter().map(|(name, value)| (name.clone().into(), value.clone().into()));
        Answer {
            status: self.status,
            headers: headers.collect(),
            body: decoded.unwrap_or_else(|| text.into_owned().into_bytes()),
        }
    }
}

fn ok() -> u16 {
    200
}

fn three_digits<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    if (100..1000).contains(&status) {
        Ok(status)
    } else {
        Err(D::Error::custom("the status of a raw answer is 100 to 999"))
    }
}

fn sendable<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let headers = BTreeMap::<String, String>::deserialize(from)?;
    let is_sendable = |name: &str, value: &str| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_bytes(value.as_bytes()).is_ok()
    };
    match headers.iter().find(|(name, value)| !is_sendable(name, value)) {
        Some((name, _)) => Err(D::Error::custom(format!("{name:?} is no header that can be sent"))),
        None => Ok(headers),
    }
}

fn decodable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    match text.as_ref().map(|text| STANDARD.decode(text)) {
        Some(Err(error)) => Err(D::Error::custom(format!("body_base64 is no base64: {error}"))),
        _ => Ok(text),
    }
}
