//! Calls that carry the AppSecret: users' sign-ins to mini programs and web pages.
//!
//! The client's key stands where the AppSecret would, and is replaced by it on the way, so that no application
//! needs the secret. Such a call is never repeated: its code is good once. Nothing of it is logged.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Request, header};
use axum::response::Response;
use wxtokend_core::account::Appid;

use super::call::{Call, Client, Refused, path_and_query};
use super::target::{escaped, take_out};
use super::upstream::Head;
use crate::daemon::http::access::Access;
use crate::daemon::http::app_state::AppState;
use crate::daemon::http::caller::Caller;
use crate::daemon::http::cgi_bin;
use crate::daemon::http::problem::{ApiProblem, Code};
use crate::daemon::http::rights::Permission;
use wxtokend_core::reference::routes::{JSCODE2SESSION, OAUTH2_ACCESS_TOKEN};

/// Whether the call of this path carries the AppSecret.
pub(super) fn is_call(path: &str) -> bool {
    path == JSCODE2SESSION.path || path == OAUTH2_ACCESS_TOKEN.path
}

/// Whether a client's key stands where the AppSecret would.
pub(in crate::daemon::http) fn has_a_key(app: &AppState, query: &str) -> bool {
    let key = take_out(query, "secret").values.pop();
    key.is_some_and(|key| app.clients.with_key(key.as_bytes()).is_some())
}

/// Answers such a call at WeChat's own path, and in WeChat's way, whatever is wrong.
pub(in crate::daemon::http) async fn answer_as_wechat(
    app: &AppState,
    access: &Access,
    request: Request<Body>,
) -> Response {
    // Such a call has no body.
    let (request, _) = request.into_parts();
    let query = request.uri.query().unwrap_or_default();
    let appid = take_out(query, "appid").values.pop().unwrap_or_default();
    let passed = match Appid::new(&appid) {
        _ if request.method != Method::GET => Err(wrong_method().into()),
        Ok(_) => pass_on(app, access, &appid, request.uri.path(), &request).await,
        Err(_) => Err(ApiProblem::unknown_account().into()),
    };
    passed.unwrap_or_else(|refused| refused.into_response(app, cgi_bin::refusal))
}

/// Passes the call on with the AppSecret of `appid` in place of the client's key.
pub(super) async fn pass_on(
    app: &AppState,
    access: &Access,
    appid: &str,
    path: &str,
    request: &Parts,
) -> Result<Response, Refused> {
    if request.method != Method::GET {
        return Err(wrong_method().into());
    }
    let query = request.uri.query().unwrap_or_default();
    let secret = take_out(query, "secret");
    let named = take_out(&secret.rest, "appid");
    if named.values.iter().any(|other| other != appid) {
        return Err(ApiProblem::bad_request("appid in the query names another account").into());
    }
    let rights = match secret.values.last() {
        Some(key) if !key.is_empty() => app.clients.rights_with_key(key.as_bytes()).ok_or_else(|| {
            ApiProblem::new(Code::Unauthorized, "send a client's key of wxtokend as secret")
        })?,
        _ => app.clients.rights(&request.headers)?,
    };
    let caller = Caller::new(&app.clients, rights, access);
    caller.require_account(appid, &app.fleet, Permission::Call)?;
    caller.require_path(path)?;
    let snapshot = app.fleet.snapshot(appid).ok_or_else(ApiProblem::unknown_account)?;
    let app_secret = escaped(snapshot.account.secret.expose());
    let join = if named.rest.is_empty() { "" } else { "&" };
    let query = format!("appid={appid}&secret={app_secret}{join}{}", named.rest);
    let mut headers = request.headers.clone();
    // Of a body, which such a call has not.
    headers.remove(header::CONTENT_LENGTH);
    let path_and_query = path_and_query(path, Some(query))?;
    let call = Call { app, client: Client::of_this_request(), name: caller.name(), appid };
    call.once(Head { method: Method::GET, path_and_query, headers }, Body::empty()).await
}

fn wrong_method() -> ApiProblem {
    ApiProblem::new(Code::MethodNotAllowed, "this call is a GET")
}
