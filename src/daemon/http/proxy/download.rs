//! The body of an answer on its way to the client.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use crate::daemon::http::connection::Connection;

/// What was looked into, then the rest as it comes. Ends with an error, which cuts the client's connection, if the
/// rest does not come or the client is gone.
pub(super) struct Download {
    held: VecDeque<Bytes>,
    /// `None` once it has ended.
    rest: Option<Incoming>,
    /// Its length, with what is held, if the answer says so.
    length: Option<u64>,
    timeout: Duration,
    /// Runs while nothing comes.
    stalled: Option<Pin<Box<Sleep>>>,
    client: Option<Arc<Connection>>,
    _slot: OwnedSemaphorePermit,
}

impl Download {
    pub(super) fn new(
        rest: Incoming,
        timeout: Duration,
        client: Option<Arc<Connection>>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let length = rest.size_hint().exact();
        Self { held: VecDeque::new(), rest: Some(rest), length, timeout, stalled: None, client, _slot: slot }
    }

    /// Reads on until `limit` bytes are held, or all; returns whether these are all.
    ///
    /// # Errors
    /// When the rest does not come.
    pub(super) async fn hold(&mut self, limit: usize) -> Result<bool, BoxError> {
        let mut size: usize = self.held.iter().map(Bytes::len).sum();
        while size <= limit {
            match std::future::poll_fn(|cx| self.poll_rest(cx)).await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        size += data.len();
                        self.held.push_back(data);
                    }
                }
                None => return Ok(true),
            }
            if self.rest.as_ref().is_none_or(Incoming::is_end_stream) {
                self.rest = None;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What has been read and not been sent.
    pub(super) fn held(&mut self) -> &[Bytes] {
        self.held.make_contiguous()
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.stalled = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.rest = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.timeout)));
                let ended = match stalled.as_mut().poll(cx) {
                    Poll::Ready(()) => Some(io::ErrorKind::TimedOut),
                    Poll::Pending
                        if self.client.as_ref().is_some_and(|it| it.poll_hung_up(cx).is_ready()) =>
                    {
                        Some(io::ErrorKind::ConnectionAborted)
                    }
                    Poll::Pending => None,
                };
                ended.map_or(Poll::Pending, |kind| Poll::Ready(Some(Err(io::Error::from(kind).into()))))
            }
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.held.pop_front() {
            Some(held) => Poll::Ready(Some(Ok(Frame::data(held)))),
            None => self.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.rest.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// Before anything was sent; hyper asks for no other.
    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
