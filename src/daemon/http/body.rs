//! What clients send: JSON, bounded in size and time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::time::timeout;

use super::problem::{ApiProblem, Code};

/// Bodies may not be longer; ours have one short field.
pub(super) const LARGEST_BODY: usize = 64 * 1024;

/// A body must have come within this.
const WITHIN: Duration = Duration::from_secs(10);

/// A body that arrived whole.
pub(super) struct Body {
    bytes: Bytes,
    form: &'static str,
}

/// The body of a request, which has to be JSON of the `form` that refusals show.
pub(super) async fn of_json(request: Request, form: &'static str) -> Result<Body, ApiProblem> {
    if !is_json(request.headers()) {
        return Err(ApiProblem::new(Code::UnsupportedMediaType, format!("send application/json: {form}")));
    }
    Ok(Body { bytes: whole(request).await?, form })
}

/// The body of a request, whatever it is.
pub(super) async fn whole(request: Request) -> Result<Bytes, ApiProblem> {
    let refused = |rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiProblem::bad_request("the body did not arrive whole"),
    };
    let late = |_| ApiProblem::bad_request("the body did not arrive within 10 s");
    timeout(WITHIN, Bytes::from_request(request, &())).await.map_err(late)?.map_err(refused)
}

pub(super) fn too_large() -> ApiProblem {
    ApiProblem::new(Code::TooLarge, "a body may have at most 65536 bytes")
}

impl Body {
    /// What it says. Never refused in serde's words, which quote what was sent.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiProblem> {
        let wrong = || ApiProblem::bad_request(format!("the body is not {}", self.form));
        object(&self.bytes).ok_or_else(wrong)
    }
}

/// What a JSON object says; none where `bytes` are not one. To be used for each body: serde takes a list for a struct, too,
/// by the order of the fields, which nobody means.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(bytes).ok())?
}

/// Also with parameters, as in `application/json; charset=utf-8`.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
