//! The service that every request passes through: checks common to all routes, timing, and catching of
//! panics.
//!
//! It is a function around the router and not a tower layer, since a layer would box each request's future
//! twice.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Bytes;
use axum::http::{HeaderMap, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use hyper::Request;
use hyper::body::Body;
use tokio::time::Instant;
use tower::Service;
use tracing::error;
use wxtokend_core::reference::routes::{JSCODE2SESSION, OAUTH2_ACCESS_TOKEN, PROXY, Route};

use super::access::Access;
use super::app_state::AppState;
use super::body::{MAX_BODY, too_large};
use super::cgi_bin;
use super::host;
use super::paths;
use super::problem::{ApiProblem, Code};
use super::proxy::{self, transparent};
use super::token;
use crate::config::Client;

/// A body as hyper or another server delivers it.
pub(super) trait RequestBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> RequestBody for B {}

/// The service behind one listener.
#[derive(Clone)]
pub(super) struct ApiService {
    pub(super) app: AppState,
    pub(super) router: Router,
    /// Which routes the router serves.
    pub(super) serves: fn(&Route) -> bool,
    /// Whether callers must be local where no key is needed. False on the metrics' own listener, whose
    /// operator may let in anybody.
    pub(super) is_guarded: bool,
}

impl ApiService {
    pub(super) async fn answer<B: RequestBody>(
        self,
        mut request: Request<B>,
    ) -> Result<Response, Infallible> {
        let Self { app, router, serves, is_guarded } = self;
        let started = Instant::now();
        // Check the URI as it was sent: rewriting the path below drops the authority.
        let admitted = admit(&app, is_guarded, request.headers(), request.uri(), request.version());
        host::insert_host_header(&mut request);
        let request = cgi_bin::strip_base_path(request, &app.wechat_path);
        let route = paths::of_path(request.uri().path()).filter(|route| serves(route));
        let response = match admitted {
            Ok(()) => {
                let answer = async {
                    match is_guarded.then(|| token::answer_at_once(&app, &request)).flatten() {
                        Some(found) => Ok(found),
                        // Boxed: nearly all requests are answered above and need not carry this future's
                        // state.
                        None => Ok(Box::pin(call_router(&app, router, request, route)).await),
                    }
                };
                catch_panic(answer, route).await
            }
            Err(problem) if problem.code == Code::TooLarge && route.is_some_and(Route::answers_as_wechat) => {
                cgi_bin::refusal(problem)
            }
            Err(problem) => problem.into_response(),
        };
        app.timing.note(route, response.status(), started.elapsed());
        Ok(response)
    }
}

/// Calls the router, or passes the call on, and refuses the request if the caller loses its access meanwhile.
async fn call_router<B: RequestBody>(
    app: &AppState,
    mut router: Router,
    mut request: Request<B>,
    route: Option<&Route>,
) -> Response {
    let access = Access::default();
    let answered = if route == Some(&PROXY) {
        access
            .while_authorized(app, async {
                Ok(proxy::answer(app, &access, request.map(axum::body::Body::new)).await)
            })
            .await
    } else if let Some(client) = transparent_client(app, &request, route) {
        let request = request.map(axum::body::Body::new);
        access
            .while_authorized(app, async { Ok(transparent::answer(app, &access, client, request).await) })
            .await
    } else if route.is_some_and(is_sign_in) {
        let request = request.map(axum::body::Body::new);
        access.while_authorized(app, async { Ok(proxy::answer_as_wechat(app, &access, request).await) }).await
    } else {
        request.extensions_mut().insert(access.clone());
        access.while_authorized(app, router.call(request)).await
    };
    match answered {
        Ok(Ok(response)) => response,
        Err(problem) if route.is_some_and(Route::answers_as_wechat) => cgi_bin::refusal(problem),
        Err(problem) => problem.into_response(),
    }
}

/// The client whose call to WeChat's own path this is, by where it comes from.
fn transparent_client<B>(app: &AppState, request: &Request<B>, route: Option<&Route>) -> Option<Arc<Client>> {
    let may_be = match route {
        None => transparent::may_be_wechats(request.uri().path()),
        // With the AppSecret itself: there is nothing to put in.
        Some(route) if is_sign_in(route) => !proxy::has_a_key(app, request.uri().query().unwrap_or_default()),
        Some(_) => false,
    };
    may_be.then(|| transparent::client(app, request.headers())).flatten()
}

/// Whether the call takes the AppSecret.
fn is_sign_in(route: &Route) -> bool {
    [JSCODE2SESSION, OAUTH2_ACCESS_TOKEN].contains(route)
}

fn admit(
    app: &AppState,
    is_guarded: bool,
    headers: &HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<(), ApiProblem> {
    if is_guarded {
        host::require_host_header(headers, uri, version)?;
        if app.clients.need_no_key() {
            host::require_local(headers, uri, version)?;
        }
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // Bodies that are passed on are not held here.
    let is_too_large = length.is_some_and(|length: u64| length > MAX_BODY as u64);
    let is_passed_on =
        || uri.path().starts_with(proxy::PREFIX) || transparent::client(app, headers).is_some();
    if is_too_large && !is_passed_on() { Err(too_large()) } else { Ok(()) }
}

/// Turns a panic of a handler into a 500 for that request only.
async fn catch_panic(
    answer: impl Future<Output = Result<Response, Infallible>>,
    route: Option<&Route>,
) -> Response {
    let mut answer = pin!(answer);
    let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Some(response)),
        Err(_panic) => Poll::Ready(None),
    });
    outcome.await.unwrap_or_else(|| {
        error!(
            event = "request_panicked",
            route = route.map(|route| route.path),
            "answering a request panicked, a bug of ours; the client got 500"
        );
        let detail = "a bug of ours: report it with the log around this time";
        ApiProblem::new(Code::Internal, detail).into_response()
    })
}
