//! Faults, outages, answers that are set, and the rest of what the host does.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::reply::{ControlResult, account_of, bad, done, object, strict};
use crate::canned::CannedAnswer;
use crate::faults::Fault;
use crate::handle::Sandbox;
use crate::outage::Outage;

pub(super) async fn faults(State(sandbox): State<Sandbox>, appid: Option<Path<String>>) -> ControlResult {
    let account = account_of(&sandbox, appid)?;
    Ok(Json(sandbox.with(|world, _| json!({"faults": world.faults(account.as_ref())}))))
}

pub(super) async fn inject(
    State(sandbox): State<Sandbox>,
    appid: Option<Path<String>>,
    body: Bytes,
) -> ControlResult {
    sandbox.inject(account_of(&sandbox, appid)?.as_ref(), strict::<Fault>(&body)?);
    done()
}

pub(super) async fn clear_faults(
    State(sandbox): State<Sandbox>,
    appid: Option<Path<String>>,
) -> ControlResult {
    sandbox.clear_faults(account_of(&sandbox, appid)?.as_ref());
    done()
}

pub(super) async fn answers(State(sandbox): State<Sandbox>) -> ControlResult {
    Ok(Json(sandbox.with(|world, _| {
        let answers: Vec<&CannedAnswer> = world.answers().iter().map(Arc::as_ref).collect();
        json!({ "answers": answers })
    })))
}

pub(super) async fn put_answer(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    sandbox.put_answer(strict(&body)?);
    done()
}

pub(super) async fn clear_answers(State(sandbox): State<Sandbox>) -> ControlResult {
    sandbox.clear_answers();
    done()
}

pub(super) async fn quotas(State(sandbox): State<Sandbox>, appid: Option<Path<String>>) -> ControlResult {
    let account = account_of(&sandbox, appid)?;
    Ok(Json(sandbox.with(|world, now| json!({"quotas": world.limits(account.as_ref(), now)}))))
}

pub(super) async fn limit_calls(
    State(sandbox): State<Sandbox>,
    appid: Option<Path<String>>,
    body: Bytes,
) -> ControlResult {
    sandbox.limit_calls(account_of(&sandbox, appid)?.as_ref(), strict(&body)?);
    done()
}

pub(super) async fn clear_quotas(
    State(sandbox): State<Sandbox>,
    appid: Option<Path<String>>,
) -> ControlResult {
    let account = account_of(&sandbox, appid)?;
    sandbox.with(|world, _| world.clear_limits(account.as_ref()));
    done()
}

pub(super) async fn clear_used(State(sandbox): State<Sandbox>, appid: Option<Path<String>>) -> ControlResult {
    let account = account_of(&sandbox, appid)?;
    sandbox.with(|world, _| world.clear_used(account.as_ref()));
    done()
}

pub(super) async fn switches(State(sandbox): State<Sandbox>) -> ControlResult {
    Ok(Json(serde_json::to_value(sandbox.switches()).map_err(bad)?))
}

pub(super) async fn put_switches(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    let patch = object(&body)?;
    sandbox
        .with(|world, _| world.switches().patched(&patch).map(|all| world.set_switches(all)))
        .map_err(bad)?;
    switches(State(sandbox)).await
}

#[derive(Serialize, Deserialize)]
struct PutSeed {
    seed: u64,
}

pub(super) async fn put_seed(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    sandbox.reseed(strict::<PutSeed>(&body)?.seed);
    done()
}

#[derive(Serialize, Deserialize)]
struct PutOutage {
    kind: String,
}

pub(super) async fn put_outage(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    let PutOutage { kind } = strict(&body)?;
    let outage = if kind == "none" { None } else { Some(Outage::try_from(kind).map_err(bad)?) };
    sandbox.set_outage(outage);
    done()
}

pub(super) async fn outage(State(sandbox): State<Sandbox>) -> ControlResult {
    let kind = sandbox.with(|world, _| world.outage()).map_or_else(|| "none".to_owned(), String::from);
    Ok(Json(json!({ "kind": kind })))
}

pub(super) async fn end_outage(State(sandbox): State<Sandbox>) -> ControlResult {
    sandbox.set_outage(None);
    done()
}
