//! What handlers take out of a request: who calls, and what its path names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use wxtokend_core::account::Appid;
use wxtokend_core::ticket::TicketKind;

use super::access::Access;
use super::caller::Caller;
use super::edge::Edge;
use super::origin;
use super::problem::{Code, Problem};

impl FromRequestParts<Edge> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let rights = edge.clients.rights(&parts.headers)?;
        if rights.by_cookie && !parts.method.is_safe() {
            origin::must_be_our_page(&parts.headers)?;
        }
        Ok(Self::new(&edge.clients, rights, &Access::of(&parts.extensions)))
    }
}

/// What stands for `{appid}`, first of all, in a path; it has the form of one, and there may be such an account.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<Edge> for Named {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, edge).await;
        let Path(names) = path.map_err(|_not_utf8| Problem::unknown_account())?;
        let (_, appid) = names.into_iter().next().ok_or_else(Problem::unknown_account)?;
        // What cannot be an appid is nobody's account.
        Appid::new(&appid).map(|_| Self(appid)).map_err(|_| Problem::unknown_account())
    }
}

/// What stands for `{type}` in a path.
pub(super) struct Kind(pub(super) TicketKind);

impl FromRequestParts<Edge> for Kind {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, edge).await;
        let kind = path.ok().and_then(|Path((_, kind))| kind.parse().ok());
        kind.map(Self).ok_or_else(|| Problem::new(Code::NotFound, "a ticket is jsapi or wx_card"))
    }
}
