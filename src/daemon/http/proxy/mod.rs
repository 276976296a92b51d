//! Passes calls on to WeChat with the account's token, so that no application needs one: `/proxy/{appid}/{path…}`.
//!
//! Everything is streamed, both ways. If WeChat refuses the token, it is reported as a client would report it
//! ([`Fleet::reject`](crate::Fleet::reject)); once it has been replaced, the call is repeated once, if its body was
//! short enough to be kept. That is safe since WeChat refuses a token before it does anything. After any other
//! failure nothing is sent again.

pub(super) mod active;
pub(crate) mod answer;
mod app_secret;
mod call;
mod download;
mod headers;
pub(super) mod outcome;
pub(crate) mod target;
pub(super) mod transparent;
mod upload;
mod upstream;

use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use wxtokend_core::account::Appid;

use super::access::Access;
use super::app_state::AppState;
use super::caller::Caller;
use super::problem::ApiProblem;
use super::rights::Permission;
pub(super) use app_secret::{answer_as_wechat, has_a_key};
use call::{Call, Client, Refused};
use target::require_passable;

/// The path below which calls are passed on.
pub(super) const PREFIX: &str = "/proxy/";

/// Answers a call below `/proxy/`.
pub(super) async fn answer(app: &AppState, access: &Access, request: Request<Body>) -> Response {
    let passed = pass_on(app, access, request).await;
    passed.unwrap_or_else(|refused| refused.into_response(app, ApiProblem::into_response))
}

async fn pass_on(app: &AppState, access: &Access, request: Request<Body>) -> Result<Response, Refused> {
    let (appid, path) = split(request.uri().path()).ok_or_else(ApiProblem::unknown_account)?;
    require_passable(path)?;
    if app_secret::is_call(path) {
        let (parts, _) = request.into_parts();
        let (appid, path) = split(parts.uri.path()).ok_or_else(ApiProblem::unknown_account)?;
        return app_secret::pass_on(app, access, appid, path, &parts).await;
    }
    let caller = Caller::new(&app.clients, app.clients.rights(request.headers())?, access);
    caller.require_account(appid, &app.fleet, Permission::Call)?;
    caller.require_path(path)?;
    let (appid, path) = (appid.to_owned(), path.to_owned());
    let token = match app.fleet.token_at_once(&appid) {
        Some(token) => token,
        None => Box::pin(app.unless_stopping(app.fleet.token(&appid))).await?,
    };
    let call = Call { app, client: Client::of_this_request(), name: caller.name(), appid: &appid };
    call.with_token(token, &path, request).await
}

/// The account and the path of a call, which begins with a slash.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PREFIX)?;
    let (appid, path) = rest.split_at(rest.find('/')?);
    Appid::new(appid).ok()?;
    Some((appid, path))
}
