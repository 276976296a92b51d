//! Handling of request bodies that an answer leaves unread.
//!
//! hyper closes a connection after an answer whose request has not been read to its end, and discards a
//! request that has already arrived after it. So the rest of a body is read first if it is short and arrives
//! soon. Otherwise the answer says `Connection: close`.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::MAX_BODY;

/// Time limit for the rest of the body. The answer waits for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A request body that is returned when its reader drops it before its end.
pub(super) struct BodyLease {
    /// `None` once it was read to its end.
    body: Option<Incoming>,
    /// Where to return the body; receives `None` if the body has failed.
    back: Option<oneshot::Sender<Option<Incoming>>>,
}

/// Receives the body of a request if it was not read to its end.
pub(super) struct UnreadBody {
    body: oneshot::Receiver<Option<Incoming>>,
    /// Whether the request has an `Expect` header: the client may wait for the answer before it sends the
    /// body.
    is_expected: bool,
}

/// Lends out the body of `request`, and returns the receiver of what is left of it; `None` if there is no
/// body.
pub(super) fn lend(request: Request<Incoming>) -> (Request<BodyLease>, Option<UnreadBody>) {
    if request.body().is_end_stream() {
        return (request.map(|body| BodyLease { body: Some(body), back: None }), None);
    }
    let (back, body) = oneshot::channel();
    let is_expected = expects(request.headers());
    (
        request.map(|body| BodyLease { body: Some(body), back: Some(back) }),
        Some(UnreadBody { body, is_expected }),
    )
}

fn expects(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

impl UnreadBody {
    /// Reads the rest of the body. Returns whether the next request can be read after it.
    pub(super) async fn drain(mut self) -> bool {
        use oneshot::error::TryRecvError::{Closed, Empty};
        match self.body.try_recv() {
            // It was read to its end.
            Err(Closed) => true,
            // A handler still holds it.
            Err(Empty) => false,
            Ok(None) => false,
            Ok(_) if self.is_expected => false,
            Ok(Some(body)) if body.size_hint().lower() > MAX_BODY as u64 => false,
            Ok(Some(body)) => timeout(TIMEOUT, read_to_end(body)).await.unwrap_or(false),
        }
    }
}

/// Whether `body` ends within the size limit.
async fn read_to_end(mut body: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MAX_BODY {
            return false;
        }
    }
    true
}

impl Body for BodyLease {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.body = None,
            Poll::Ready(Some(Err(_))) => {
                self.body = None;
                // Fails when the connection has ended.
                let _ = self.back.take().map(|back| back.send(None));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (body, self.back.take()) {
            // Fails when the connection has ended.
            let _ = back.send(Some(body));
        }
    }
}
