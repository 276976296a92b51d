//! Socket wrapper below hyper with time limits and error responses of its own.
//!
//! hyper waits forever for a client that does not read its answer, which may be megabytes. Here a client has
//! a time limit, which grows with what it reads.
//!
//! hyper has one limit for a request head, which starts at the end of the last answer. A kept connection
//! could then be idle for no longer than a head may take, and hyper closes it without a word to the client.
//! Here an idle connection and a head that has begun have separate limits. When either expires, bytes that
//! have already arrived are read first, so that a request that reached us before our FIN is answered.
//!
//! A head that is too long or is not HTTP never becomes a request: hyper refuses it by itself, with an empty
//! body. All errors of this API are problems that say what is wrong, so such an answer is replaced on its way
//! out. It cannot be confused with ours: no handler answers with an error and an empty body. WeChat may, so on a
//! connection whose calls are passed on hyper's own refusals stay as they are.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::{Connection, PendingIo};
use super::problem::ApiProblem;

/// Time limit for a request's head, from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a client has to read an answer that does not fit into the socket's buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For each of this many bytes that the client reads it has one second more.
const BYTES_PER_SECOND: u64 = 64 * 1024;

/// Up to this size the parts of a write are copied together: that costs less than a vectored write.
const COALESCE_LIMIT: usize = 2048;

/// Bytes to read at a time; hyper asks for 8 KiB and more.
const READ_SIZE: usize = 4096;

/// A connection as hyper sees it.
pub(super) struct TimedIo<S> {
    io: TokioIo<S>,
    limit: Limit,
    /// Whether bytes have arrived that were not read, even if the runtime has not been notified of them yet.
    has_unread: fn(&S) -> bool,
    /// Expires when the client has had its time to read; `None` while nothing waits to be sent.
    write_timeout: Option<Pin<Box<Sleep>>>,
    /// The answer that replaces hyper's refusal, and how many bytes of it have been sent.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimedIo<S> {
    /// Wraps `stream`. `idle` is how long the connection may be without a request.
    pub(super) fn new(
        stream: S,
        has_unread: fn(&S) -> bool,
        connection: Arc<Connection>,
        idle: Duration,
    ) -> Self {
        let limit = Limit::new(connection, idle);
        Self { io: TokioIo::new(stream), limit, has_unread, write_timeout: None, refusal: None }
    }

    /// Shuts down our side, so that the client knows at once, and returns the stream. A client that sent an
    /// incomplete head first gets an answer that says why.
    pub(super) async fn close(mut self) -> S {
        if self.limit.is_head_late {
            self.refusal = Some((response("the head of the request did not arrive within 10 s"), 0));
            // Fails if the client is gone.
            let _ = poll_fn(|cx| self.write_refusal(cx, &[])).await;
        }
        // A repeated shutdown changes nothing if hyper has done it already.
        let _ = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
        self.io.into_inner()
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<S>> {
        Pin::new(&mut self.get_mut().io)
    }

    /// The result of a write, or an error when the client's time to read is over.
    fn enforce_timeout(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.limit.connection.set_pending_io(if write.is_pending() {
            PendingIo::Write
        } else {
            PendingIo::None
        });
        match (write, &mut self.write_timeout) {
            (Poll::Ready(Ok(bytes)), Some(write_timeout)) => {
                let more = Duration::from_secs(1).mul_f64(bytes as f64 / BYTES_PER_SECOND as f64);
                let deadline = write_timeout.deadline() + more;
                write_timeout.as_mut().reset(deadline);
                Poll::Ready(Ok(bytes))
            }
            (Poll::Pending, write_timeout) => {
                let write_timeout = write_timeout.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
                ready!(write_timeout.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (write, _) => write,
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.enforce_timeout(cx, write)
    }

    fn is_hyper_error(&self, response: &[u8]) -> bool {
        is_hyper_error(response) && !self.limit.connection.has_passed_on()
    }

    /// Writes our refusal instead of `theirs`, which counts as written once ours has been.
    fn write_refusal(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
        let (ours, mut sent) = self.refusal.take().unwrap_or_else(|| (refusal(theirs), 0));
        while sent < ours.len() {
            match self.write(cx, &ours[sent..]) {
                Poll::Ready(Ok(more @ 1..)) => sent += more,
                Poll::Pending => {
                    self.refusal = Some((ours, sent));
                    return Poll::Pending;
                }
                ended => return ended,
            }
        }
        Poll::Ready(Ok(theirs.len()))
    }
}

/// Copies `parts` into `whole` and returns their length; `None` if they do not fit.
fn coalesce(parts: &[IoSlice<'_>], whole: &mut [u8; COALESCE_LIMIT]) -> Option<usize> {
    let mut rest = &mut whole[..];
    for part in parts {
        let (place, rest_of_space) = rest.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        rest = rest_of_space;
    }
    Some(COALESCE_LIMIT - rest.len())
}

/// Whether hyper itself made this answer: an error with an empty body.
fn is_hyper_error(response: &[u8]) -> bool {
    response.starts_with(b"HTTP/1.1 4")
        && response.ends_with(b"\r\n\r\n")
        && response.windows(21).any(|part| part == b"\r\ncontent-length: 0\r\n")
}

fn refusal(theirs: &[u8]) -> Vec<u8> {
    let detail = if theirs.starts_with(b"HTTP/1.1 400") {
        "this is no HTTP/1.1 request"
    } else {
        "the head of the request is too long: it may have 32768 bytes and 100 headers"
    };
    response(detail)
}

/// A complete 400 response.
fn response(detail: &'static str) -> Vec<u8> {
    let body = ApiProblem::bad_request(detail).body();
    let mut response = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for TimedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        let max = buf.remaining().min(READ_SIZE);
        let mut read = ReadBuf::uninit(&mut space[..max]);
        if let Poll::Ready(done) = Pin::new(&mut this.io).poll_read(cx, read.unfilled()) {
            this.limit.connection.set_pending_io(PendingIo::None);
            this.limit.note_read(read.filled());
            buf.put_slice(read.filled());
            return Poll::Ready(done);
        }
        this.limit.connection.set_pending_io(PendingIo::Read);
        let is_head = ready!(this.limit.poll_expired(cx));
        if (this.has_unread)(this.io.inner()) {
            // The runtime is about to be notified of these bytes, and then wakes this task.
            return Poll::Pending;
        }
        if !is_head {
            // Shut down right after checking for unread bytes: any that arrive in between are lost. All
            // answers have been written, or hyper would not read on. hyper takes this for the end of the
            // client's side.
            let _ = Pin::new(&mut this.io).poll_shutdown(cx)?;
            return Poll::Ready(Ok(()));
        }
        this.limit.is_head_late = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Time limit for what the client has to send next.
struct Limit {
    connection: Arc<Connection>,
    idle: Duration,
    /// Requests that had been received when this wait began.
    requests: u32,
    /// Whether a head has begun to arrive since then.
    has_begun: bool,
    /// Whether `deadline` has been set for this wait.
    is_set: bool,
    deadline: Instant,
    /// Expires at the end of the wait or before it, and is then set again. Most waits are short, and
    /// resetting a timer for each would cost more.
    timer: Option<Pin<Box<Sleep>>>,
    is_head_late: bool,
}

impl Limit {
    fn new(connection: Arc<Connection>, idle: Duration) -> Self {
        Self {
            connection,
            idle,
            requests: 0,
            has_begun: false,
            is_set: false,
            deadline: Instant::now(),
            timer: None,
            is_head_late: false,
        }
    }

    /// Starts a new wait after each request.
    fn check_for_new_request(&mut self) {
        let requests = self.connection.requests();
        if self.requests != requests {
            (self.requests, self.has_begun, self.is_set) = (requests, false, false);
        }
    }

    /// Takes note of bytes that were read. They begin a head, unless they belong to a body or are only empty
    /// lines.
    fn note_read(&mut self, bytes: &[u8]) {
        self.check_for_new_request();
        if !self.has_begun
            && !self.connection.is_answering()
            && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
        {
            (self.has_begun, self.is_set) = (true, false);
        }
    }

    /// Call this when there is nothing to read. Ready when the limit is over or others need the connection;
    /// `true` if the client is to be sent an error because the rest of its head is late.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.connection.is_evicted() {
            return Poll::Ready(false);
        }
        if self.connection.is_answering() {
            return Poll::Pending;
        }
        self.check_for_new_request();
        if self.connection.should_close() && !self.has_begun {
            return Poll::Ready(false);
        }
        if !std::mem::replace(&mut self.is_set, true) {
            let within = if self.has_begun { HEAD_TIMEOUT } else { self.idle };
            self.deadline = Instant::now() + within;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
        if timer.deadline() > self.deadline {
            timer.as_mut().reset(self.deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= self.deadline {
                return Poll::Ready(self.has_begun);
            }
            timer.as_mut().reset(self.deadline);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for TimedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_hyper_error(buf) { self.write_refusal(cx, buf) } else { self.write(cx, buf) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut together = [0; COALESCE_LIMIT];
        match bufs {
            [only] if self.is_hyper_error(only) => self.write_refusal(cx, only),
            [_, _, ..] if let Some(length) = coalesce(bufs, &mut together) => {
                self.write(cx, &together[..length])
            }
            _ => {
                let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
                self.enforce_timeout(cx, write)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Called when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_timeout = None;
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::advance;

    use super::*;

    fn io<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> TimedIo<S> {
        TimedIo::new(stream, |_| false, Arc::default(), Duration::from_secs(80))
    }

    #[test]
    fn parts_are_put_together_in_order_where_they_fit() {
        let mut whole = [0; COALESCE_LIMIT];
        let parts = [&b"head"[..], b"", b"body"].map(IoSlice::new);
        assert_eq!(coalesce(&parts, &mut whole), Some(8));
        assert_eq!(&whole[..8], b"headbody");
        let (max, more) = (vec![7; COALESCE_LIMIT - 4], vec![7; COALESCE_LIMIT - 3]);
        assert_eq!(coalesce(&[parts[0], IoSlice::new(&max)], &mut whole), Some(COALESCE_LIMIT));
        assert_eq!(coalesce(&[parts[0], IoSlice::new(&more)], &mut whole), None);
    }

    #[tokio::test]
    async fn an_answer_that_is_put_together_goes_on_where_the_socket_was_full() {
        let (ours, mut theirs) = tokio::io::duplex(5);
        let mut io = io(ours);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut taken = [0; 5];
        let parts = [&b"abc"[..], b"defgh"].map(IoSlice::new);
        assert!(matches!(Pin::new(&mut io).poll_write_vectored(cx, &parts), Poll::Ready(Ok(5))));
        let parts = [&b"f"[..], b"gh"].map(IoSlice::new);
        assert!(Pin::new(&mut io).poll_write_vectored(cx, &parts).is_pending());
        assert!(io.write_timeout.is_some(), "its time runs");
        theirs.read_exact(&mut taken).await.unwrap();
        assert_eq!(&taken, b"abcde");
        assert!(matches!(Pin::new(&mut io).poll_write_vectored(cx, &parts), Poll::Ready(Ok(3))));
        theirs.read_exact(&mut taken[..3]).await.unwrap();
        assert_eq!(&taken[..3], b"fgh");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_30_s_and_one_more_for_each_64_kib_that_it_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut io = io(stream);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(io.enforce_timeout(cx, Poll::Pending).is_pending());
        assert!(io.enforce_timeout(cx, Poll::Ready(Ok(640 * 1024))).is_ready());
        advance(Duration::from_secs(39)).await;
        assert!(io.enforce_timeout(cx, Poll::Pending).is_pending());
        advance(Duration::from_secs(2)).await;
        let Poll::Ready(Err(write_timeout)) = io.enforce_timeout(cx, Poll::Pending) else {
            panic!("it had its time")
        };
        assert_eq!(write_timeout.kind(), io::ErrorKind::TimedOut);
        assert!(Pin::new(&mut io).poll_flush(cx).is_ready());
        assert!(io.enforce_timeout(cx, Poll::Pending).is_pending(), "the next answer has a time of its own");
    }
}
