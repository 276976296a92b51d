//! `/healthz` and `/readyz`, for monitoring, without a key.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use wxtokend_core::phase::Phase;

use super::app_state::AppState;
use super::problem::{ApiProblem, Code, ServiceUnavailable};

const JSON: [(header::HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];

pub(super) async fn healthz() -> impl IntoResponse {
    (JSON, "{\"status\":\"ok\"}")
}

pub(super) async fn readyz(State(app): State<AppState>) -> Result<impl IntoResponse, ApiProblem> {
    if app.stopping.is_cancelled() || app.fleet.is_shutting_down() {
        return Err(ApiProblem::shutting_down());
    }
    if app.fleet.is_ready() {
        return Ok((JSON, "{\"status\":\"ready\"}"));
    }
    let detail = "some accounts have neither a valid token nor a first attempt that ended";
    let unavailable = ServiceUnavailable {
        state: Some(Phase::Starting),
        last_fault: None,
        retry_after: Duration::from_secs(1),
    };
    Err(ApiProblem::later(Code::TokenUnavailable, detail, unavailable))
}
