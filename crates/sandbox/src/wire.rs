//! What passes between a client and the simulated WeChat, independent of the transport.
//!
//! A reaction is more than an answer: the interesting failures (no answer, half of one, a reset) are what the
//! client has to survive. So they are values here, which the HTTP server, or a test without sockets, carries
//! out faithfully.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::canned::CannedAnswer;

/// One HTTP request as WeChat sees it.
#[derive(Clone)]
pub struct Request {
    /// The method in capitals.
    pub method: String,
    /// The path, still percent-encoded; doubled slashes count as one.
    pub path: String,
    /// The query's pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The `Content-Length` header; `None` for a chunked body. WeChat answers a POST without it with HTTP
    /// 412.
    pub content_length: Option<u64>,
    /// The whole body.
    pub body: Vec<u8>,
    /// Where the request came from; the message of error 40164 names it.
    pub source_ip: IpAddr,
}

impl Request {
    /// Returns the first value of the query parameter `name`; an empty one counts as missing.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Returns the value of `name` in the query, or in a form or JSON body.
    pub(super) fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.param(name) {
            return Some(value.into());
        }
        let value = match serde_json::from_slice::<Map<String, Value>>(&self.body) {
            Ok(object) => object.get(name)?.as_str()?.to_owned(),
            Err(_) => {
                let form =
                    Url::parse(&format!("http://form/?{}", std::str::from_utf8(&self.body).ok()?)).ok()?;
                form.query_pairs().find(|(key, _)| key == name)?.1.into_owned()
            }
        };
        Some(value).filter(|value| !value.is_empty()).map(Cow::Owned)
    }

    /// Whether its path fits `pattern`.
    pub(super) fn is_at(&self, pattern: &str) -> bool {
        Self::path_fits(&self.plain_path(), pattern)
    }

    /// Whether a path is `pattern`, or begins with what precedes the trailing `*` of `pattern`.
    pub(super) fn path_fits(path: &str, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == pattern,
        }
    }

    /// Returns the path without doubled slashes.
    pub(super) fn plain_path(&self) -> Cow<'_, str> {
        Self::plain(&self.path)
    }

    /// Returns a path without doubled slashes.
    pub(super) fn plain(path: &str) -> Cow<'_, str> {
        if path.contains("//") {
            let parts = path.split('/').filter(|part| !part.is_empty());
            parts.fold(String::new(), |path, part| path + "/" + part).into()
        } else {
            path.into()
        }
    }
}

/// Prints neither query nor body: both carry AppSecrets and tokens.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What WeChat does about a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaction {
    /// How long until `wire` happens. The request takes effect on arrival.
    pub delay: Duration,
    /// What the client sees.
    pub wire: Wire,
}

/// What the client sees of WeChat's reaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// A whole answer.
    Answer(Answer),
    /// Half of an answer, then the end of the connection. Sends the head with its true `Content-Length` and
    /// the first `sent` bytes of the body.
    HalfAnswer {
        /// The complete answer.
        answer: Answer,
        /// How much of its body is sent.
        sent: usize,
    },
    /// An answer that was set for the path.
    Canned(Arc<CannedAnswer>),
    /// No answer, ever; the connection stays open.
    Hang,
    /// The connection is reset after the request was read.
    Reset,
    /// The connection is refused before a byte of the request was sent. The HTTP server, whose listener also
    /// carries the control API, resets instead.
    Refuse,
}

/// An HTTP answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, in order. Framing headers are absent, unless a fault sets false ones.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the first header of that name, ignoring case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Prints no body: it may contain a token.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("body_bytes", &self.body.len()).finish()
    }
}
