//! What an answer leaves unread of its request's body.
//!
//! hyper ends a connection behind an answer whose request has not been read to its end, and throws away the request that
//! is already behind it. So what is left is read first where it is short and comes soon; where it is not, the answer says
//! that it is the last one.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::LARGEST_BODY;

/// What is left must come within this, for which the answer waits.
const WITHIN: Duration = Duration::from_secs(1);

/// The body of a request, which comes back when whoever was to read it lets it go before its end.
pub(super) struct BodyLease {
    /// None once it was read to its end.
    body: Option<Incoming>,
    /// To which nothing is given where the body has failed.
    back: Option<oneshot::Sender<Option<Incoming>>>,
}

/// Where the body of a request comes back to.
pub(super) struct UnreadBody {
    body: oneshot::Receiver<Option<Incoming>>,
    /// The client may wait for the answer before it sends anything.
    is_expected: bool,
}

/// The request with its body lent out, and where that comes back to; nothing does where there is no body.
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
    /// Reads what is left. Whether the next request can be read behind it.
    pub(super) async fn drain(mut self) -> bool {
        use oneshot::error::TryRecvError::{Closed, Empty};
        match self.body.try_recv() {
            // It was read to its end.
            Err(Closed) => true,
            // Somebody still has it.
            Err(Empty) => false,
            Ok(None) => false,
            Ok(_) if self.is_expected => false,
            Ok(Some(body)) if body.size_hint().lower() > LARGEST_BODY as u64 => false,
            Ok(Some(body)) => timeout(WITHIN, to_the_end(body)).await.unwrap_or(false),
        }
    }
}

/// Whether `body` ends, and within what a body may have.
async fn to_the_end(mut body: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > LARGEST_BODY {
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
