//! `GET /v1/accounts/{appid}/token`, the main call of applications.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use jiff::fmt::temporal::DateTimePrinter;
use wxtokend_core::token::Token;

use super::app_state::AppState;
use super::caller::Caller;
use super::extract::AppidPath;
use super::paths::appid_of_token_read;
use super::problem::ApiProblem;
use super::query::Query;
use super::rights::Permission;

/// How long a long poll waits by default, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) const CONTENT_TYPE: &str = "application/json";

static RFC_3339: DateTimePrinter = DateTimePrinter::new();

/// Fast path for nearly all reads, which just ask for the current token. It bypasses the router, which costs
/// as much as everything else together. Returns `None` for what [`read`] has to answer.
pub(super) fn answer_at_once<B>(app: &AppState, request: &axum::http::Request<B>) -> Option<Response> {
    let (uri, headers) = (request.uri(), request.headers());
    let is_plain = request.method() == Method::GET
        && uri.query().is_none()
        && !headers.contains_key(header::IF_NONE_MATCH);
    let appid = appid_of_token_read(uri.path()).filter(|_| is_plain)?;
    let rights = app.clients.rights(headers).ok()?;
    rights.require_account(appid, &app.fleet, Permission::Token).ok()?;
    let token = app.fleet.token_at_once(appid)?.promised_at_most(rights.longest_promise());
    Some(found(appid, &token, &quoted(&token)))
}

pub(super) async fn read(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    request: Request,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Token)?;
    // Waits are boxed, so that nearly all reads, which do not wait, need not carry their state.
    let token = match Poll::from_uri(request.uri())? {
        None => match app.fleet.token_at_once(&appid) {
            Some(token) => token,
            None => Box::pin(app.unless_stopping(app.fleet.token(&appid))).await?,
        },
        Some(Poll { after, wait }) => {
            let newer = Box::pin(app.unless_stopping(app.fleet.token_after(&appid, after, wait))).await?;
            let Some(newer) = newer else { return Ok(unchanged(&app, &caller, &appid)) };
            newer
        }
    };
    let token = token.promised_at_most(caller.longest_promise());
    let etag = quoted(&token);
    if matches_etag(request.headers(), &etag) {
        return Ok(not_modified(&token, &etag));
    }
    Ok(found(&appid, &token, &etag))
}

/// `?after=V&wait=30s`
struct Poll {
    after: u64,
    wait: Duration,
}

impl Poll {
    fn from_uri(uri: &Uri) -> Result<Option<Self>, ApiProblem> {
        let query = Query::of(uri, &["after", "wait"])?;
        let after = query.number("after")?;
        let wait = query.duration("wait", MAX_WAIT)?;
        match (after, wait) {
            (Some(after), wait) => Ok(Some(Self { after, wait: wait.unwrap_or(DEFAULT_WAIT) })),
            (None, Some(_)) => {
                Err(ApiProblem::bad_request("wait needs after, the version that is known already"))
            }
            (None, None) => Ok(None),
        }
    }
}

fn found(appid: &str, token: &Token, etag: &str) -> Response {
    let mut json = String::with_capacity(appid.len() + token.access_token().len() + 140);
    write_body(&mut json, appid, token);
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    put_validators(headers, token, etag);
    response
}

fn not_modified(token: &Token, etag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    put_validators(response.headers_mut(), token, etag);
    response
}

/// The answer to a long poll that ended without a newer token.
fn unchanged(app: &AppState, caller: &Caller, appid: &str) -> Response {
    let snapshot = app.fleet.snapshot(appid);
    let token = snapshot.and_then(|snapshot| snapshot.state.read(app.fleet.now()));
    token.map(|token| token.promised_at_most(caller.longest_promise())).map_or_else(
        || {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        },
        |token| not_modified(&token, &quoted(&token)),
    )
}

/// Writes the body of an answer.
pub(super) fn write_body(json: &mut String, appid: &str, token: &Token) {
    json.push_str("{\"appid\":\"");
    json.push_str(appid);
    json.push_str("\",");
    write_fields(json, token);
    json.push_str(",\"version\":");
    push_number(json, token.version());
    json.push('}');
}

/// `"access_token":…,"expires_in":…,"expires_at":…`
pub(super) fn write_fields(json: &mut String, token: &Token) {
    json.push_str("\"access_token\":");
    write_string(json, token.access_token());
    json.push_str(",\"expires_in\":");
    push_number(json, token.expires_in().as_secs());
    json.push_str(",\"expires_at\":\"");
    // Print into the string: `Display` takes three times as long. Writing to a string cannot fail.
    let _ = RFC_3339.print_timestamp(&token.expires_at(), &mut *json);
    json.push('"');
}

/// Appends `number` in a third of the time that `{number}` takes.
pub(super) fn push_number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

pub(super) fn write_string(json: &mut String, text: &str) {
    // Without an early exit the compiler can test 64 bytes together.
    let plain = |byte: u8| (byte >= 0x20) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

fn quoted(token: &Token) -> String {
    let mut etag = String::with_capacity(32);
    push_quoted_etag(&mut etag, token);
    etag
}

pub(super) fn push_quoted_etag(text: &mut String, token: &Token) {
    text.push('"');
    token.push_etag(text);
    text.push('"');
}

fn put_validators(headers: &mut HeaderMap, token: &Token, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    let mut max_age = String::with_capacity(32);
    push_cache_control(&mut max_age, token);
    if let Ok(max_age) = HeaderValue::try_from(max_age) {
        headers.insert(header::CACHE_CONTROL, max_age);
    }
}

pub(super) fn push_cache_control(text: &mut String, token: &Token) {
    text.push_str("private, max-age=");
    push_number(text, token.max_age().as_secs());
}

/// Whether `If-None-Match` names `etag`: in a list, as a weak tag, or as `*`.
pub(super) fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}
