//! The routes and their handlers.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};

use super::api_service::ApiService;
use super::app_state::AppState;
use super::body::MAX_BODY;
use super::paths::{
    ACCOUNT, ACCOUNTS, ASSET, EVENTS, HEALTHZ, HISTORY, JSSDK, METRICS, PAGE, PROBES, READYZ, REFRESH,
    REJECT, ROUTES, SESSION, TICKET, TOKEN, WECHAT_STABLE_TOKEN, WECHAT_TICKET, WECHAT_TOKEN,
};
use super::problem::{ApiProblem, Code};
use super::{accounts, cgi_bin, events, probes, rejection, scrape, session, tickets, token, ui};

/// The routes of the API, with or without `/metrics`.
pub(super) fn api(app: &AppState, with_metrics: bool) -> ApiService {
    let api = Router::new()
        .route(TOKEN, get(token::read))
        .route(REJECT, post(rejection::reject).layer(DefaultBodyLimit::max(MAX_BODY)))
        .route(REFRESH, post(rejection::refresh))
        .route(TICKET, get(tickets::read))
        .route(JSSDK, get(tickets::sign))
        .route(HISTORY, get(events::history))
        .route(ACCOUNT, get(accounts::one))
        .route(ACCOUNTS, get(accounts::list))
        .route(EVENTS, get(events::stream))
        .route(
            SESSION,
            get(session::show)
                .post(session::sign_in)
                .delete(session::sign_out)
                .layer(DefaultBodyLimit::max(MAX_BODY)),
        )
        .route(WECHAT_TOKEN, any(cgi_bin::token).layer(DefaultBodyLimit::max(MAX_BODY)))
        .route(WECHAT_STABLE_TOKEN, any(cgi_bin::stable_token).layer(DefaultBodyLimit::max(MAX_BODY)))
        .route(WECHAT_TICKET, any(cgi_bin::ticket).layer(DefaultBodyLimit::max(MAX_BODY)))
        .route(PAGE, get(ui::page))
        .route(ASSET, get(ui::asset))
        .merge(probes());
    let api = if with_metrics { api.route(METRICS, get(scrape::metrics)) } else { api };
    let serves = 0..ROUTES.len() - usize::from(!with_metrics);
    ApiService { app: AppState::clone(app), router: refusing(api, app), serves, is_guarded: true }
}

/// The routes of a listener for metrics alone.
pub(super) fn metrics(app: &AppState) -> ApiService {
    let router = refusing(probes().route(METRICS, get(scrape::metrics)), app);
    ApiService { app: AppState::clone(app), router, serves: PROBES..ROUTES.len(), is_guarded: false }
}

fn probes() -> Router<AppState> {
    Router::new().route(HEALTHZ, get(probes::healthz)).route(READYZ, get(probes::readyz))
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
