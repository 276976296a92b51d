//! `/healthz` and `/readyz`: for machines that watch us, without a key.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use wxtokend_core::phase::Phase;

use super::edge::Edge;
use super::problem::{Code, Problem, Waiting};

const JSON: [(header::HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];

pub(super) async fn healthz() -> impl IntoResponse {
    (JSON, "{\"status\":\"ok\"}")
}

pub(super) async fn readyz(State(edge): State<Edge>) -> Result<impl IntoResponse, Problem> {
    if edge.stopping.is_cancelled() || edge.fleet.is_shutting_down() {
        return Err(Problem::shutting_down());
    }
    if edge.fleet.is_ready() {
        return Ok((JSON, "{\"status\":\"ready\"}"));
    }
    let detail = "some accounts have neither a valid token nor a first attempt that ended";
    let waiting =
        Waiting { state: Some(Phase::Starting), last_fault: None, retry_after: Duration::from_secs(1) };
    Err(Problem::later(Code::TokenUnavailable, detail, waiting))
}
