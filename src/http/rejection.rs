//! `POST …/token/reject` and `POST …/token/refresh`: a client, or an operator, wants another token.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::timeout;

use super::clients::{Caller, Scope};
use super::edge::Edge;
use super::guard::too_large;
use super::path::Named;
use super::problem::{Code, Problem};
use super::query::Query;
use super::token::write_fields;
use crate::fleet::Rejected;

/// A body must have come within this.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What a client reports.
#[derive(Deserialize)]
struct Report<'a> {
    /// The token that WeChat refused.
    #[serde(borrow)]
    access_token: Cow<'a, str>,
}

pub(super) async fn reject(
    State(edge): State<Edge>,
    caller: Caller,
    Named(appid): Named,
    request: Request,
) -> Result<Response, Problem> {
    caller.deals_with(&appid, &edge.fleet, Scope::Refresh)?;
    if !is_json(request.headers()) {
        let detail = "send the token as application/json: {\"access_token\":\"…\"}";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let body = body(request).await?;
    // Never in serde's words, which quote what was sent.
    let wrong = |_| Problem::bad_request("the body is not {\"access_token\":\"…\"}");
    let report: Report<'_> = serde_json::from_slice(&body).map_err(wrong)?;
    if report.access_token.is_empty() {
        return Err(Problem::bad_request("access_token is empty"));
    }
    let rejected =
        edge.unless_stopping(edge.fleet.reject_for(caller.name(), &appid, &report.access_token)).await?;
    Ok(answer(&appid, &rejected, caller.may(Scope::Read)))
}

pub(super) async fn refresh(
    State(edge): State<Edge>,
    caller: Caller,
    Named(appid): Named,
    uri: Uri,
) -> Result<Response, Problem> {
    caller.deals_with(&appid, &edge.fleet, Scope::Admin)?;
    let force = Query::of(&uri, &["force"])?.flag("force")?;
    let refreshed = edge.unless_stopping(edge.fleet.refresh_for(caller.name(), &appid, force)).await?;
    Ok(answer(&appid, &refreshed, caller.may(Scope::Read)))
}

/// Also with parameters, as in `application/json; charset=utf-8`.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let refused = |rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::bad_request("the body did not arrive whole"),
    };
    let late = |_| Problem::bad_request("the body did not arrive within 10 s");
    timeout(BODY_WITHIN, Bytes::from_request(request, &())).await.map_err(late)?.map_err(refused)
}

/// The current token stands in it for those who may read it, where one may be served.
fn answer(appid: &str, rejected: &Rejected, may_read: bool) -> Response {
    let mut json = String::with_capacity(1024);
    let (outcome, version) = (rejected.outcome.as_str(), rejected.version);
    let _ = write!(json, "{{\"outcome\":\"{outcome}\",\"version\":{version},\"appid\":\"{appid}\",");
    if let Some(token) = rejected.token.as_ref().filter(|_| may_read) {
        write_fields(&mut json, token);
        json.push(',');
    }
    json.push_str("\"last_fault\":");
    json.push_str(&serde_json::to_string(&rejected.last_fault).unwrap_or_default());
    json.push('}');
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json).into_response()
}
