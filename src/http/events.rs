//! `GET /v1/events`: what happens, as it happens; `GET /v1/accounts/{appid}/history`: what has happened.
//!
//! The stream is of server-sent events (the HTML standard's `EventSource`), which every language has a reader for and
//! every proxy lets through. A client that comes back with `Last-Event-ID` goes on where it was; one that has missed
//! something is told so by a `gap`, and reads the list of accounts again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::accounts::{JSON, json};
use super::clients::{Caller, Scope};
use super::edge::Edge;
use super::path::Named;
use super::problem::Problem;
use super::query::Query;
use crate::fleet::{Event, Follow};

/// A connection that says nothing longer than this is taken for dead by some proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What comes within this of the last is sent together: a busy fleet's events must not cost a wake-up each.
const TOGETHER: Duration = Duration::from_millis(50);
/// After so long a client that lost its connection comes back.
const COME_BACK: Duration = Duration::from_secs(2);
/// How many events a history has unless told, and at most.
const EVENTS: usize = 100;
const MOST_EVENTS: usize = 1000;

#[derive(Serialize)]
struct History {
    appid: String,
    /// The newest first.
    events: Vec<Arc<Event>>,
}

pub(super) async fn history(
    State(edge): State<Edge>,
    caller: Caller,
    Named(appid): Named,
    uri: Uri,
) -> Result<Response, Problem> {
    caller.deals_with(&appid, &edge.fleet, Scope::Read)?;
    let limit = match Query::of(&uri, &["limit"])?.number("limit")?.map(usize::try_from) {
        None => EVENTS,
        Some(Ok(limit @ 1..=MOST_EVENTS)) => limit,
        Some(_) => return Err(Problem::bad_request(format!("limit is 1 to {MOST_EVENTS}"))),
    };
    let events = edge.fleet.history(&appid, limit).ok_or_else(Problem::unknown_account)?;
    Ok((JSON, json(&History { appid, events })).into_response())
}

pub(super) async fn stream(
    State(edge): State<Edge>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Read)?;
    let appid = Query::of(&uri, &["appid"])?.text("appid").map(str::to_owned);
    if let Some(appid) = &appid {
        caller.deals_with(appid, &edge.fleet, Scope::Read)?;
        edge.fleet.snapshot(appid).ok_or_else(Problem::unknown_account)?;
    }
    let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let follow = edge.fleet.follow(last_event);
    // Says that the stream is open, and from where it would go on before it has told anything.
    let hello = sse::Event::default().id(follow.id_of_place()).retry(COME_BACK);
    let ear = Ear { edge, caller, appid, follow, ready: VecDeque::from([hello]), rested: Instant::now() };
    let told = stream::unfold(ear, async |mut ear| Some((Ok::<_, Infallible>(ear.next().await?), ear)));
    let told = Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx would keep it until it has a page full.
    Ok(([("x-accel-buffering", "no"), (header::CACHE_CONTROL.as_str(), "no-store")], told).into_response())
}

/// One who listens.
struct Ear {
    edge: Edge,
    caller: Caller,
    /// The one account to hear of.
    appid: Option<String>,
    follow: Follow,
    ready: VecDeque<sse::Event>,
    /// When the next events may be looked for.
    rested: Instant,
}

impl Ear {
    /// What is told next; nothing when the server stops, or does not know the key any more.
    async fn next(&mut self) -> Option<sse::Event> {
        while self.ready.is_empty() {
            let batch = async {
                sleep_until(self.rested).await;
                self.follow.next().await
            };
            let batch = tokio::select! {
                biased;
                () = self.edge.stopping.cancelled() => return None,
                () = self.edge.fleet.until_draining() => return None,
                () = self.edge.clients.until_unlike(&self.caller) => {
                    self.caller = self.edge.clients.again(&self.caller)?;
                    continue;
                }
                batch = batch => batch,
            };
            self.rested = Instant::now() + TOGETHER;
            if batch.missed {
                self.ready
                    .push_back(sse::Event::default().id(self.follow.id_of_place()).event("gap").data("{}"));
            }
            for event in &batch.events {
                if event.is_streamed() && self.may_hear_of(event) {
                    let data = serde_json::to_string(&**event).unwrap_or_default();
                    self.ready.push_back(
                        sse::Event::default().id(self.follow.id(event)).event(event.name()).data(data),
                    );
                }
            }
        }
        self.ready.pop_front()
    }

    fn may_hear_of(&self, event: &Event) -> bool {
        let Some(account) = &event.account else { return true };
        self.caller.covers(account)
            && self.appid.as_deref().is_none_or(|appid| account.appid.as_str() == appid)
    }
}
