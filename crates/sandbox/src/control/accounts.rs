//! Accounts, their tokens, and what their owners set in the console.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::reply::{ControlResult, bad, done, known, strict};
use crate::handle::Sandbox;
use crate::tokens::TokenTruth;
use crate::world::World;

fn account_json(world: &World, appid: &Appid, now: std::time::Duration) -> Value {
    let truth = world.truth(appid, now);
    let tokens: Vec<Value> =
        truth.iter().flat_map(|truth| &truth.living_tokens).map(|token| token_json(token, now)).collect();
    let tickets: Vec<_> = truth
        .iter()
        .flat_map(|truth| &truth.living_tickets)
        .map(|ticket| ticket.expose().to_owned())
        .collect();
    let counters = truth.as_ref().map(|truth| truth.counters);
    let frozen = truth.as_ref().is_some_and(|truth| truth.frozen);
    let whitelist = truth.and_then(|truth| truth.whitelist);
    json!({
        "appid": appid,
        "counters": counters,
        "tokens": tokens,
        "tickets": tickets,
        "whitelist": whitelist,
        "frozen": frozen,
    })
}

fn token_json(token: &TokenTruth, now: std::time::Duration) -> Value {
    json!({
        "access_token": token.access_token.expose(),
        "appid": token.appid,
        "endpoint": token.endpoint,
        "alive": token.is_alive(now),
        "expires_in": token.expires_at.saturating_sub(now).as_secs_f64(),
        "dies_in": token.dies_at.saturating_sub(now).as_secs_f64(),
    })
}

pub(super) async fn accounts(State(sandbox): State<Sandbox>) -> ControlResult {
    Ok(Json(sandbox.with(|world, now| {
        let accounts: Vec<Value> = world.accounts().map(|appid| account_json(world, appid, now)).collect();
        json!({"accounts": accounts, "strangers_refused": world.strangers_refused()})
    })))
}

pub(super) async fn account(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    let appid = known(&sandbox, &appid)?;
    Ok(Json(sandbox.with(|world, now| account_json(world, &appid, now))))
}

#[derive(Serialize, Deserialize)]
struct PutAccount {
    secret: String,
}

pub(super) async fn put_account(
    State(sandbox): State<Sandbox>,
    Path(appid): Path<String>,
    body: Bytes,
) -> ControlResult {
    let appid = Appid::new(&appid).map_err(bad)?;
    let PutAccount { secret } = strict(&body)?;
    if secret.is_empty() {
        return Err(bad("the secret is empty"));
    }
    sandbox.add_account(&appid, Secret::new(secret));
    done()
}

pub(super) async fn kill_tokens(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.kill_tokens(&known(&sandbox, &appid)?);
    done()
}

pub(super) async fn put_whitelist(
    State(sandbox): State<Sandbox>,
    Path(appid): Path<String>,
    body: Bytes,
) -> ControlResult {
    let appid = known(&sandbox, &appid)?;
    sandbox.set_whitelist(&appid, Some(strict(&body)?));
    done()
}

pub(super) async fn end_whitelist(
    State(sandbox): State<Sandbox>,
    Path(appid): Path<String>,
) -> ControlResult {
    sandbox.set_whitelist(&known(&sandbox, &appid)?, None);
    done()
}

pub(super) async fn freeze(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.set_frozen(&known(&sandbox, &appid)?, true);
    done()
}

pub(super) async fn unfreeze(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.set_frozen(&known(&sandbox, &appid)?, false);
    done()
}

#[derive(Deserialize)]
pub(super) struct Which {
    access_token: String,
}

pub(super) async fn token(
    State(sandbox): State<Sandbox>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> ControlResult {
    let Query(Which { access_token }) = which.map_err(bad)?;
    let unknown =
        json!({"alive": false, "appid": null, "endpoint": null, "expires_in": null, "dies_in": null});
    Ok(Json(
        sandbox.with(|world, now| {
            world.token_truth(&access_token).map_or(unknown, |token| token_json(token, now))
        }),
    ))
}
