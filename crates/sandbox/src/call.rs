//! The kinds of calls that this WeChat knows.

use serde::{Deserialize, Serialize};

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
    /// `POST /cgi-bin/clear_quota`, `clear_quota/v2` and `openapi/quota/get`.
    Quota,
    /// Everything else that WeChat has under `/cgi-bin/`, `/wxa/`, `/datacube/`, `/sns/` and the like.
    Business,
}

/// First path segments of WeChat's other calls under `/cgi-bin/`. The rest of their paths is not modelled.
const CGI_BIN: [&str; 43] = [
    "account",
    "business",
    "callback",
    "card",
    "comment",
    "component",
    "customservice",
    "device",
    "draft",
    "express",
    "freepublish",
    "get_current_autoreply_info",
    "get_current_selfmenu_info",
    "getcallbackip",
    "groups",
    "guide",
    "hardware",
    "invoice",
    "material",
    "media",
    "menu",
    "message",
    "openapi",
    "poi",
    "qrcode",
    "shorten",
    "shorturl",
    "showqrcode",
    "soter",
    "subscribe",
    "tags",
    "template",
    "ticket",
    "user",
    "voice",
    "wxaapp",
    "wxopen",
    "wxverify",
    "service",
    "security",
    "scene",
    "media_check",
    "nonbiz",
];

/// First path segments of WeChat's calls outside `/cgi-bin/`.
const ELSEWHERE: [&str; 23] = [
    "bizwxa",
    "business",
    "card",
    "channels",
    "customservice",
    "cv",
    "datacube",
    "intp",
    "marketing",
    "merchant",
    "nontax",
    "payshop",
    "product",
    "rtc",
    "scan",
    "semantic",
    "shakearound",
    "shop",
    "sns",
    "tcb",
    "union",
    "wxa",
    "wxaapi",
];

impl Call {
    /// Returns the kind of call that `path` names; `None` if WeChat has nothing there.
    pub(super) fn of(path: &str) -> Option<Self> {
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match path.as_slice() {
            ["cgi-bin", "token"] => Some(Self::Token),
            ["cgi-bin", "stable_token"] => Some(Self::StableToken),
            ["cgi-bin", "get_api_domain_ip"] => Some(Self::Check),
            ["cgi-bin", "ticket", "getticket"] => Some(Self::Ticket),
            ["cgi-bin", "clear_quota"]
            | ["cgi-bin", "clear_quota", "v2"]
            | ["cgi-bin", "openapi", "quota", "get"] => Some(Self::Quota),
            ["cgi-bin", first, ..] if CGI_BIN.contains(first) => Some(Self::Business),
            [first, _, ..] if ELSEWHERE.contains(first) => Some(Self::Business),
            _ => None,
        }
    }
}
