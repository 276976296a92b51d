//! `POST …/token/reject` and `POST …/token/refresh`: requests of clients and operators for another token.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app_state::AppState;
use super::body;
use super::caller::Caller;
use super::extract::AppidPath;
use super::problem::ApiProblem;
use super::query::Query;
use super::rights::Permission;
use super::token::write_fields;
use crate::fleet::RefreshResponse;

/// A client's report.
#[derive(Deserialize)]
struct Report<'a> {
    /// The token that WeChat rejected.
    #[serde(borrow)]
    access_token: Cow<'a, str>,
}

pub(super) async fn reject(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    request: Request,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Refresh)?;
    let body = body::of_json(request, "{\"access_token\":\"…\"}").await?;
    let report: Report<'_> = body.read()?;
    if report.access_token.is_empty() {
        return Err(ApiProblem::bad_request("access_token is empty"));
    }
    let rejected =
        app.unless_stopping(app.fleet.reject_for(caller.name(), &appid, &report.access_token)).await?;
    Ok(answer(&appid, &rejected, &caller, caller.may(Permission::Token)))
}

pub(super) async fn refresh(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Admin)?;
    let force = Query::of(&uri, &["force"])?.flag("force")?;
    let refreshed = app.unless_stopping(app.fleet.refresh_for(caller.name(), &appid, force)).await?;
    Ok(answer(&appid, &refreshed, &caller, caller.may(Permission::Token) && !prefers_minimal(&headers)))
}

/// Whether the client wants only the outcome (`Prefer: return=minimal`, RFC 7240). The status page does,
/// since it must never hold a token.
fn prefers_minimal(headers: &HeaderMap) -> bool {
    let lists = headers.get_all("prefer").iter().filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|preference| preference.trim().eq_ignore_ascii_case("return=minimal"))
}

/// The answer to both calls. It contains the current token if one may be served and it is to be `with_token`.
fn answer(appid: &str, refresh: &RefreshResponse, caller: &Caller, with_token: bool) -> Response {
    let mut json = String::with_capacity(1024);
    let (outcome, version) = (refresh.outcome.as_str(), refresh.version);
    let _ = write!(json, "{{\"outcome\":\"{outcome}\",\"version\":{version},\"appid\":\"{appid}\",");
    if let Some(token) = refresh.token.clone().filter(|_| with_token) {
        write_fields(&mut json, &token.promised_at_most(caller.longest_promise()));
        json.push(',');
    }
    json.push_str("\"last_fault\":");
    json.push_str(&serde_json::to_string(&refresh.last_fault).unwrap_or_default());
    json.push('}');
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json).into_response()
}
