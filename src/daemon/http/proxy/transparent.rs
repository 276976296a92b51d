//! Calls of applications that know WeChat alone: without a key, to WeChat's own paths.
//!
//! The name of WeChat's API leads to us there, so that nothing of the application changes. It is told by its
//! network, and the account by the token that a call carries: one that we handed out, whether or not it lives.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Request};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use wxtokend_core::account::Appid;

use super::active::Active;
use super::call::{self, Call, Refused};
use super::target::{require_passable, require_unambiguous, take_out};
use crate::config::Client;
use crate::daemon::http::access::Access;
use crate::daemon::http::app_state::AppState;
use crate::daemon::http::caller::Caller;
use crate::daemon::http::peer::{CURRENT, note_key};
use crate::daemon::http::problem::ApiProblem;
use crate::daemon::http::rights::{Permission, Rights};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Paths below which nothing is WeChat's.
const OURS: [&str; 3] = ["/v1/", "/ui/", "/proxy/"];

/// Paths that are passed on here, though not with a token of ours: an agency's own platform calls them.
const COMPONENT: &str = "/cgi-bin/component/";

/// Whether a call to `path`, which is no route of ours, may be meant for WeChat.
pub(in crate::daemon::http) fn may_be_wechats(path: &str) -> bool {
    !OURS.iter().any(|ours| path.starts_with(ours))
}

/// The client that a request without a key counts as, by the network that it comes from.
pub(in crate::daemon::http) fn client(app: &AppState, headers: &HeaderMap) -> Option<Arc<Client>> {
    let active = app.proxy.active();
    if active.settings.transparent.is_empty() {
        return None;
    }
    let peer = CURRENT.try_with(|peer| peer.address()).ok()??;
    let from = origin(peer, headers, &active)?;
    let entry = active.settings.transparent.iter().find(|entry| is_among(&entry.from, from))?;
    let client = app.clients.named(&entry.client)?;
    note_key(true);
    Some(client)
}

/// Where a request comes from: the last address that no trusted proxy stands behind. `None` if that is no address.
fn origin(peer: IpAddr, headers: &HeaderMap, active: &Active) -> Option<IpAddr> {
    let lists = headers.get_all(FORWARDED_FOR).iter().map(|list| list.to_str().unwrap_or("?"));
    let forwarded: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    let (mut from, mut before) = (peer.to_canonical(), forwarded.iter().rev());
    while is_among(&active.trusted_proxies, from) {
        let Some(address) = before.next() else { break };
        from = address.parse::<IpAddr>().ok()?.to_canonical();
    }
    Some(from)
}

fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Answers a call of `client` to WeChat's own path.
pub(in crate::daemon::http) async fn answer(
    app: &AppState,
    access: &Access,
    client: Arc<Client>,
    request: Request<Body>,
) -> Response {
    let rights = Rights { client: Some(client), by_cookie: false };
    let caller = Caller::new(&app.clients, rights, access);
    pass_on(app, &caller, request)
        .await
        .unwrap_or_else(|refused| refused.into_response(app, ApiProblem::into_response))
}

async fn pass_on(app: &AppState, caller: &Caller, request: Request<Body>) -> Result<Response, Refused> {
    let path = below(request.uri().path(), &app.wechat_path).to_owned();
    let appid = account(app, &request);
    match appid.is_none() && path.starts_with(COMPONENT) {
        true => require_unambiguous(&path)?,
        false => require_passable(&path)?,
    }
    let Some(appid) = appid else {
        caller.require(Permission::Call)?;
        caller.require_path(&path)?;
        let call = Call { app, client: call::Client::of_this_request(), name: caller.name(), appid: "" };
        return call.unchanged(&path, request).await;
    };
    caller.require_account(appid.as_str(), &app.fleet, Permission::Call)?;
    caller.require_path(&path)?;
    let token = match app.fleet.token_at_once(appid.as_str()) {
        Some(token) => token,
        None => Box::pin(app.unless_stopping(app.fleet.token(&appid))).await?,
    };
    let call =
        Call { app, client: call::Client::of_this_request(), name: caller.name(), appid: appid.as_str() };
    call.with_token(token, &path, request).await
}

/// The account whose token the call carries.
fn account(app: &AppState, request: &Request<Body>) -> Option<Appid> {
    let token = take_out(request.uri().query()?, "access_token").values.pop()?;
    app.fleet.issued_to(&token)
}

/// The path at WeChat: below the base path, if it is, and with one slash at its beginning, since some SDKs append a path
/// to a base URL that ends in a slash.
fn below<'a>(path: &'a str, base: &str) -> &'a str {
    let inner = path.strip_prefix(base.trim_end_matches('/')).filter(|rest| rest.starts_with('/'));
    let inner = inner.unwrap_or(path);
    let slashes = inner.len() - inner.trim_start_matches('/').len();
    &inner[slashes.saturating_sub(1)..]
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::{Config, ProxyConfig};

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn a_request_comes_from_the_last_address_behind_trusted_proxies() {
        let mut config = Config::new([]);
        config.proxy = ProxyConfig::default();
        config.api.trusted_proxies = networks(&["127.0.0.0/8", "10.0.0.1/32", "fd00::/8"]);
        let active = Active::new(&config);
        for (peer, forwarded, from) in [
            ("192.0.2.1", &[][..], Some("192.0.2.1")),
            ("192.0.2.1", &["10.9.9.9"], Some("192.0.2.1")),
            ("127.0.0.1", &[], Some("127.0.0.1")),
            ("127.0.0.1", &["10.9.9.9"], Some("10.9.9.9")),
            ("::ffff:127.0.0.1", &["10.9.9.9"], Some("10.9.9.9")),
            ("127.0.0.1", &["10.9.9.9, 192.0.2.7"], Some("192.0.2.7")),
            ("127.0.0.1", &["10.9.9.9, 192.0.2.7, 10.0.0.1"], Some("192.0.2.7")),
            ("127.0.0.1", &["10.9.9.9", "192.0.2.7"], Some("192.0.2.7")),
            ("127.0.0.1", &["10.9.9.9, 10.0.0.1", "127.0.0.2"], Some("10.9.9.9")),
            ("127.0.0.1", &["10.0.0.1"], Some("10.0.0.1")),
            ("fd00::1", &["2001:db8::1"], Some("2001:db8::1")),
            ("127.0.0.1", &["unknown"], None),
            ("127.0.0.1", &["10.9.9.9, "], None),
            ("127.0.0.1", &["10.9.9.9:80"], None),
        ] {
            let mut headers = HeaderMap::new();
            for list in forwarded {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(list));
            }
            let found = origin(peer.parse().unwrap(), &headers, &active);
            assert_eq!(found, from.map(|from| from.parse().unwrap()), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn the_base_path_and_repeated_slashes_at_the_beginning_are_taken_off() {
        for (path, base, inner) in [
            ("/wxa/x", "/", "/wxa/x"),
            ("//wxa/x", "/", "/wxa/x"),
            ("/wx/wxa/x", "/wx", "/wxa/x"),
            ("/wx//wxa/x", "/wx/", "/wxa/x"),
            ("/wxa/x", "/wx", "/wxa/x"),
            ("/wxa//x", "/", "/wxa//x"),
            ("/", "/", "/"),
            ("", "/", ""),
        ] {
            assert_eq!(below(path, base), inner, "{path} below {base}");
        }
    }
}
