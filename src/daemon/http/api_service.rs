//! What every request passes through: the checks that hold for all routes, the clock, and a net under panics.
//!
//! A function around the router and no layer in it, since a layer would box each request's way twice.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use axum::Router;
use axum::http::{HeaderMap, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use tokio::time::Instant;
use tower::Service;
use tracing::error;

use super::access::Access;
use super::app_state::AppState;
use super::body::{LARGEST_BODY, too_large};
use super::cgi_bin;
use super::host;
use super::paths::{self, ROUTES};
use super::problem::{ApiProblem, Code};
use super::token;
use super::unread_body::BodyLease;

/// What answers on a listener.
#[derive(Clone)]
pub(super) struct ApiService {
    pub(super) app: AppState,
    pub(super) router: Router,
    /// Which of [`ROUTES`] the router has.
    pub(super) serves: Range<usize>,
    /// Whether callers must be local where they need no key. Not on the metrics' own listener, to which its
    /// operator may let in anybody.
    pub(super) is_guarded: bool,
}

impl ApiService {
    pub(super) async fn answer(self, request: Request<BodyLease>) -> Result<Response, Infallible> {
        let Self { app, router, serves, is_guarded } = self;
        let started = Instant::now();
        // Of what was sent: a path that is read otherwise keeps no authority.
        let admitted = admit(&app, is_guarded, request.headers(), request.uri(), request.version());
        let request = cgi_bin::at_the_root(request, &app.wechat_path);
        let route = paths::of_path(request.uri().path()).filter(|route| serves.contains(route));
        let response = match admitted {
            Ok(()) => {
                let answer = async {
                    match is_guarded.then(|| token::at_once(&app, &request)).flatten() {
                        Some(found) => Ok(found),
                        // Boxed: nearly all are answered at once, and need not carry its state about.
                        None => Ok(Box::pin(routed(&app, router, request, route)).await),
                    }
                };
                catch_panic(answer, route).await
            }
            Err(problem) if problem.code == Code::TooLarge && is_wechats(route) => cgi_bin::refusal(problem),
            Err(problem) => problem.into_response(),
        };
        app.timing.note(route, response.status(), started.elapsed());
        Ok(response)
    }
}

/// What the router's handlers answer, for as long as who asks is let in.
async fn routed(
    app: &AppState,
    mut router: Router,
    mut request: Request<BodyLease>,
    route: Option<usize>,
) -> Response {
    let access = Access::default();
    request.extensions_mut().insert(access.clone());
    match access.while_let_in(app, router.call(request)).await {
        Ok(Ok(response)) => response,
        Err(problem) if is_wechats(route) => cgi_bin::refusal(problem),
        Err(problem) => problem.into_response(),
    }
}

fn admit(
    app: &AppState,
    is_guarded: bool,
    headers: &HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<(), ApiProblem> {
    if is_guarded {
        host::must_be_named(headers, uri, version)?;
        if app.clients.need_no_key() {
            host::must_be_local(headers, uri, version)?;
        }
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LARGEST_BODY as u64) { Err(too_large()) } else { Ok(()) }
}

/// Whether who calls expects WeChat's answers.
fn is_wechats(route: Option<usize>) -> bool {
    route.is_some_and(|route| ROUTES[route].starts_with("/cgi-bin/"))
}

/// A bug in a handler costs its request an answer of 500 and nobody anything else.
async fn catch_panic(
    answer: impl Future<Output = Result<Response, Infallible>>,
    route: Option<usize>,
) -> Response {
    let mut answer = pin!(answer);
    let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Some(response)),
        Err(_panic) => Poll::Ready(None),
    });
    answered.await.unwrap_or_else(|| {
        error!(
            event = "request_panicked",
            route = route.map(|route| ROUTES[route]),
            "answering a request panicked, a bug of ours; the client got 500"
        );
        let detail = "a bug of ours: report it with the log around this time";
        ApiProblem::new(Code::Internal, detail).into_response()
    })
}
