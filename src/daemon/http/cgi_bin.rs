//! WeChat-compatible `/cgi-bin/token`, `/cgi-bin/stable_token` and `/cgi-bin/ticket/getticket`, for SDKs
//! written for WeChat.
//!
//! An SDK is pointed here by its base URL. It sends a client's key of ours as `secret`, so that AppSecrets
//! leave the application servers. Everything else is as at WeChat: HTTP 200 whatever is wrong with the call,
//! and errors as an `errcode`. All callers get the current token, and no call here mints, with one exception:
//! as at WeChat, `stable_token` brings forward the refresh that is due in the last minutes of a token anyway.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use reqwest::Url;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use wxtokend_core::account::Endpoint;
use wxtokend_core::ticket::Ticket;
use wxtokend_core::token::Token;

use super::access::Access;
use super::app_state::AppState;
use super::body;
use super::caller::Caller;
use super::peer;
use super::problem::{ApiProblem, Code};
use super::rights::Permission;
use crate::fleet::Asker;

/// The shortest life with which WeChat's `stable_token` hands out a token. SDKs that take as much off what they are
/// told keep nothing of a shorter one.
const STABLE_LEAST: Duration = Duration::from_secs(300);

/// The parameters of both token calls: `token` takes them from the query, `stable_token` from the body.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenQuery {
    grant_type: String,
    appid: String,
    secret: String,
    /// Some SDKs send `null` for an option that is not set.
    force_refresh: Option<bool>,
}

/// What is known of the sender of a token call before its parameters are read.
struct AskingCaller {
    access: Access,
    user_agent: Option<HeaderValue>,
}

impl AskingCaller {
    fn of(request: &Request) -> Self {
        let user_agent = request.headers().get(header::USER_AGENT).cloned();
        Self { access: Access::of(request.extensions()), user_agent }
    }

    fn asker<'a>(&'a self, client: Option<&'a str>) -> Asker<'a> {
        let address = peer::CURRENT.try_with(|peer| peer.address()).ok().flatten();
        let user_agent = self.user_agent.as_ref().map_or(&[][..], HeaderValue::as_bytes);
        Asker { client, address, user_agent }
    }
}

/// A refusal in WeChat's format.
#[derive(Debug, Serialize)]
struct WeChatRefusal {
    errcode: i64,
    errmsg: Cow<'static, str>,
}

#[derive(Serialize)]
struct TokenBody<'a> {
    access_token: &'a str,
    expires_in: u64,
}

#[derive(Serialize)]
struct TicketBody<'a> {
    errcode: i64,
    errmsg: &'static str,
    ticket: &'a str,
    expires_in: u64,
}

/// `GET /cgi-bin/token?grant_type=client_credential&appid=&secret=`, or the same as a form.
pub(super) async fn token(State(app): State<AppState>, request: Request) -> Response {
    let caller = AskingCaller::of(&request);
    match Form::of(request).await {
        Ok(form) => answer(&app, &caller, &form.query(), Endpoint::Token).await,
        Err(refused) => refused,
    }
}

/// `POST /cgi-bin/stable_token` with `{"grant_type":"client_credential","appid":"","secret":"","force_refresh":false}`
pub(super) async fn stable_token(State(app): State<AppState>, method: Method, request: Request) -> Response {
    if method != Method::POST {
        return refuse(43002, "require POST method").into_response();
    }
    // The content type is not checked, since SDKs send many.
    let caller = AskingCaller::of(&request);
    let body = match body::whole(request).await {
        Ok(body) => body,
        Err(problem) => return refusal(problem),
    };
    match body::object::<TokenQuery>(&body) {
        Some(query) => answer(&app, &caller, &query, Endpoint::StableToken).await,
        // Not serde's message, which quotes what was sent.
        None if looks_like_json(&body) => {
            refuse(47001, "data format error: the body is no JSON of this call").into_response()
        }
        None => refuse(41002, "appid missing: send it in a JSON body").into_response(),
    }
}

/// Whether the caller meant to send JSON. In a form, or with all parameters in the URL, WeChat finds no
/// appid.
fn looks_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
        || body.trim_ascii_start().starts_with(b"[")
        || serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// `GET /cgi-bin/ticket/getticket?access_token=&type=`, or the same as a form. The token alone authorizes the
/// caller.
pub(super) async fn ticket(State(app): State<AppState>, request: Request) -> Response {
    let form = match Form::of(request).await {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    let found = Box::pin(find_ticket(&app, &form)).await;
    found.map_or_else(IntoResponse::into_response, |ticket| {
        let (ticket, expires_in) = (ticket.value(), promised(ticket.expires_in()));
        json(&TicketBody { errcode: 0, errmsg: "ok", ticket, expires_in })
    })
}

async fn find_ticket(app: &AppState, query: &Form) -> Result<Ticket, WeChatRefusal> {
    let access_token = query.param("access_token");
    if access_token.is_empty() {
        return Err(refuse(41001, "access_token missing"));
    }
    let Ok(kind) = query.param("type").parse() else {
        return Err(refuse(40097, "invalid args: type is jsapi or wx_card"));
    };
    let holder = || {
        let why = "invalid credential, access_token is invalid or not latest";
        app.fleet.holder(access_token).ok_or_else(|| refuse(40001, why))
    };
    let appid = holder()?;
    let found = app.unless_stopping(app.fleet.ticket(&appid, kind)).await;
    // The call may have waited for the ticket, and the token may have ended meanwhile.
    holder()?;
    match found {
        Err(problem) if problem.code == Code::NotFound => {
            Err(refuse(48001, format!("api unauthorized: {}", problem.detail())))
        }
        found => Ok(found?),
    }
}

async fn answer(app: &AppState, asking: &AskingCaller, query: &TokenQuery, at: Endpoint) -> Response {
    let found = Box::pin(find(app, asking, query, at)).await;
    found.map_or_else(IntoResponse::into_response, |token| {
        let access_token = token.access_token();
        json(&TokenBody { access_token, expires_in: promised(token.expires_in()) })
    })
}

/// `expires_in` in whole seconds, at least 1, since some SDKs take 0 for "never expires". The margin at a
/// token's end is 1 s.
fn promised(expires_in: Duration) -> u64 {
    expires_in.as_secs().max(1)
}

async fn find(
    app: &AppState,
    asking: &AskingCaller,
    query: &TokenQuery,
    at: Endpoint,
) -> Result<Token, WeChatRefusal> {
    let TokenQuery { grant_type, appid, secret, force_refresh } = query;
    if appid.is_empty() {
        return Err(refuse(41002, "appid missing"));
    }
    if grant_type != "client_credential" {
        return Err(refuse(40002, "invalid grant_type: client_credential is the one there is"));
    }
    let caller = authenticate(app, &asking.access, secret)?;
    caller.require_account(appid, &app.fleet, Permission::Token)?;
    let token = app.unless_stopping(app.fleet.token(appid)).await?;
    if at == Endpoint::StableToken {
        app.fleet.bring_refresh_forward(appid);
    }
    let longest = match at {
        Endpoint::Token => caller.longest_promise(),
        Endpoint::StableToken => caller.longest_promise().max(STABLE_LEAST),
    };
    // `force_refresh` is never obeyed blindly: it says that the token does not work, and is handled like any
    // such report.
    if *force_refresh == Some(true) && caller.may(Permission::Refresh) {
        let report = app.fleet.reject_for(caller.name(), appid, token.access_token());
        let rejected = app.unless_stopping(report).await?;
        let token = rejected.token.map(|token| token.promised_at_most(longest));
        return token.ok_or_else(|| refuse(-1, "system busy: there is no valid token just now"));
    }
    let token = token.promised_at_most(longest);
    app.fleet.note_ask(appid, &asking.asker(caller.name()), &token);
    Ok(token)
}

fn authenticate(app: &AppState, access: &Access, key: &str) -> Result<Caller, WeChatRefusal> {
    if let Some(rights) = app.clients.rights_with_key(key.as_bytes()) {
        return Ok(Caller::new(&app.clients, rights, access));
    }
    Err(match key {
        "" => refuse(41004, "appsecret missing: send a client's key of wxtokend as secret"),
        _ => refuse(40125, "invalid appsecret: wxtokend wants a client's key in place of the AppSecret"),
    })
}

/// Converts `problem` to WeChat's format.
pub(super) fn refusal(problem: ApiProblem) -> Response {
    WeChatRefusal::from(problem).into_response()
}

/// Rewrites a request for a WeChat call below the base path as if it had been sent to the root.
pub(super) fn strip_base_path<B>(mut request: Request<B>, base: &str) -> Request<B> {
    if let Some(path) = path_of(request.uri().path(), base) {
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        // Cannot fail: the path consists of segments of the original path, each after one slash.
        if let Ok(uri) = format!("{path}{query}").parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The path to rewrite to; `None` if the path needs no change. Repeated slashes count as one, since some SDKs
/// append a path to a base URL that ends in a slash.
fn path_of(path: &str, base: &str) -> Option<String> {
    let is_in_place = ["/cgi-bin", "/sns"].iter().any(|root| path.starts_with(root)) && !path.contains("//");
    if is_in_place || !["/cgi-bin", "/sns"].iter().any(|root| path.contains(root)) {
        return None;
    }
    let segments =
        |path: &str| path.split('/').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (path, base) = (segments(path), segments(base));
    let rest = path.strip_prefix(&*base).unwrap_or(&path);
    matches!(rest.first()?.as_str(), "cgi-bin" | "sns").then(|| format!("/{}", rest.join("/")))
}

/// The pairs of a query string or a form body.
fn parse_form(text: &str) -> Vec<(String, String)> {
    // Any address serves here.
    let Ok(mut url) = Url::parse("http://localhost/") else { return Vec::new() };
    url.set_query(Some(text));
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn refuse(errcode: i64, errmsg: impl Into<Cow<'static, str>>) -> WeChatRefusal {
    WeChatRefusal { errcode, errmsg: errmsg.into() }
}

fn json(answer: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, serde_json::to_vec(answer).unwrap_or_default()).into_response()
}

impl From<ApiProblem> for WeChatRefusal {
    fn from(problem: ApiProblem) -> Self {
        let (errcode, errmsg) = match problem.code {
            Code::Unauthorized => (40125, "invalid appsecret"),
            Code::Forbidden | Code::PathNotAllowed => (48001, "api unauthorized"),
            Code::UnknownAccount | Code::NotFound => (40013, "invalid appid"),
            Code::BudgetExhausted => (45009, "reach max api daily quota limit"),
            Code::TokenUnavailable
            | Code::ShuttingDown
            | Code::Internal
            | Code::BadGateway
            | Code::GatewayTimeout => (-1, "system busy"),
            Code::MethodNotAllowed => (43001, "require GET method"),
            Code::BadRequest | Code::TooLarge | Code::UnsupportedMediaType => (47001, "data format error"),
        };
        refuse(errcode, format!("{errmsg}: {}", problem.detail()))
    }
}

impl IntoResponse for WeChatRefusal {
    fn into_response(self) -> Response {
        json(&self)
    }
}

/// The parameters of a call, from its query and from a form body, which some SDKs send.
struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the parameters of `request`.
    ///
    /// # Errors
    /// The answer for a request that is no such call.
    async fn of(request: Request) -> Result<Self, Response> {
        let mut pairs = Vec::new();
        if let Some(query) = request.uri().query() {
            pairs = parse_form(query);
        }
        match *request.method() {
            Method::GET => {}
            // The content type is not checked: SDKs send many, or none.
            Method::POST => {
                let body = body::whole(request).await.map_err(refusal)?;
                pairs.extend(parse_form(&String::from_utf8_lossy(&body)));
            }
            _ => return Err(refuse(43001, "require GET method").into_response()),
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter. As at WeChat, unknown parameters are ignored, and the last of repeated ones
    /// counts.
    fn param(&self, name: &str) -> &str {
        let mut pairs = self.0.iter().rev();
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn query(&self) -> TokenQuery {
        let param = |name| self.param(name).to_owned();
        let (grant_type, appid, secret) = (param("grant_type"), param("appid"), param("secret"));
        TokenQuery { grant_type, appid, secret, force_refresh: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_whole_seconds_and_at_least_one() {
        for (ms, seconds) in [(0, 1), (999, 1), (1_999, 1), (2_000, 2), (7_198_999, 7198)] {
            assert_eq!(promised(Duration::from_millis(ms)), seconds, "{ms}");
        }
    }

    #[test]
    fn slashes_and_the_base_path_are_taken_off_and_nothing_else_is_changed() {
        for (path, base, inner) in [
            ("/cgi-bin/token", "/", None),
            ("//cgi-bin/token", "/", Some("/cgi-bin/token")),
            ("/cgi-bin//token", "/", Some("/cgi-bin/token")),
            ("/wx/cgi-bin/token", "/wx", Some("/cgi-bin/token")),
            ("/wx//cgi-bin/token", "/wx/", Some("/cgi-bin/token")),
            ("//wx/hub/cgi-bin/stable_token", "/wx/hub", Some("/cgi-bin/stable_token")),
            ("/cgi-bin/token", "/wx", None),
            ("//cgi-bin/token", "/wx", Some("/cgi-bin/token")),
            ("/wxcgi-bin/token", "/wx", None),
            ("/wx/cgi-bin/token", "/", None),
            ("/v1/accounts/cgi-bin", "/", None),
            ("/v1/accounts", "/", None),
            ("/wx/sns/jscode2session", "/wx", Some("/sns/jscode2session")),
            ("/proxy/wx1/sns/jscode2session", "/", None),
            ("/proxy/wx1//cgi-bin/token", "/", None),
        ] {
            assert_eq!(path_of(path, base).as_deref(), inner, "{path} under {base}");
        }
    }
}
