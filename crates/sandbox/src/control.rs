//! Control API of the sandbox: injects faults and reads the truth. JSON in and out.
//!
//! | call under `/_sandbox` | body, answer |
//! |---|---|
//! | `GET /accounts` | → `{"accounts":[…as below…],"strangers_refused":0}` |
//! | `GET /accounts/{appid}` | → `{"appid","counters":{…},"tokens":[{"access_token","appid","endpoint","alive","expires_in","dies_in"}],"tickets":[…],"whitelist","frozen"}`; only live tokens and tickets |
//! | `PUT /accounts/{appid}` | `{"secret":"…"}`: adds an account or changes its secret |
//! | `DELETE /accounts/{appid}/tokens` | ends all its tokens now |
//! | `PUT`, `DELETE /accounts/{appid}/whitelist` | `{"ips":["1.2.3.4","10.0.0.0/8","172.0.0.*"],"calls":"all"}`: other addresses get 40164 with the AppSecret, 61004 with a token; `"calls":"appsecret"`: as for mini programs, tokens are honoured from anywhere. Effective at once |
//! | `PUT`, `DELETE /accounts/{appid}/frozen` | freezes, unfreezes its AppSecret (40243; tokens stay alive); takes the switch `freezing_takes_s`: 600 |
//! | `POST /accounts/{appid}/faults`, `POST /faults` | a fault for the account, for all accounts |
//! | `GET`, `DELETE` of both | → `{"faults":[…]}`; clears the list |
//! | `GET /token?access_token=…` | → `{"alive","appid","endpoint","expires_in","dies_in"}`, all but `alive` are `null` if unknown |
//! | `GET`, `PUT /switches` | all [`Switches`](super::Switches); a `PUT` may contain only some |
//! | `GET`, `PUT`, `DELETE /outage` | `{"kind":"refuse"\|"hang"\|"status:502"\|"none"}` |
//! | `PUT /seed` | `{"seed":N}`: reseeds the random number generator, which makes what follows repeatable |
//!
//! A fault is `{"kind":…}` with the keys of its kind. These optional keys restrict the calls it hits:
//!
//! | key | hits only |
//! |---|---|
//! | `endpoint` | `token`, `stable_token`, `check`, `ticket`, `quota`, `business`; `any`, the default, includes paths that WeChat does not have |
//! | `path` | this path, e.g. `/cgi-bin/user/get`, or with a trailing `*` paths with that prefix: `/wxa/*` |
//! | `access_token` | calls with this token in the URL |
//! | `probability` | with this probability, greater than 0 and at most 1 |
//! | `times` | this many calls; for all accounts together, if the fault is for all |
//! | `for_ms` | within this time after its injection |
//!
//! The first matching fault hits: the account's own are tried first, then those for all.
//!
//! | kind, with its keys | what the client sees | the call |
//! |---|---|---|
//! | `errcode` (`errcode`, `errmsg`) | WeChat's error, with its usual message or with `errmsg`, where `{access_token}` stands for the token that was sent | changes nothing |
//! | `status` (`status`) | this HTTP status with a gateway's page; 412: an empty body | changes nothing |
//! | `html` | a gateway's page with status 200 | changes nothing |
//! | `raw` (`status`, `headers`, `body` or `body_base64`) | this status (default 200), these headers `{"Name":"value"}`, even a false `Content-Length`, and this body. `{access_token}` in `body` stands for the token or ticket of the true answer | changes nothing; is carried out if `body` contains `{access_token}` |
//! | `hang`, `reset` | no answer; a reset connection | changes nothing |
//! | `empty_token` | a token answer without its token | changes nothing |
//! | `delay` (`delay_ms`) | the true answer, late | is carried out |
//! | `half` | half of the true answer | is carried out |
//! | `bad_expires` (`expires_in`) | the true answer with another `expires_in` | is carried out |
//! | `lost` (`as`: `hang\|reset\|html\|502\|504`) | that, instead of the answer | is carried out |
//! | `late` (`after_ms`, and `as`: `hang`) | that, at once | is carried out after `after_ms`, whatever has happened in the meantime |
//!
//! For example, a refusal that passes is
//! `{"kind":"errcode","errcode":40001,"access_token":"…","for_ms":30000}`, and a NAT with one address in four
//! not whitelisted is `{"kind":"errcode","errcode":40164,"probability":0.25}`.
//!
//! `expires_in` is the promised remaining life of a token, `dies_in` its true one; both in seconds, 0 when over.
//! An outage does not affect this API. Since the API shares its listener with WeChat's, `refuse` resets
//! connections once the request has been read. Bad input gets 400, an unknown account 404, each with
//! `{"error":"…"}`.
//!
//! For WeChat's own calls, the caller's address is the connection's, or that in the header `X-Sandbox-Source-IP`,
//! which the real WeChat does not have.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::faults::Fault;
use super::handle::Sandbox;
use super::outage::Outage;
use super::tokens::TokenTruth;
use super::world::World;

pub(super) fn router() -> Router<Sandbox> {
    let api = Router::new()
        .route("/accounts", get(accounts))
        .route("/accounts/{appid}", get(account).put(put_account))
        .route("/accounts/{appid}/tokens", delete(kill_tokens))
        .route("/accounts/{appid}/whitelist", put(put_whitelist).delete(end_whitelist))
        .route("/accounts/{appid}/frozen", put(freeze).delete(unfreeze))
        .route("/accounts/{appid}/faults", get(faults).post(inject).delete(clear_faults))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/token", get(token))
        .route("/switches", get(switches).put(put_switches))
        .route("/seed", put(put_seed))
        .route("/outage", put(put_outage).get(outage).delete(end_outage))
        .fallback(async || Refused(StatusCode::NOT_FOUND, "no such call".to_owned()))
        .method_not_allowed_fallback(async || {
            Refused(StatusCode::METHOD_NOT_ALLOWED, "not by this method".to_owned())
        });
    Router::new().nest("/_sandbox", api)
}

/// Why a control call failed.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

type ControlResult = Result<Json<Value>, Refused>;

fn bad(reason: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_REQUEST, reason.to_string())
}

fn done() -> ControlResult {
    Ok(Json(json!({"ok": true})))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON object: {error}")))
}

/// Parses `T` and rejects unknown keys: with `times` misspelt, a fault would otherwise last for ever.
fn strict<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let given = object(body)?;
    let read: T = serde_json::from_value(Value::Object(given.clone())).map_err(bad)?;
    let understood = serde_json::to_value(&read).map_err(bad)?;
    match given.iter().find(|(key, value)| !value.is_null() && understood.get(key.as_str()).is_none()) {
        Some((key, _)) => Err(bad(format!("unknown key {key:?}"))),
        None => Ok(read),
    }
}

/// Returns the account in the path, which must exist.
fn known(sandbox: &Sandbox, appid: &str) -> Result<Appid, Refused> {
    let appid = Appid::new(appid).map_err(bad)?;
    match sandbox.with(|world, _| world.knows(&appid)) {
        true => Ok(appid),
        false => Err(Refused(StatusCode::NOT_FOUND, format!("no account {appid}"))),
    }
}

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

async fn accounts(State(sandbox): State<Sandbox>) -> ControlResult {
    Ok(Json(sandbox.with(|world, now| {
        let accounts: Vec<Value> = world.accounts().map(|appid| account_json(world, appid, now)).collect();
        json!({"accounts": accounts, "strangers_refused": world.strangers_refused()})
    })))
}

async fn account(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    let appid = known(&sandbox, &appid)?;
    Ok(Json(sandbox.with(|world, now| account_json(world, &appid, now))))
}

#[derive(Serialize, Deserialize)]
struct PutAccount {
    secret: String,
}

async fn put_account(
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

async fn kill_tokens(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.kill_tokens(&known(&sandbox, &appid)?);
    done()
}

async fn put_whitelist(
    State(sandbox): State<Sandbox>,
    Path(appid): Path<String>,
    body: Bytes,
) -> ControlResult {
    let appid = known(&sandbox, &appid)?;
    sandbox.set_whitelist(&appid, Some(strict(&body)?));
    done()
}

async fn end_whitelist(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.set_whitelist(&known(&sandbox, &appid)?, None);
    done()
}

async fn freeze(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.set_frozen(&known(&sandbox, &appid)?, true);
    done()
}

async fn unfreeze(State(sandbox): State<Sandbox>, Path(appid): Path<String>) -> ControlResult {
    sandbox.set_frozen(&known(&sandbox, &appid)?, false);
    done()
}

/// Returns the account whose faults are meant; `None` for those of all accounts.
fn account_of(sandbox: &Sandbox, appid: Option<Path<String>>) -> Result<Option<Appid>, Refused> {
    appid.map(|Path(appid)| known(sandbox, &appid)).transpose()
}

async fn faults(State(sandbox): State<Sandbox>, appid: Option<Path<String>>) -> ControlResult {
    let account = account_of(&sandbox, appid)?;
    Ok(Json(sandbox.with(|world, _| json!({"faults": world.faults(account.as_ref())}))))
}

async fn inject(State(sandbox): State<Sandbox>, appid: Option<Path<String>>, body: Bytes) -> ControlResult {
    sandbox.inject(account_of(&sandbox, appid)?.as_ref(), strict::<Fault>(&body)?);
    done()
}

async fn clear_faults(State(sandbox): State<Sandbox>, appid: Option<Path<String>>) -> ControlResult {
    sandbox.clear_faults(account_of(&sandbox, appid)?.as_ref());
    done()
}

#[derive(Deserialize)]
struct Which {
    access_token: String,
}

async fn token(
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

async fn switches(State(sandbox): State<Sandbox>) -> ControlResult {
    Ok(Json(serde_json::to_value(sandbox.switches()).map_err(bad)?))
}

async fn put_switches(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
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

async fn put_seed(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    sandbox.reseed(strict::<PutSeed>(&body)?.seed);
    done()
}

#[derive(Serialize, Deserialize)]
struct PutOutage {
    kind: String,
}

async fn put_outage(State(sandbox): State<Sandbox>, body: Bytes) -> ControlResult {
    let PutOutage { kind } = strict(&body)?;
    let outage = if kind == "none" { None } else { Some(Outage::try_from(kind).map_err(bad)?) };
    sandbox.set_outage(outage);
    done()
}

async fn outage(State(sandbox): State<Sandbox>) -> ControlResult {
    let kind = sandbox.with(|world, _| world.outage()).map_or_else(|| "none".to_owned(), String::from);
    Ok(Json(json!({ "kind": kind })))
}

async fn end_outage(State(sandbox): State<Sandbox>) -> ControlResult {
    sandbox.set_outage(None);
    done()
}
