//! How control calls are read and answered.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use wxtokend_core::account::Appid;

use crate::handle::Sandbox;

/// Why a control call failed.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

pub(super) type ControlResult = Result<Json<Value>, Refused>;

pub(super) fn bad(reason: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_REQUEST, reason.to_string())
}

pub(super) fn done() -> ControlResult {
    Ok(Json(json!({"ok": true})))
}

pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON object: {error}")))
}

/// Parses `T` and rejects unknown keys: with `times` misspelt, a fault would otherwise last for ever.
pub(super) fn strict<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let given = object(body)?;
    let read: T = serde_json::from_value(Value::Object(given.clone())).map_err(bad)?;
    let understood = serde_json::to_value(&read).map_err(bad)?;
    match given.iter().find(|(key, value)| !value.is_null() && understood.get(key.as_str()).is_none()) {
        Some((key, _)) => Err(bad(format!("unknown key {key:?}"))),
        None => Ok(read),
    }
}

/// Returns the account in the path, which must exist.
pub(super) fn known(sandbox: &Sandbox, appid: &str) -> Result<Appid, Refused> {
    let appid = Appid::new(appid).map_err(bad)?;
    match sandbox.with(|world, _| world.knows(&appid)) {
        true => Ok(appid),
        false => Err(Refused(StatusCode::NOT_FOUND, format!("no account {appid}"))),
    }
}

/// Returns the account in the path, if the path has one; it must exist.
pub(super) fn account_of(sandbox: &Sandbox, appid: Option<Path<String>>) -> Result<Option<Appid>, Refused> {
    appid.map(|Path(appid)| known(sandbox, &appid)).transpose()
}
