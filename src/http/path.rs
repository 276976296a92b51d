//! The appid in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::edge::Edge;
use super::problem::Problem;
use crate::account::Appid;

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
