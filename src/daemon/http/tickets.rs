//! `GET /v1/accounts/{appid}/tickets/{type}`, and `GET /v1/accounts/{appid}/jssdk`, which signs a page with a
//! ticket.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use reqwest::Url;
use serde::Serialize;
use wxtokend_core::ticket::{Ticket, TicketKind};

use super::accounts::json;
use super::app_state::AppState;
use super::caller::Caller;
use super::extract::{AppidPath, TicketKindPath};
use super::problem::ApiProblem;
use super::query::Query;
use super::rights::Permission;
use super::token::matches_etag;

#[derive(Serialize)]
struct FoundTicket<'a> {
    appid: &'a str,
    r#type: TicketKind,
    ticket: &'a str,
    expires_in: u64,
    expires_at: Timestamp,
    version: u64,
}

pub(super) async fn read(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    TicketKindPath(kind): TicketKindPath,
    request: Request,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Token)?;
    Query::of(request.uri(), &[])?;
    let ticket = app.unless_stopping(app.fleet.ticket(&appid, kind)).await?;
    let ticket = ticket.promised_at_most(caller.longest_promise());
    let validators = validators(&ticket);
    if matches_etag(request.headers(), &validators[0].1) {
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    let found = FoundTicket {
        appid: &appid,
        r#type: kind,
        ticket: ticket.value(),
        expires_in: ticket.expires_in().as_secs(),
        expires_at: ticket.expires_at(),
        version: ticket.version(),
    };
    Ok((validators, [(header::CONTENT_TYPE, "application/json")], json(&found)).into_response())
}

fn validators(ticket: &Ticket) -> [(header::HeaderName, String); 2] {
    let max_age = format!("private, max-age={}", ticket.expires_in().as_secs());
    [(header::ETAG, format!("\"{}\"", ticket.etag())), (header::CACHE_CONTROL, max_age)]
}

/// `?url=`, URL-encoded
pub(super) async fn sign(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Sign)?;
    let query = Query::of(&uri, &["url"])?;
    let page = query.text("url").ok_or_else(|| {
        ApiProblem::bad_request("url is missing: the page's address as its browser shows it, URL-encoded")
    })?;
    require_page_url(page)?;
    caller.require_signable(page)?;
    let signed = app.unless_stopping(app.fleet.js_config(&appid, page)).await?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, json(&signed)).into_response())
}

/// Refuses a `url` that is no page's address: WeChat would reject the signature without saying why.
fn require_page_url(url: &str) -> Result<(), ApiProblem> {
    let is_page = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    let detail = "url is the page's address as its browser shows it, with http:// or https://";
    if is_page { Ok(()) } else { Err(ApiProblem::bad_request(detail)) }
}
