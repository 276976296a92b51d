//! Request bodies: JSON, bounded in size and time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::time::timeout;

use super::problem::{ApiProblem, Code};

/// Size limit of a request body. Bodies of this API have one short field.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// Time limit for a body to arrive.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A body that has been received completely.
pub(super) struct Body {
    bytes: Bytes,
    form: &'static str,
}

/// Reads a JSON body. `form` is the expected shape, which refusals show.
pub(super) async fn of_json(request: Request, form: &'static str) -> Result<Body, ApiProblem> {
    if !is_json(request.headers()) {
        return Err(ApiProblem::new(Code::UnsupportedMediaType, format!("send application/json: {form}")));
    }
    Ok(Body { bytes: whole(request).await?, form })
}

/// Reads a body of any content type.
pub(super) async fn whole(mut request: Request) -> Result<Bytes, ApiProblem> {
    let refused = |rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiProblem::bad_request("the body did not arrive whole"),
    };
    let timed_out = |_| ApiProblem::bad_request("the body did not arrive within 10 s");
    DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
    timeout(TIMEOUT, Bytes::from_request(request, &())).await.map_err(timed_out)?.map_err(refused)
}

pub(super) fn too_large() -> ApiProblem {
    ApiProblem::new(Code::TooLarge, "a body may have at most 65536 bytes")
}

impl Body {
    /// Deserialises the body. Refusals do not use serde's messages, which quote what was sent.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiProblem> {
        let invalid = || ApiProblem::bad_request(format!("the body is not {}", self.form));
        object(&self.bytes).ok_or_else(invalid)
    }
}

/// Deserialises a JSON object; `None` if `bytes` are not one. Use this for each body: serde also accepts an
/// array for a struct, by the order of the fields, which no client intends.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(bytes).ok())?
}

/// Whether the content type is JSON, with or without parameters, as in `application/json; charset=utf-8`.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
