//! The sandbox's clock, and what arrived when by it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::reply::{ControlResult, bad, done, strict};
use crate::handle::Sandbox;
use crate::request_log::Wanted;

pub(super) async fn clock(State(sandbox): State<Sandbox>) -> ControlResult {
    let time = sandbox.with(|world, now| world.time(now));
    Ok(Json(json!({"now": time, "ahead_s": sandbox.ahead().as_secs_f64()})))
}

#[derive(Serialize, Deserialize)]
struct Advance {
    advance: SignedDuration,
}

pub(super) async fn advance(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    let Advance { advance } = strict(&body)?;
    let by = advance.try_into().map_err(|_| bad("the clock goes forward only"))?;
    sandbox.advance_clock(by);
    clock(State(sandbox)).await
}

pub(super) async fn requests(
    State(sandbox): State<Sandbox>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> ControlResult {
    let Query(wanted) = wanted.map_err(bad)?;
    Ok(Json(json!({"requests": sandbox.requests_wanted(&wanted)})))
}

pub(super) async fn clear_requests(State(sandbox): State<Sandbox>) -> ControlResult {
    sandbox.clear_requests();
    done()
}
