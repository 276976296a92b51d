//! The body of a call on its way to WeChat.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// The body of one call: comes from the client as it is sent, and is kept up to a limit, so that the call can be
/// repeated.
pub(super) struct Upload {
    state: Mutex<State>,
}

struct State {
    /// What the client sends; `None` once it has been sent, or given up.
    source: Option<axum::body::Body>,
    kept: Option<Vec<Bytes>>,
    /// How many more bytes are kept.
    room: usize,
    is_complete: bool,
    awaits_client: bool,
    progress: Instant,
}

impl Upload {
    /// `keep` is how many bytes are kept at most.
    pub(super) fn new(source: axum::body::Body, keep: usize) -> Arc<Self> {
        let is_complete = source.is_end_stream();
        let kept = (source.size_hint().lower() <= keep as u64).then(Vec::new);
        let (awaits_client, progress) = (false, Instant::now());
        let source = Some(source);
        Arc::new(Self {
            state: Mutex::new(State { source, kept, room: keep, is_complete, awaits_client, progress }),
        })
    }

    /// The body of an attempt. If it is never read, another attempt can be made.
    pub(super) fn body(self: &Arc<Self>) -> UploadBody {
        UploadBody::Streamed { upload: Arc::clone(self), has_begun: false }
    }

    /// The same body once more, if it was sent whole, and kept.
    pub(super) fn again(&self) -> Option<UploadBody> {
        let mut state = self.lock();
        let kept = state.kept.take().filter(|_| state.is_complete)?;
        Some(UploadBody::Kept(kept.into()))
    }

    /// When something was last sent on, and whether the client has to send the next.
    pub(super) fn progress(&self) -> (Instant, bool) {
        let state = self.lock();
        (state.progress, state.awaits_client)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, data: &Bytes) {
        match self.room.checked_sub(data.len()) {
            Some(room) => {
                self.room = room;
                self.kept.iter_mut().for_each(|kept| kept.push(data.clone()));
            }
            None => self.kept = None,
        }
    }
}

/// What is sent to WeChat.
pub(super) enum UploadBody {
    Streamed { upload: Arc<Upload>, has_begun: bool },
    Kept(VecDeque<Bytes>),
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (upload, has_begun) = match self.get_mut() {
            Self::Kept(parts) => return Poll::Ready(parts.pop_front().map(|part| Ok(Frame::data(part)))),
            Self::Streamed { upload, has_begun } => (upload, has_begun),
        };
        *has_begun = true;
        let mut state = upload.lock();
        let Some(source) = &mut state.source else { return Poll::Ready(None) };
        let polled = Pin::new(source).poll_frame(cx);
        state.awaits_client = polled.is_pending();
        if polled.is_ready() {
            state.progress = Instant::now();
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => {
                    state.keep(data);
                    state.is_complete = state.source.as_ref().is_none_or(Body::is_end_stream);
                }
                // Trailers: no client of WeChat's sends any.
                None => state.kept = None,
            },
            Poll::Ready(None) => {
                state.is_complete = true;
                state.source = None;
            }
            Poll::Ready(Some(Err(_))) => {
                state.kept = None;
                state.source = None;
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(parts) => parts.is_empty(),
            Self::Streamed { upload, .. } => upload.lock().source.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(parts) => SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum()),
            Self::Streamed { upload, .. } => {
                upload.lock().source.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
            }
        }
    }
}

impl Drop for UploadBody {
    /// Gives the client's body back to its connection, which waits for it.
    fn drop(&mut self) {
        if let Self::Streamed { upload, has_begun: true } = self {
            let source = upload.lock().source.take();
            drop(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn read(mut body: UploadBody) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            all.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        all
    }

    fn parts(parts: &[&'static str]) -> axum::body::Body {
        let parts: Vec<_> =
            parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))).collect();
        axum::body::Body::from_stream(futures_util::stream::iter(parts))
    }

    #[tokio::test]
    async fn a_body_is_sent_again_if_it_was_sent_whole_and_is_no_longer_than_what_is_kept() {
        for (keep, again) in [(6, true), (7, true), (5, false), (0, false)] {
            let upload = Upload::new(parts(&["abc", "def"]), keep);
            assert!(upload.again().is_none() || keep == 0, "not before it was sent");
            let upload = Upload::new(parts(&["abc", "def"]), keep);
            assert_eq!(read(upload.body()).await, b"abcdef");
            let body = upload.again();
            assert_eq!(body.is_some(), again, "{keep}");
            if let Some(body) = body {
                assert_eq!(body.size_hint().exact(), Some(6));
                assert_eq!(read(body).await, b"abcdef");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_no_attempt_has_read_is_there_for_the_next() {
        let upload = Upload::new("abc".into(), 10);
        drop(upload.body());
        assert_eq!(upload.body().size_hint().exact(), Some(3));
        assert_eq!(read(upload.body()).await, b"abc");
        assert_eq!(read(upload.body()).await, b"", "it cannot be read twice");
    }

    #[tokio::test]
    async fn a_call_without_a_body_can_always_be_repeated() {
        let upload = Upload::new(axum::body::Body::empty(), 0);
        let body = upload.body();
        assert!(body.is_end_stream());
        drop(body);
        assert!(upload.again().is_some_and(|body| body.is_end_stream()));
    }
}
