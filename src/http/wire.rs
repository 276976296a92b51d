//! The socket under hyper, which speaks for hyper where that has no words of its own.
//!
//! A head that is too long or is no HTTP never becomes a request: hyper refuses it by itself, with an empty body.
//! Every refusal of ours is a problem that says what is wrong, so such an answer is exchanged on its way out.
//! It cannot be mistaken: no handler answers with an error and an empty body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::problem::Problem;

/// A connection as hyper sees it.
pub(super) struct Wire<S> {
    io: TokioIo<S>,
    /// What is sent in place of hyper's refusal, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { io: TokioIo::new(stream), refusal: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.io.into_inner()
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<S>> {
        Pin::new(&mut self.get_mut().io)
    }

    /// Writes the refusal instead of `theirs`, which counts as written when the refusal is.
    fn refuse(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<usize>> {
        let (ours, sent) = self.refusal.get_or_insert_with(|| (refusal(theirs), 0));
        while *sent < ours.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &ours[*sent..]))? {
                0 => return Poll::Ready(Ok(0)),
                more => *sent += more,
            }
        }
        self.refusal = None;
        Poll::Ready(Ok(theirs.len()))
    }
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
    let body = Problem::bad_request(detail).body();
    let mut answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if is_hypers_own(buf) { self.refuse(cx, buf) } else { self.io().poll_write(cx, buf) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [only] if is_hypers_own(only) => self.refuse(cx, only),
            _ => self.io().poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
