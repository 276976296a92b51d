//! What every request passes through: the checks that hold for all routes, the clock, and a net under panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::error;

use super::edge::Edge;
use super::host;
use super::problem::{Code, Problem};

/// Bodies may not be longer; ours have one short field.
pub(super) const LARGEST_BODY: usize = 64 * 1024;

/// On the API's listener.
pub(super) async fn api(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let admitted = admit(&edge, &request);
    answer(&edge, admitted, request, next).await
}

/// On the metrics' own listener, which anybody may be let in to by its operator.
pub(super) async fn open(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    answer(&edge, Ok(()), request, next).await
}

fn admit(edge: &Edge, request: &Request) -> Result<(), Problem> {
    let (headers, uri) = (request.headers(), request.uri());
    host::must_be_named(headers, uri, request.version())?;
    if edge.clients.need_no_key() {
        host::must_be_local(headers, uri)?;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LARGEST_BODY as u64) { Err(too_large()) } else { Ok(()) }
}

pub(super) fn too_large() -> Problem {
    Problem::new(Code::TooLarge, "a body may have at most 65536 bytes")
}

async fn answer(edge: &Edge, admitted: Result<(), Problem>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let response = match admitted {
        Ok(()) => unless_it_panics(next.run(request), route).await,
        Err(problem) => problem.into_response(),
    };
    edge.timing.note(route, response.status(), started.elapsed());
    response
}

/// A bug in a handler costs its request an answer of 500 and nobody anything else.
async fn unless_it_panics(answer: impl Future<Output = Response>, route: Option<&str>) -> Response {
    let mut answer = pin!(answer);
    let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_panic) => Poll::Ready(None),
    });
    answered.await.unwrap_or_else(|| {
        error!(
            event = "request_panicked",
            route, "answering a request panicked, a bug of ours; the client got 500"
        );
        let detail = "a bug of ours: report it with the log around this time";
        Problem::new(Code::Internal, detail).into_response()
    })
}
