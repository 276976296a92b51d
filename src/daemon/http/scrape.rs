//! `/metrics`: written by a thread of its own while it is sent, since that of a large fleet is a hundred megabytes.

use std::io::{Error, ErrorKind, Result, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::app_state::AppState;
use super::encoding::asks_for_gzip;

/// So many parts may wait to be sent.
const PARTS: usize = 8;
const LONGEST_PART: usize = 64 * 1024;
/// A scrape that takes longer helps nobody, and keeps others from theirs.
const WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn metrics(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let gzip = asks_for_gzip(&headers);
    // Fails only where a semaphore was closed, and none is.
    let turn = Arc::clone(&app.scrapes).acquire_owned().await.ok();
    let (sender, parts) = channel(PARTS);
    let sink = ScrapeSink { parts: sender, end: Instant::now() + WITHIN };
    let written = spawn_blocking(move || write(&app, sink, gzip));
    let body = Body::new(Scrape { parts, written, _turn: turn });
    let head = [
        (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
        (header::VARY, "Accept-Encoding"),
    ];
    let mut response = (head, body).into_response();
    if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn write(app: &AppState, mut sink: ScrapeSink, gzip: bool) -> Result<()> {
    if !gzip {
        return app.metrics.write(&app.fleet, &mut sink);
    }
    // The text repeats itself: what better levels save in length is little beside the time they take.
    let mut packed = GzEncoder::new(sink, Compression::fast());
    app.metrics.write(&app.fleet, &mut packed)?;
    packed.finish().map(drop)
}

/// Hands parts to those who send them, and waits while enough of them wait already.
struct ScrapeSink {
    parts: Sender<Bytes>,
    end: Instant,
}

impl Write for ScrapeSink {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if Instant::now() > self.end {
            return Err(ErrorKind::TimedOut.into());
        }
        let part = Bytes::copy_from_slice(&bytes[..bytes.len().min(LONGEST_PART)]);
        let length = part.len();
        self.parts.blocking_send(part).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What has been written and is to be sent. Dropped, it ends the writing.
struct Scrape {
    parts: Receiver<Bytes>,
    written: JoinHandle<Result<()>>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Scrape {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(part) = ready!(self.parts.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        // A text that ends too early must not pass for a whole one: then the connection is cut.
        match ready!(Pin::new(&mut self.written).poll(cx)) {
            Ok(Ok(())) => Poll::Ready(None),
            Ok(Err(error)) => Poll::Ready(Some(Err(error))),
            Err(panicked) => Poll::Ready(Some(Err(Error::other(panicked)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn a_text_that_breaks_off_does_not_end_as_a_whole_one_does() {
        for (fails, panics) in [(false, false), (true, false), (false, true)] {
            let (sender, parts) = channel(1);
            let written = spawn_blocking(move || {
                let mut sink = ScrapeSink { parts: sender, end: Instant::now() + WITHIN };
                sink.write_all(b"# HELP")?;
                assert!(!panics, "a bug");
                if fails { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
            });
            let mut scrape = Scrape { parts, written, _turn: None };
            let mut next = async || poll_fn(|cx| Pin::new(&mut scrape).poll_frame(cx)).await;
            assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "# HELP");
            let end = next().await;
            assert_eq!(end.is_some_and(|end| end.is_err()), fails || panics, "{fails} {panics}");
        }
    }
}
