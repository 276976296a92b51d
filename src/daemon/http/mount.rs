//! The API for a program that embeds the library: as routers, to be mounted beside routes of its own.

use axum::Router;
use axum::body::Body;
use hyper::Request;
use tower::service_fn;

use super::api_service::ApiService;
use super::app_state::AppStateInner;
use super::clients::Clients;
use super::routes;
use crate::config::{Config, PerAccount};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;

/// The HTTP API of `fleet` and its status page, as a router. It has the routes of docs/api.md but for `/metrics`,
/// for which there is [`metrics_router`].
///
/// Mount it at the root by `fallback_service(router)`, or below a path with a slash at its end by
/// `nest_service("/tokens/", router)`: the page refers to its files relative to its own address. Nobody is let in
/// without the key of one of the `clients`, and nothing limits how many keys are tried: where strangers can reach it,
/// put a limit in front. Must be called in a tokio runtime.
///
/// The router holds the fleet, which so goes on for as long as the router does, or until [`Fleet::shutdown`]. Streams of
/// events end with the fleet alone: a server that shuts down gracefully shuts the fleet down first, as below.
///
/// # Example
/// ```no_run
/// # async fn example(fleet: wxtokend::Fleet) -> Result<(), Box<dyn std::error::Error>> {
/// use wxtokend::Secret;
/// use wxtokend::config::{Client, Grants};
/// use wxtokend::http::{Clients, Metrics, router};
///
/// let key = Secret::new(std::env::var("OPS_KEY")?);
/// let clients = Clients::from(vec![Client::new("ops", &key, Grants::new(["*"])?)]);
/// let app = axum::Router::new().nest_service("/tokens/", router(&fleet, &clients, &Metrics::detached()));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let stop = async move {
///     let _ = tokio::signal::ctrl_c().await;
///     fleet.shutdown().await;
/// };
/// axum::serve(listener, app).with_graceful_shutdown(stop).await?;
/// # Ok(())
/// # }
/// ```
pub fn router(fleet: &Fleet, clients: &Clients, metrics: &Metrics) -> Router {
    let app = AppStateInner::new(fleet.clone(), clients.clone(), metrics.clone(), &Config::new([]));
    mounted(routes::api(&app, false))
}

/// `/metrics`, `/healthz` and `/readyz` of `fleet`, as a router that needs no key. `accounts` are those that have series
/// of their own. Must be called in a tokio runtime.
///
/// Metrics of the whole fleet are there only if `metrics` were [installed](Metrics::install) before the fleet was
/// started.
pub fn metrics_router(fleet: &Fleet, metrics: &Metrics, accounts: PerAccount) -> Router {
    let mut config = Config::new([]);
    config.metrics.per_account = accounts;
    let app = AppStateInner::new(fleet.clone(), Clients::from(Vec::new()), metrics.clone(), &config);
    mounted(routes::metrics(&app))
}

fn mounted(service: ApiService) -> Router {
    let answer = move |request: Request<Body>| service.clone().answer(request);
    Router::new().fallback_service(service_fn(answer))
}
