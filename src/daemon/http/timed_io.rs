//! The socket under hyper, which speaks for hyper where that has no words of its own, and keeps its time limits.
//!
//! hyper waits forever for a client that takes in nothing of its answer, which may be megabytes. Here it has a time
//! for that, which grows with what it takes.
//!
//! hyper has one limit for a head, which begins with the end of the last answer: a kept connection would be idle for
//! no longer than a head may take, and when that is over hyper gives up without a word to the client. Here an idle
//! connection and a head that has begun have limits of their own. Whichever is over, what has arrived is read first,
//! so that a request is answered if it reached us before our FIN.
//!
//! A head that is too long or is no HTTP never becomes a request: hyper refuses it by itself, with an empty body.
//! Every refusal of ours is a problem that says what is wrong, so such an answer is exchanged on its way out.
//! It cannot be mistaken: no handler answers with an error and an empty body.

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

use super::connection::{Connection, WaitsFor};
use super::problem::ApiProblem;

/// A request's head must have come within this from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// An answer that does not fit into the socket must be taken in within this.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// For each of so many bytes that are taken there is a second more.
const A_SECOND_FOR: u64 = 64 * 1024;

/// What comes to no more than this is sent as one piece: to copy it costs less than to hand its parts to the kernel.
const TOGETHER: usize = 2048;

/// So many bytes are read at a time; hyper asks for 8 KiB and more.
const READ_AT_ONCE: usize = 4096;

/// A connection as hyper sees it.
pub(super) struct TimedIo<S> {
    io: TokioIo<S>,
    limit: Limit,
    /// Whether bytes have arrived that were not read, though the runtime does not know of them yet.
    has_unread: fn(&S) -> bool,
    /// Rings when the client has had its time; there is none while nothing waits to be taken in.
    late: Option<Pin<Box<Sleep>>>,
    /// What is sent in place of hyper's refusal, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimedIo<S> {
    /// `idle`: how long it may be without a request.
    pub(super) fn new(
        stream: S,
        has_unread: fn(&S) -> bool,
        connection: Arc<Connection>,
        idle: Duration,
    ) -> Self {
        let limit = Limit::new(connection, idle);
        Self { io: TokioIo::new(stream), limit, has_unread, late: None, refusal: None }
    }

    /// Ends our side, so that the client knows at once, and gives back the stream. Who sent half a head is told why.
    pub(super) async fn end(mut self) -> S {
        if self.limit.is_head_missed {
            self.refusal = Some((answer("the head of the request did not arrive within 10 s"), 0));
            // Fails when the client is gone.
            let _ = poll_fn(|cx| self.refuse(cx, &[])).await;
        }
        // Once more where hyper did so: that changes nothing.
        let _ = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
        self.io.into_inner()
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<S>> {
        Pin::new(&mut self.get_mut().io)
    }

    /// What came of a write, unless the client has had its time.
    fn in_time(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.limit.connection.wait(if write.is_pending() { WaitsFor::ToWrite } else { WaitsFor::No });
        match (write, &mut self.late) {
            (Poll::Ready(Ok(bytes)), Some(late)) => {
                let more = Duration::from_secs(1).mul_f64(bytes as f64 / A_SECOND_FOR as f64);
                let end = late.deadline() + more;
                late.as_mut().reset(end);
                Poll::Ready(Ok(bytes))
            }
            (Poll::Pending, late) => {
                let late = late.get_or_insert_with(|| Box::pin(sleep(TAKEN_WITHIN)));
                ready!(late.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (write, _) => write,
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.in_time(cx, write)
    }

    /// Writes the refusal instead of `theirs`, which counts as written when the refusal is.
    fn refuse(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
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

/// The length of what `parts` come to, put into `whole`; none where they do not fit.
fn coalesce(parts: &[IoSlice<'_>], whole: &mut [u8; TOGETHER]) -> Option<usize> {
    let mut rest = &mut whole[..];
    for part in parts {
        let (place, behind) = rest.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        rest = behind;
    }
    Some(TOGETHER - rest.len())
}

/// Whether hyper itself answers: an error, and nothing behind its head.
fn is_hypers_own(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 4")
        && answer.ends_with(b"\r\n\r\n")
        && answer.windows(21).any(|part| part == b"\r\ncontent-length: 0\r\n")
}

fn refusal(theirs: &[u8]) -> Vec<u8> {
    let detail = if theirs.starts_with(b"HTTP/1.1 400") {
        "this is no HTTP/1.1 request"
    } else {
        "the head of the request is too long: it may have 32768 bytes and 100 headers"
    };
    answer(detail)
}

/// A refusal as it is sent.
fn answer(detail: &'static str) -> Vec<u8> {
    let body = ApiProblem::bad_request(detail).body();
    let mut answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for TimedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
        let most = buf.remaining().min(READ_AT_ONCE);
        let mut read = ReadBuf::uninit(&mut space[..most]);
        if let Poll::Ready(done) = Pin::new(&mut this.io).poll_read(cx, read.unfilled()) {
            this.limit.connection.wait(WaitsFor::No);
            this.limit.note(read.filled());
            buf.put_slice(read.filled());
            return Poll::Ready(done);
        }
        this.limit.connection.wait(WaitsFor::ToRead);
        let is_head = ready!(this.limit.poll_over(cx));
        if (this.has_unread)(this.io.inner()) {
            // The runtime is about to hear of it, and then wakes us.
            return Poll::Pending;
        }
        if !is_head {
            // Our end goes out right behind the look at what has arrived: what came in between would be lost. All
            // answers are written, else hyper would not read on; it takes this for the client's end.
            let _ = Pin::new(&mut this.io).poll_shutdown(cx)?;
            return Poll::Ready(Ok(()));
        }
        this.limit.is_head_missed = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// How long the client may take with what it has to send next.
struct Limit {
    connection: Arc<Connection>,
    idle: Duration,
    /// How many requests had come when this wait began.
    requests: u32,
    /// Whether a head has begun to come since.
    has_begun: bool,
    /// Whether `end` is the end of this wait.
    is_set: bool,
    end: Instant,
    /// Ends with the wait or before it, and then goes on: most waits are over soon, and a timer costs more to set than this.
    timer: Option<Pin<Box<Sleep>>>,
    is_head_missed: bool,
}

impl Limit {
    fn new(connection: Arc<Connection>, idle: Duration) -> Self {
        Self {
            connection,
            idle,
            requests: 0,
            has_begun: false,
            is_set: false,
            end: Instant::now(),
            timer: None,
            is_head_missed: false,
        }
    }

    /// Begins anew behind each request.
    fn look(&mut self) {
        let requests = self.connection.requests();
        if self.requests != requests {
            (self.requests, self.has_begun, self.is_set) = (requests, false, false);
        }
    }

    /// Notes what was read: a head, unless it is a body's or no more than empty lines.
    fn note(&mut self, bytes: &[u8]) {
        self.look();
        if !self.has_begun
            && !self.connection.is_answering()
            && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
        {
            (self.has_begun, self.is_set) = (true, false);
        }
    }

    /// To be asked when there is nothing to read. Ready when what is waited for has not come in time, or others need the
    /// connection: true where the client is told that the rest of its head is late.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.connection.is_evicted() {
            return Poll::Ready(false);
        }
        if self.connection.is_answering() {
            return Poll::Pending;
        }
        self.look();
        if self.connection.is_to_end() && !self.has_begun {
            return Poll::Ready(false);
        }
        if !std::mem::replace(&mut self.is_set, true) {
            let within = if self.has_begun { HEAD_WITHIN } else { self.idle };
            self.end = Instant::now() + within;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.end)));
        if timer.deadline() > self.end {
            timer.as_mut().reset(self.end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= self.end {
                return Poll::Ready(self.has_begun);
            }
            timer.as_mut().reset(self.end);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for TimedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if is_hypers_own(buf) { self.refuse(cx, buf) } else { self.write(cx, buf) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut together = [0; TOGETHER];
        match bufs {
            [only] if is_hypers_own(only) => self.refuse(cx, only),
            [_, _, ..] if let Some(length) = coalesce(bufs, &mut together) => {
                self.write(cx, &together[..length])
            }
            _ => {
                let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
                self.in_time(cx, write)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Called when all is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.late = None;
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

    fn wire<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> TimedIo<S> {
        TimedIo::new(stream, |_| false, Arc::default(), Duration::from_secs(80))
    }

    #[test]
    fn parts_are_put_together_in_order_where_they_fit() {
        let mut whole = [0; TOGETHER];
        let parts = [&b"head"[..], b"", b"body"].map(IoSlice::new);
        assert_eq!(coalesce(&parts, &mut whole), Some(8));
        assert_eq!(&whole[..8], b"headbody");
        let (most, more) = (vec![7; TOGETHER - 4], vec![7; TOGETHER - 3]);
        assert_eq!(coalesce(&[parts[0], IoSlice::new(&most)], &mut whole), Some(TOGETHER));
        assert_eq!(coalesce(&[parts[0], IoSlice::new(&more)], &mut whole), None);
    }

    #[tokio::test]
    async fn an_answer_that_is_put_together_goes_on_where_the_socket_was_full() {
        let (ours, mut theirs) = tokio::io::duplex(5);
        let mut wire = wire(ours);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut taken = [0; 5];
        let parts = [&b"abc"[..], b"defgh"].map(IoSlice::new);
        assert!(matches!(Pin::new(&mut wire).poll_write_vectored(cx, &parts), Poll::Ready(Ok(5))));
        let parts = [&b"f"[..], b"gh"].map(IoSlice::new);
        assert!(Pin::new(&mut wire).poll_write_vectored(cx, &parts).is_pending());
        assert!(wire.late.is_some(), "its time runs");
        theirs.read_exact(&mut taken).await.unwrap();
        assert_eq!(&taken, b"abcde");
        assert!(matches!(Pin::new(&mut wire).poll_write_vectored(cx, &parts), Poll::Ready(Ok(3))));
        theirs.read_exact(&mut taken[..3]).await.unwrap();
        assert_eq!(&taken[..3], b"fgh");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_30_s_and_one_more_for_each_64_kib_that_it_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = wire(stream);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(wire.in_time(cx, Poll::Pending).is_pending());
        assert!(wire.in_time(cx, Poll::Ready(Ok(640 * 1024))).is_ready());
        advance(Duration::from_secs(39)).await;
        assert!(wire.in_time(cx, Poll::Pending).is_pending());
        advance(Duration::from_secs(2)).await;
        let Poll::Ready(Err(late)) = wire.in_time(cx, Poll::Pending) else { panic!("it had its time") };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(Pin::new(&mut wire).poll_flush(cx).is_ready());
        assert!(wire.in_time(cx, Poll::Pending).is_pending(), "the next answer has a time of its own");
    }
}
