//! `/v1/session`: sign-in to the status page with a client's key, and sign-out.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use tracing::{info, warn};

use super::app_state::AppState;
use super::caller::Caller;
use super::problem::{ApiProblem, Code};
use super::{body, cookie, origin};

/// Delay before a wrong key is refused. It slows down guessing; a person with a typing error hardly notices.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// The body of a sign-in.
#[derive(Deserialize)]
struct Credentials<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// Shows the client, its permissions and what the page displays about the server. The server's time is
/// included, since the browser's clock may be off.
pub(super) async fn show(State(app): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    let rights = caller.rights()?;
    let allow: Vec<_> = rights.allow().names().collect();
    let session = json!({
        "client": rights.name(),
        "allow": allow,
        "version": env!("CARGO_PKG_VERSION"),
        "now": app.fleet.now().timestamp(),
    });
    Ok((NO_STORE, Json(session)).into_response())
}

pub(super) async fn sign_in(State(app): State<AppState>, request: Request) -> Result<Response, ApiProblem> {
    origin::require_our_page(request.headers())?;
    let over_tls = origin::is_https(request.headers());
    let body = body::of_json(request, "{\"key\":\"…\"}").await?;
    let Credentials { key } = body.read()?;
    let Some(client) = app.clients.with_key(key.as_bytes()) else {
        if app.wrong_keys.should_log_sign_in() {
            warn!(
                event = "sign_in_refused",
                "somebody tried to sign in to the status page with a key that no client has"
            );
        }
        return app
            .unless_stopping(async {
                sleep(REFUSAL_DELAY).await;
                Err(ApiProblem::new(Code::Unauthorized, "no client has that key"))
            })
            .await;
    };
    info!(event = "signed_in", client = client.name, "a client signed in to the status page");
    let cookie = [(header::SET_COOKIE, cookie::set(&key, over_tls))];
    Ok((StatusCode::NO_CONTENT, NO_STORE, cookie).into_response())
}

pub(super) async fn sign_out(headers: HeaderMap) -> Result<Response, ApiProblem> {
    origin::require_our_page(&headers)?;
    Ok((StatusCode::NO_CONTENT, NO_STORE, [(header::SET_COOKIE, cookie::forget())]).into_response())
}
