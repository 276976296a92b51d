//! `GET /v1/accounts` and `GET /v1/accounts/{appid}`: the state of accounts, without their tokens.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wxtokend_core::account::Appid;
use wxtokend_core::phase::Phase;

use super::app_state::{AppState, large_body};
use super::caller::Caller;
use super::extract::AppidPath;
use super::problem::ApiProblem;
use super::query::Query;
use super::rights::{Permission, Rights};
use crate::fleet::{AccountView, HostView, Snapshot};

/// Accounts on a page by default, and at most.
const DEFAULT_PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;

pub(super) const JSON: [(HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];

/// `?state=&tag=&limit=1000&after=`
struct Filter {
    state: Option<Phase>,
    tag: Option<String>,
    limit: usize,
    after: Option<String>,
}

#[derive(Serialize)]
struct AccountPage {
    accounts: Vec<AccountView>,
    /// The `after` parameter of the next page; `null` on the last page.
    next: Option<Appid>,
    /// The state of WeChat's hosts, on which all accounts depend.
    hosts: Vec<HostView>,
}

pub(super) async fn one(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Read)?;
    let account = app.fleet.account(&appid).ok_or_else(ApiProblem::unknown_account)?;
    Ok((JSON, json(&account)).into_response())
}

pub(super) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    caller.require(Permission::Read)?;
    let filter = Filter::of(&uri)?;
    let filter = Arc::new(filter);
    loop {
        let rights = caller.rights()?;
        let page = page(&app, rights.clone(), Arc::clone(&filter)).await;
        // The page may have waited for a permit; it must match the grants that the client has when it is
        // sent.
        if caller.rights()? == rights {
            return Ok((JSON, page).into_response());
        }
    }
}

/// One page of the accounts that match `filter` and that `rights` cover.
async fn page(app: &AppState, rights: Rights, filter: Arc<Filter>) -> Bytes {
    let shared = AppState::clone(app);
    let page = large_body(&app.pages, move || {
        let now = shared.fleet.now();
        let matches = |snapshot: &Snapshot| {
            rights.covers(&snapshot.account)
                && filter.tag.as_ref().is_none_or(|tag| snapshot.account.tags.contains(tag))
                && filter.state.is_none_or(|state| snapshot.state.phase(now) == state)
        };
        let (page, more) = shared.fleet.page(filter.after.as_deref(), filter.limit, matches);
        let accounts: Vec<_> = page.iter().map(|cell| cell.view(now)).collect();
        let last = accounts.last().map(|account: &AccountView| account.appid.clone());
        json(&AccountPage { accounts, next: last.filter(|_| more), hosts: shared.fleet.hosts() })
    });
    page.await
}

impl Filter {
    fn of(uri: &Uri) -> Result<Self, ApiProblem> {
        let query = Query::of(uri, &["state", "tag", "limit", "after"])?;
        let limit = match query.number("limit")?.map(usize::try_from) {
            None => DEFAULT_PAGE,
            Some(Ok(limit @ 1..=MAX_PAGE)) => limit,
            Some(_) => return Err(ApiProblem::bad_request(format!("limit is 1 to {MAX_PAGE}"))),
        };
        Ok(Self {
            state: query.text("state").map(phase).transpose()?,
            tag: query.text("tag").map(str::to_owned),
            limit,
            after: query.text("after").map(str::to_owned),
        })
    }
}

fn phase(name: &str) -> Result<Phase, ApiProblem> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == name).ok_or_else(|| {
        ApiProblem::bad_request(format!("state is one of: {}", Phase::ALL.map(Phase::as_str).join(", ")))
    })
}

/// Serialises `answer`. This fails only for maps with non-string keys, and the API has none.
pub(super) fn json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}
