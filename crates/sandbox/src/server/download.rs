//! Canned answers on their way: of any length, at any pace, whole or cut.

use std::fmt;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

use crate::canned::{CannedAnswer, CannedBody, Gzip};

/// How much is sent at once.
const CHUNK: u64 = 64 * 1024;

/// The period of the bytes of a [`CannedBody::Size`]. As a prime it is none of the usual sizes of blocks.
const PERIOD: u64 = 251;

static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..CHUNK + PERIOD).map(|at| u8::try_from(at % PERIOD).unwrap_or_default()).collect());

/// Builds the answer. `echo` is the description of the request, if the answer is one.
pub(super) async fn response(canned: &CannedAnswer, echo: Option<Value>, date: &str) -> Response {
    let json = "application/json; encoding=utf-8";
    let (content, content_type) = match &canned.body {
        CannedBody::Json(value) => (Content::from(value.to_string()), json),
        CannedBody::Text(text) => (Content::from(text.clone()), "text/plain"),
        CannedBody::Base64(bytes) => (Content::Memory(bytes.clone().into()), "application/octet-stream"),
        CannedBody::Size(length) => (Content::Pattern { at: 0, left: *length }, "application/octet-stream"),
        CannedBody::Echo => (Content::from(echo.unwrap_or_default().to_string()), json),
    };
    let content = match canned.gzip {
        Some(gzip) => gzipped(content, gzip).await,
        None => content,
    };
    let mut response = Response::new(Body::new(Download::new(content, canned)));
    *response.status_mut() = StatusCode::from_u16(canned.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let encoding = canned.gzip.map(|_| ("content-encoding", "gzip"));
    let usual = [Some(("date", date)), Some(("content-type", content_type)), encoding];
    let given = canned.headers.iter().map(|(name, value)| (&**name, &**value));
    for (name, value) in usual.into_iter().flatten().chain(given) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            response.headers_mut().insert(name, value);
        }
    }
    // No body, no type.
    if canned.status == 204 || canned.status == 304 {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

/// Compresses in a thread of its own: a gigabyte takes a while, and shrinks to a megabyte.
async fn gzipped(mut content: Content, gzip: Gzip) -> Content {
    let pack = move || {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        while let Some(bytes) = content.next(CHUNK) {
            packed.write_all(&bytes)?;
        }
        packed.finish()
    };
    // Writing to memory cannot fail.
    let mut packed = tokio::task::spawn_blocking(pack).await.ok().and_then(Result::ok).unwrap_or_default();
    if gzip == Gzip::Half {
        packed.truncate(packed.len() / 2);
    }
    Content::Memory(packed.into())
}

enum Content {
    Memory(Bytes),
    Pattern { at: u64, left: u64 },
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Memory(text.into())
    }
}

impl Content {
    fn left(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Pattern { left, .. } => *left,
        }
    }

    /// Takes at most `limit` bytes off its front; `None` at its end.
    fn next(&mut self, limit: u64) -> Option<Bytes> {
        let length = self.left().min(limit).min(CHUNK);
        let count = usize::try_from(length).ok().filter(|count| *count > 0)?;
        Some(match self {
            Self::Memory(bytes) => bytes.split_to(count),
            Self::Pattern { at, left } => {
                let begin = usize::try_from(*at % PERIOD).ok()?;
                *at += length;
                *left -= length;
                PATTERN.slice(begin..begin + count)
            }
        })
    }
}

/// A body that is made while it is sent.
struct Download {
    content: Content,
    /// The length that the head states.
    stated: Option<u64>,
    /// How much is sent before the body ends, or is cut.
    left: u64,
    is_cut: bool,
    /// hyper has had its turn to send what came before the cut.
    is_flushed: bool,
    chunk: u64,
    pause: Duration,
    pausing: Option<Pin<Box<Sleep>>>,
}

impl Download {
    fn new(content: Content, canned: &CannedAnswer) -> Self {
        let length = content.left();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length, to the byte only where lengths are small"
        )]
        let until_cut = |share: f64| (length as f64 * share) as u64;
        Self {
            stated: (!canned.chunked).then_some(length),
            left: canned.cut.map_or(length, until_cut),
            is_cut: canned.cut.is_some(),
            is_flushed: false,
            chunk: canned.chunk_bytes.map_or(CHUNK, |bytes| u64::from(bytes.get())),
            pause: Duration::from_millis(canned.chunk_delay_ms),
            pausing: None,
            content,
        }
    }
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(pausing) = &mut self.pausing {
            ready!(pausing.as_mut().poll(cx));
            self.pausing = None;
        }
        let limit = self.chunk.min(self.left);
        if let Some(bytes) = self.content.next(limit) {
            self.left -= bytes.len() as u64;
            if !self.pause.is_zero() {
                self.pausing = Some(Box::pin(sleep(self.pause)));
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.is_cut {
            return Poll::Ready(None);
        }
        if !self.is_flushed {
            self.is_flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Cut)))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_cut && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        self.stated.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Tells hyper to end the connection in the middle of an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is cut as it was told to be")
    }
}

impl std::error::Error for Cut {}
