//! State of one connection, shared by its socket, its service and the listener.
//!
//! The socket sees bytes but no requests, and the service sees requests but no bytes. What a connection may
//! wait for, and for how long, depends on both.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Version, header};
use hyper::body::{Frame, SizeHint};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The state of a connection, shared by everything that serves it.
#[derive(Default)]
pub(super) struct Connection {
    requests: AtomicU32,
    is_answering: AtomicBool,
    should_close: AtomicBool,
    pending_io: AtomicU8,
    is_proven: AtomicBool,
    /// Mirrors `evicted`: this is checked at every read, and a `CancellationToken` takes a lock for it.
    is_evicted: AtomicBool,
    evicted: CancellationToken,
    passes_on: AtomicBool,
    /// Its socket, if it has one, which is open for as long as the connection is served.
    socket: OnceLock<Weak<Mutex<TcpStream>>>,
}

/// What a connection waits for its client to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingIo {
    /// Nothing: the server has to act next.
    None,
    /// To send something.
    Read,
    /// To receive something.
    Write,
}

impl Connection {
    pub(super) fn set_pending_io(&self, pending_io: PendingIo) {
        self.pending_io.store(pending_io as u8, Ordering::Relaxed);
    }

    pub(super) fn pending_io(&self) -> PendingIo {
        let pending_io = self.pending_io.load(Ordering::Relaxed);
        [PendingIo::None, PendingIo::Read, PendingIo::Write]
            .into_iter()
            .find(|one| *one as u8 == pending_io)
            .unwrap_or(PendingIo::None)
    }

    /// Ends the connection now, to make room for others.
    pub(super) fn evict(&self) {
        self.close();
        self.is_evicted.store(true, Ordering::Release);
        self.evicted.cancel();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Acquire)
    }

    pub(super) async fn until_evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Notes that answers of WeChat's go out on the connection.
    pub(super) fn note_passed_on(&self) {
        self.passes_on.store(true, Ordering::Relaxed);
    }

    /// Whether answers may be of any form, since they are WeChat's.
    pub(super) fn has_passed_on(&self) -> bool {
        self.passes_on.load(Ordering::Relaxed)
    }

    pub(super) fn set_socket(&self, socket: &Arc<Mutex<TcpStream>>) {
        // Each connection has one, set once.
        let _ = self.socket.set(Arc::downgrade(socket));
    }

    /// Ready when the client has closed its side of the connection. hyper does not look while a request is being
    /// answered. For the connection's own task.
    pub(super) fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = self.socket.get().and_then(Weak::upgrade) else { return Poll::Pending };
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut byte = [0];
        match socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            // The next request has arrived already.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Protects the connection from eviction from now on.
    pub(super) fn set_proven(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Marks the start of a request, which counts as being answered until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// How many requests have been received.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.is_answering.load(Ordering::Relaxed)
    }

    /// Ends the connection as soon as no request is in progress. Takes effect when the connection is polled
    /// next.
    pub(super) fn close(&self) {
        self.should_close.store(true, Ordering::Relaxed);
    }

    pub(super) fn should_close(&self) -> bool {
        self.should_close.load(Ordering::Relaxed)
    }
}

/// Guard of a request that is being answered.
pub(super) struct ActiveRequest(Arc<Connection>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.is_answering.store(false, Ordering::Relaxed);
    }
}

/// A response body. The request counts as in progress until hyper has taken the whole body or dropped it.
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

/// Whether the client wants the connection kept open after the answer to a request with these headers.
pub(super) fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let has_option = |option: &str| {
        let lists = headers.get_all(header::CONNECTION).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|value| value.trim().eq_ignore_ascii_case(option))
    };
    if version < Version::HTTP_11 { has_option("keep-alive") } else { !has_option("close") }
}

/// Sets `Connection: close`, for the last answer on a connection.
pub(super) fn set_close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_as_its_client_asks() {
        for (version, options, kept) in [
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
            for option in options {
                headers.append(header::CONNECTION, HeaderValue::from_static(option));
            }
            assert_eq!(is_kept(version, &headers), kept, "{version:?} {headers:?}");
        }
    }
}
