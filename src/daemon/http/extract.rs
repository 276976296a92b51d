//! Extractors: the caller, and the parameters in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use wxtokend_core::account::Appid;
use wxtokend_core::ticket::TicketKind;

use super::access::Access;
use super::app_state::AppState;
use super::caller::Caller;
use super::origin;
use super::problem::{ApiProblem, Code};

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiProblem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiProblem> {
        let rights = app.clients.rights(&parts.headers)?;
        if rights.by_cookie && !parts.method.is_safe() {
            origin::require_our_page(&parts.headers)?;
        }
        Ok(Self::new(&app.clients, rights, &Access::of(&parts.extensions)))
    }
}

/// The parameter `name` of a path. The API may be mounted below a path that has parameters of its own, which come first.
async fn parameter(parts: &mut Parts, app: &AppState, name: &str) -> Option<String> {
    let path = Path::<Vec<(String, String)>>::from_request_parts(parts, app).await;
    let Path(parameters) = path.ok()?;
    parameters.into_iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// `{appid}` of a path, in the form of an appid. The account may not exist.
pub(super) struct AppidPath(pub(super) String);

impl FromRequestParts<AppState> for AppidPath {
    type Rejection = ApiProblem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiProblem> {
        let appid = parameter(parts, app, "appid").await.ok_or_else(ApiProblem::unknown_account)?;
        // No account has an appid of another form.
        Appid::new(&appid).map(|_| Self(appid)).map_err(|_| ApiProblem::unknown_account())
    }
}

/// The parameter `{type}` of a path.
pub(super) struct TicketKindPath(pub(super) TicketKind);

impl FromRequestParts<AppState> for TicketKindPath {
    type Rejection = ApiProblem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiProblem> {
        let kind = parameter(parts, app, "type").await.and_then(|kind| kind.parse().ok());
        kind.map(Self).ok_or_else(|| ApiProblem::new(Code::NotFound, "a ticket is jsapi or wx_card"))
    }
}
