//! The edge of the process towards WeChat: sends one request, returns one answer or why there is none.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reqwest::Url;

/// A boxed future, because transports are chosen at run time.
pub type ResponseFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Sends a request to a host of WeChat's.
pub trait Transport: Send + Sync + 'static {
    /// Makes one attempt: no redirects, no retries. Gives up after the configured timeout.
    fn send(&self, base: &Url, request: Request) -> ResponseFuture<Result<Response, Lost>>;
}

/// GET or POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Without a body.
    Get,
    /// With a body and its Content-Length.
    Post,
}

/// A request to WeChat. Its query and body carry secrets.
#[derive(Clone)]
pub struct Request {
    /// GET or POST.
    pub method: Method,
    /// Relative to the base URL, with a leading slash.
    pub path: &'static str,
    /// Not yet URL-encoded.
    pub query: Vec<(&'static str, String)>,
    /// JSON, for POST.
    pub body: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A complete answer. Its body may carry a token.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// At most 64 KiB.
    pub body: Vec<u8>,
    /// The `Date` header.
    pub date: Option<String>,
    /// How long the `Retry-After` header asks us to wait.
    pub retry_after: Option<Duration>,
}

impl Response {
    /// How long it asks us to wait before the next call. Only with 429 and 503, where `Retry-After` means
    /// that.
    #[must_use]
    pub fn asked_pause(&self) -> Option<Duration> {
        self.retry_after.filter(|_| matches!(self.status, 429 | 503))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer. The messages contain no URL, since the classic endpoint's has the AppSecret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No byte of the request was sent, since no connection was established.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The request was sent, and no complete answer came in time.
    #[error("no answer within the timeout")]
    TimedOut,
    /// The request was sent, and the answer was cut off or was not HTTP.
    #[error("the answer was cut off: {0}")]
    Cut(String),
}
