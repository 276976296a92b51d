//! Which path is answered by what.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::edge::Edge;
use super::problem::{Code, Problem};
use super::{accounts, guard, probes, rejection, token};

const ACCOUNTS: &str = "/v1/accounts";
const ACCOUNT: &str = "/v1/accounts/{appid}";
const TOKEN: &str = "/v1/accounts/{appid}/token";
const REJECT: &str = "/v1/accounts/{appid}/token/reject";
const REFRESH: &str = "/v1/accounts/{appid}/token/refresh";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";

/// All of them; the most used first.
pub(super) const ROUTES: [&str; 8] = [TOKEN, REJECT, ACCOUNT, ACCOUNTS, REFRESH, HEALTHZ, READYZ, METRICS];

/// The API, with or without `/metrics`.
pub(super) fn api(edge: &Edge, with_metrics: bool) -> Router {
    let api = Router::new()
        .route(TOKEN, get(token::read))
        .route(REJECT, post(rejection::reject).layer(DefaultBodyLimit::max(guard::LARGEST_BODY)))
        .route(REFRESH, post(rejection::refresh))
        .route(ACCOUNT, get(accounts::one))
        .route(ACCOUNTS, get(accounts::list));
    let api = if with_metrics { api.route(METRICS, get(probes::metrics)) } else { api };
    let api = refusing(api.merge(probes()));
    api.layer(from_fn_with_state(Edge::clone(edge), guard::api)).with_state(Edge::clone(edge))
}

/// What a listener for metrics alone serves.
pub(super) fn metrics(edge: &Edge) -> Router {
    let metrics = refusing(probes().route(METRICS, get(probes::metrics)));
    metrics.layer(from_fn_with_state(Edge::clone(edge), guard::open)).with_state(Edge::clone(edge))
}

fn probes() -> Router<Edge> {
    Router::new().route(HEALTHZ, get(probes::healthz)).route(READYZ, get(probes::readyz))
}

/// What no route answers is refused in our words.
fn refusing(router: Router<Edge>) -> Router<Edge> {
    router
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                Code::MethodNotAllowed,
                "this path does not take that method; Allow names those it takes",
            )
        })
}
