//! The calls that this WeChat knows.

use serde::{Deserialize, Serialize};

use super::wire::Request;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `GET /cgi-bin/token`.
    Token,
    /// `POST /cgi-bin/stable_token`.
    StableToken,
    /// `GET /cgi-bin/get_api_domain_ip`, the cheap call that shows whether a token is honoured.
    Check,
    /// `GET /cgi-bin/ticket/getticket`.
    Ticket,
    /// `POST /cgi-bin/clear_quota/v2` and `POST /cgi-bin/openapi/quota/get`.
    Quota,
    /// Anything else under `/cgi-bin/`.
    Business,
}

impl Call {
    /// The kind of call that `request` makes, by its path.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let path: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
        match path.as_slice() {
            ["cgi-bin", "token"] => Some(Self::Token),
            ["cgi-bin", "stable_token"] => Some(Self::StableToken),
            ["cgi-bin", "get_api_domain_ip"] => Some(Self::Check),
            ["cgi-bin", "ticket", "getticket"] => Some(Self::Ticket),
            ["cgi-bin", "clear_quota", "v2"] | ["cgi-bin", "openapi", "quota", "get"] => Some(Self::Quota),
            ["cgi-bin", _, ..] => Some(Self::Business),
            _ => None,
        }
    }
}
