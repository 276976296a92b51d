//! One connection, as its socket, its requests and the listener tell each other of it.
//!
//! The socket sees bytes and no requests, the service sees requests and no bytes. What either may wait for, and for
//! how long, follows from both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Version, header};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// The state of a connection that all who serve it share.
#[derive(Default)]
pub(super) struct Connection {
    requests: AtomicU32,
    is_answering: AtomicBool,
    is_to_end: AtomicBool,
    waits: AtomicU8,
    is_proven: AtomicBool,
    /// Whether `evicted` is cancelled: asked at every read, and a token takes a lock for it.
    is_evicted: AtomicBool,
    evicted: CancellationToken,
}

/// What a connection waits for its client to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The turn is ours.
    No,
    /// To send something.
    ToRead,
    /// To take something in.
    ToWrite,
}

impl Connection {
    pub(super) fn wait(&self, waits: WaitsFor) {
        self.waits.store(waits as u8, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) -> WaitsFor {
        let waits = self.waits.load(Ordering::Relaxed);
        [WaitsFor::No, WaitsFor::ToRead, WaitsFor::ToWrite]
            .into_iter()
            .find(|one| *one as u8 == waits)
            .unwrap_or(WaitsFor::No)
    }

    /// Has it end now: others need the room.
    pub(super) fn evict(&self) {
        self.end();
        self.is_evicted.store(true, Ordering::Release);
        self.evicted.cancel();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Acquire)
    }

    pub(super) async fn until_evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// From now on it is not ended for others.
    pub(super) fn set_proven(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// A request has come: until what is returned is dropped, it is being answered.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.is_answering.load(Ordering::Relaxed)
    }

    /// Has it end as soon as no request is under way; takes effect when the connection is polled next.
    pub(super) fn end(&self) {
        self.is_to_end.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_to_end(&self) -> bool {
        self.is_to_end.load(Ordering::Relaxed)
    }
}

/// A request that is being answered.
pub(super) struct ActiveRequest(Arc<Connection>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.is_answering.store(false, Ordering::Relaxed);
    }
}

/// The body of an answer. The request is under way until hyper has taken all of it, or given it up.
pub(super) struct TrackedBody {
    pub(super) body: Body,
    pub(super) _under_way: ActiveRequest,
}

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether the client wants the connection kept behind the answer to such a request.
pub(super) fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &str| {
        let lists = headers.get_all(header::CONNECTION).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|said| said.trim().eq_ignore_ascii_case(option))
    };
    if version < Version::HTTP_11 { says("keep-alive") } else { !says("close") }
}

/// `Connection: close`, for the last answer.
pub(super) fn say_last(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_as_its_client_asks() {
        for (version, said, kept) in [
            (Version::HTTP_11, &[][..], true),
            (Version::HTTP_11, &["close"], false),
            (Version::HTTP_11, &["TE, Close"], false),
            (Version::HTTP_11, &["te", "close"], false),
            (Version::HTTP_11, &["Upgrade"], true),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_10, &["Keep-Alive"], true),
            (Version::HTTP_10, &["close"], false),
        ] {
            let mut headers = HeaderMap::new();
            for option in said {
                headers.append(header::CONNECTION, HeaderValue::from_static(option));
            }
            assert_eq!(is_kept(version, &headers), kept, "{version:?} {headers:?}");
        }
    }
}
