//! `/metrics`, rendered by a blocking thread while it is sent: a large fleet's text is a hundred megabytes.

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

/// Parts that may wait to be sent.
const MAX_PARTS: usize = 8;
const MAX_PART: usize = 64 * 1024;
/// Time limit of a scrape. A longer one is of no use and would block others.
const TIME_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn metrics(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let gzip = asks_for_gzip(&headers);
    // Fails only for a closed semaphore, and this one is never closed.
    let permit = Arc::clone(&app.scrapes).acquire_owned().await.ok();
    let (sender, parts) = channel(MAX_PARTS);
    let sink = ScrapeSink { parts: sender, end: Instant::now() + TIME_LIMIT };
    let written = spawn_blocking(move || write(&app, sink, gzip));
    let body = Body::new(Scrape { parts, written, _permit: permit });
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
    let accounts = **app.per_account.load();
    if !gzip {
        return app.metrics.write(&app.fleet, accounts, &mut sink);
    }
    // The text is repetitive: better levels save little and take much longer.
    let mut encoder = GzEncoder::new(sink, Compression::fast());
    app.metrics.write(&app.fleet, accounts, &mut encoder)?;
    encoder.finish().map(drop)
}

/// Sends parts to the response body, and blocks while [`MAX_PARTS`] of them wait.
struct ScrapeSink {
    parts: Sender<Bytes>,
    end: Instant,
}

impl Write for ScrapeSink {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if Instant::now() > self.end {
            return Err(ErrorKind::TimedOut.into());
        }
        let part = Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_PART)]);
        let length = part.len();
        self.parts.blocking_send(part).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The response body: parts that have been rendered. Dropping it ends the rendering.
struct Scrape {
    parts: Receiver<Bytes>,
    written: JoinHandle<Result<()>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Scrape {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(part) = ready!(self.parts.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        // A truncated text must not look complete, so an error cuts the connection.
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
                let mut sink = ScrapeSink { parts: sender, end: Instant::now() + TIME_LIMIT };
                sink.write_all(b"# HELP")?;
                assert!(!panics, "a bug");
                if fails { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
            });
            let mut scrape = Scrape { parts, written, _permit: None };
            let mut next = async || poll_fn(|cx| Pin::new(&mut scrape).poll_frame(cx)).await;
            assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "# HELP");
            let end = next().await;
            assert_eq!(end.is_some_and(|end| end.is_err()), fails || panics, "{fails} {panics}");
        }
    }
}
