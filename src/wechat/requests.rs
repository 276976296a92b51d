//! Builds the request of each call.

use serde::Serialize;
use wxtokend_core::account::{Account, Endpoint};
use wxtokend_core::ticket::TicketKind;

use super::transport::{Method, Request};

/// A cheap business call: shows whether WeChat honours a token, and whether a host is up.
pub(super) const CHECK_PATH: &str = "/cgi-bin/get_api_domain_ip";
const TICKET_PATH: &str = "/cgi-bin/ticket/getticket";

#[derive(Serialize)]
struct StableToken<'a> {
    grant_type: &'static str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

/// The check call with an invalid token: WeChat refuses it, with a `Date`.
pub(super) fn probe() -> Request {
    check_request("probe")
}

pub(super) fn check_request(token: &str) -> Request {
    let query = vec![("access_token", token.to_owned())];
    Request { method: Method::Get, path: CHECK_PATH, query, body: Vec::new() }
}

pub(super) fn ticket_request(kind: TicketKind, token: &str) -> Request {
    let query = vec![("access_token", token.to_owned()), ("type", kind.as_str().to_owned())];
    Request { method: Method::Get, path: TICKET_PATH, query, body: Vec::new() }
}

pub(super) fn token_request(account: &Account, force: bool) -> Request {
    let (appid, secret) = (account.appid.as_str(), account.secret.expose());
    match account.settings.endpoint {
        Endpoint::Token => Request {
            method: Method::Get,
            path: "/cgi-bin/token",
            query: vec![
                ("grant_type", "client_credential".to_owned()),
                ("appid", appid.to_owned()),
                ("secret", secret.to_owned()),
            ],
            body: Vec::new(),
        },
        Endpoint::StableToken => {
            let body = StableToken { grant_type: "client_credential", appid, secret, force_refresh: force };
            Request {
                method: Method::Post,
                path: "/cgi-bin/stable_token",
                query: Vec::new(),
                body: serde_json::to_vec(&body).unwrap_or_default(),
            }
        }
    }
}
