//! The handlers of the routes.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, any, on};
use wxtokend_core::reference::routes::{
    ACCOUNT, ACCOUNTS, ASSET, EVENTS, HEALTHZ, HISTORY, JSSDK, METRICS, Method, PAGE, READYZ, REFRESH,
    REJECT, RESOLVE, Route, SESSION, SIGN_IN, SIGN_OUT, Scope, TICKET, TOKEN, WECHAT_STABLE_TOKEN,
    WECHAT_TICKET, WECHAT_TOKEN,
};

use super::api_service::ApiService;
use super::app_state::AppState;
use super::problem::{ApiProblem, Code};
use super::{accounts, cgi_bin, events, probes, rejection, resolve, scrape, session, tickets, token, ui};

/// The routes of the API, with or without `/metrics`.
pub(super) fn api(app: &AppState, with_metrics: bool) -> ApiService {
    let router = probes()
        .merge(route(&TOKEN, token::read))
        .merge(route(&REJECT, rejection::reject))
        .merge(route(&REFRESH, rejection::refresh))
        .merge(route(&TICKET, tickets::read))
        .merge(route(&JSSDK, tickets::sign))
        .merge(route(&RESOLVE, resolve::resolve))
        .merge(route(&HISTORY, events::history))
        .merge(route(&ACCOUNT, accounts::one))
        .merge(route(&ACCOUNTS, accounts::list))
        .merge(route(&EVENTS, events::stream))
        .merge(route(&SESSION, session::show))
        .merge(route(&SIGN_IN, session::sign_in))
        .merge(route(&SIGN_OUT, session::sign_out))
        .merge(route(&PAGE, ui::page))
        .merge(route(&ASSET, ui::asset))
        // These refuse other methods as WeChat does.
        .route(WECHAT_TOKEN.path, any(cgi_bin::token))
        .route(WECHAT_STABLE_TOKEN.path, any(cgi_bin::stable_token))
        .route(WECHAT_TICKET.path, any(cgi_bin::ticket));
    let (router, serves): (_, fn(&Route) -> bool) = match with_metrics {
        true => (router.merge(route(&METRICS, scrape::metrics)), |_| true),
        false => (router, |route| *route != METRICS),
    };
    ApiService { app: AppState::clone(app), router: refusing(router, app), serves, is_guarded: true }
}

/// The routes of a listener for metrics alone.
pub(super) fn metrics(app: &AppState) -> ApiService {
    let router = refusing(probes().merge(route(&METRICS, scrape::metrics)), app);
    let serves = |route: &Route| route.scope == Scope::Probe;
    ApiService { app: AppState::clone(app), router, serves, is_guarded: false }
}

fn probes() -> Router<AppState> {
    route(&HEALTHZ, probes::healthz).merge(route(&READYZ, probes::readyz))
}

/// A router that calls `handler` for one route.
fn route<T: 'static>(route: &Route, handler: impl Handler<T, AppState>) -> Router<AppState> {
    let methods = route.methods.iter().map(|method| match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Delete => MethodFilter::DELETE,
        // Such a route is not the router's.
        Method::Any => MethodFilter::GET,
    });
    match methods.reduce(MethodFilter::or) {
        Some(methods) => Router::new().route(route.path, on(methods, handler)),
        None => Router::new(),
    }
}

/// Answers unknown paths and methods with problems of ours.
fn refusing(router: Router<AppState>, app: &AppState) -> Router {
    router
        .fallback(async || ApiProblem::new(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiProblem::new(
                Code::MethodNotAllowed,
                "this path does not take that method; Allow names those it takes",
            )
        })
        .with_state(AppState::clone(app))
}
