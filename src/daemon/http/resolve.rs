//! `GET /v1/resolve`: the current token of the account whose token a request carries.
//!
//! For a proxy that asks before it passes a request on to WeChat, such as nginx with `auth_request`: an application
//! that keeps a token, which has died meanwhile, then needs no change. The request's body never comes here.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use wxtokend_core::account::Appid;

use super::app_state::AppState;
use super::caller::Caller;
use super::problem::{ApiProblem, Code};
use super::proxy::target::{Without, require_passable, take_out, with_token};
use super::query::Query;
use super::rights::Permission;

/// The path and query of the request that is to be passed on.
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
const X_APPID: HeaderName = HeaderName::from_static("x-appid");
const X_REWRITTEN_URI: HeaderName = HeaderName::from_static("x-rewritten-uri");

pub(super) async fn resolve(
    State(app): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiProblem> {
    caller.require(Permission::Call)?;
    let Carried { access_token, path, rest } = Carried::by(request.headers(), request.uri())?;
    let owner = || app.fleet.issued_to(&access_token).ok_or_else(unacceptable);
    let appid = owner()?;
    caller.require_account(appid.as_str(), &app.fleet, Permission::Call)?;
    require_passable(&path)?;
    caller.require_path(&path)?;
    let token = match app.fleet.token_at_once(appid.as_str()) {
        Some(token) => token,
        None => Box::pin(app.unless_stopping(app.fleet.token(&appid))).await?,
    };
    // The account may have been removed during a wait, and another have come in its place.
    owner()?;
    let rewritten = rest.map(|rest| format!("{path}?{}", with_token(&rest, token.access_token())));
    answer(&appid, token.access_token(), rewritten)
}

fn answer(appid: &Appid, access_token: &str, rewritten: Option<String>) -> Result<Response, ApiProblem> {
    let secret = |text: &str| {
        // As bytes, since a path may hold UTF-8, as its header did.
        let value = HeaderValue::from_bytes(text.as_bytes()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let detail = "the current token has characters that a header cannot hold";
        value.map_err(|_| ApiProblem::new(Code::Internal, detail))
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(X_ACCESS_TOKEN, secret(access_token)?);
    headers.insert(X_APPID, secret(appid.as_str())?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(uri) = rewritten {
        headers.insert(X_REWRITTEN_URI, secret(&uri)?);
    }
    Ok(response)
}

fn unacceptable() -> ApiProblem {
    let detail = "no access_token of an account here, current or handed out not too long ago (proxy.stale)";
    ApiProblem::new(Code::Unauthorized, detail)
}

/// What the request that is to be passed on carries.
struct Carried {
    access_token: String,
    /// Its path at WeChat; `/` if it is not told, which no client with `paths` may call.
    path: String,
    /// What its query has but for the token; `None` if that is not told.
    rest: Option<String>,
}

impl Carried {
    /// Reads `X-Original-URI` or, without one, `?access_token=`.
    fn by(headers: &HeaderMap, uri: &Uri) -> Result<Self, ApiProblem> {
        let own = Query::of(uri, &["access_token"])?;
        let mut originals = headers.get_all(ORIGINAL_URI).iter();
        let original = match (originals.next(), originals.next(), own.text("access_token")) {
            (Some(original), None, None) => original,
            (None, _, own) => {
                let access_token = own.ok_or_else(unacceptable)?.to_owned();
                return Ok(Self { access_token, path: "/".to_owned(), rest: None });
            }
            _ => {
                return Err(ApiProblem::bad_request(
                    "send one X-Original-URI, or access_token, and not both",
                ));
            }
        };
        let malformed = || ApiProblem::bad_request("X-Original-URI is no path with a query, in UTF-8");
        let original = std::str::from_utf8(original.as_bytes()).map_err(|_| malformed())?;
        // What comes behind a # is for browsers: whether a proxy passes it on is its own affair.
        if !original.starts_with('/') || original.contains('#') {
            return Err(malformed());
        }
        let (path, query) = original.split_once('?').unwrap_or((original, ""));
        let Without { rest, mut values } = take_out(query, "access_token");
        if values.len() > 1 {
            return Err(ApiProblem::bad_request("access_token is given twice: WeChat may take either"));
        }
        let access_token = values.pop().filter(|value| !value.is_empty()).ok_or_else(unacceptable)?;
        Ok(Self { access_token, path: path.to_owned(), rest: Some(rest) })
    }
}
