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
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::accounts::{JSON, json};
use super::app_state::AppState;
use super::caller::Caller;
use super::extract::AppidPath;
use super::problem::ApiProblem;
use super::query::Query;
use super::rights::{Rights, Scope};
use crate::fleet::{Event, Follow};

/// A connection that says nothing longer than this is taken for dead by some proxies. So its place is told, without an
/// event.
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
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    caller.deals_with(&appid, &app.fleet, Scope::Read)?;
    let limit = match Query::of(&uri, &["limit"])?.number("limit")?.map(usize::try_from) {
        None => EVENTS,
        Some(Ok(limit @ 1..=MOST_EVENTS)) => limit,
        Some(_) => return Err(ApiProblem::bad_request(format!("limit is 1 to {MOST_EVENTS}"))),
    };
    let events = app.fleet.history(&appid, limit).ok_or_else(ApiProblem::unknown_account)?;
    Ok((JSON, json(&History { appid, events })).into_response())
}

pub(super) async fn stream(
    State(app): State<AppState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    caller.needs(Scope::Read)?;
    let appid = Query::of(&uri, &["appid"])?.text("appid").map(str::to_owned);
    if let Some(appid) = &appid {
        caller.deals_with(appid, &app.fleet, Scope::Read)?;
        app.fleet.snapshot(appid).ok_or_else(ApiProblem::unknown_account)?;
    }
    let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("unreadable"));
    // As it is sent by whoever has heard of no event yet.
    let last_event = last_event.filter(|id| !id.is_empty());
    let follow = app.fleet.follow(last_event);
    let opened = sse::Event::default().retry(COME_BACK);
    // Says that the stream is open, and from where it would go on before it has told anything. One that has missed
    // something must not go on from here before it has heard so.
    let opened = if follow.has_missed() { opened } else { opened.id(follow.id_of_place()) };
    let ear = Subscriber { app, caller, appid, follow, ready: VecDeque::new(), rested: Instant::now() };
    let told = stream::once(async { opened })
        .chain(stream::unfold(ear, async |mut ear| Some((ear.next().await?, ear))));
    // nginx would keep it until it has a page full.
    let headers = [("x-accel-buffering", "no"), (header::CACHE_CONTROL.as_str(), "no-store")];
    Ok((headers, Sse::new(told.map(Ok::<_, Infallible>))).into_response())
}

/// One who listens.
struct Subscriber {
    app: AppState,
    caller: Caller,
    /// The one account to hear of.
    appid: Option<String>,
    follow: Follow,
    ready: VecDeque<StreamMessage>,
    /// When the next events may be looked for.
    rested: Instant,
}

/// What a stream has to tell.
enum StreamMessage {
    Event(Arc<Event>),
    /// That some were missed; and the name of the last of them, behind which it goes on.
    Gap(String),
}

impl Subscriber {
    /// What is told next; nothing when the server stops, or does not let the key in any more.
    async fn next(&mut self) -> Option<sse::Event> {
        let silent_until = Instant::now() + KEEP_ALIVE;
        loop {
            let clients = self.app.clients.clone();
            // Before looking: an exchange in between must not be missed.
            let exchanged = clients.exchanged();
            let rights = self.caller.rights().ok().filter(|rights| rights.may(Scope::Read))?;
            // Only now, since a client that takes in slowly may have lost an account since it happened.
            while let Some(told) = self.ready.pop_front() {
                if let Some(told) = self.as_told_to(&rights, &told) {
                    return Some(told);
                }
            }
            let batch = async {
                sleep_until(self.rested).await;
                self.follow.next().await
            };
            let batch = tokio::select! {
                biased;
                () = self.app.stopping.cancelled() => return None,
                () = self.app.fleet.until_draining() => return None,
                () = exchanged => continue,
                batch = batch => batch,
                // Where it is: whoever has heard nothing for days would otherwise come back to a place that nobody
                // knows any more.
                () = sleep_until(silent_until) => {
                    return Some(sse::Event::default().id(self.follow.id_of_place()));
                }
            };
            self.rested = Instant::now() + TOGETHER;
            if batch.missed {
                self.ready.push_back(StreamMessage::Gap(batch.behind));
            }
            self.ready.extend(batch.events.into_iter().map(StreamMessage::Event));
        }
    }

    fn as_told_to(&self, rights: &Rights, told: &StreamMessage) -> Option<sse::Event> {
        let event = match told {
            StreamMessage::Gap(id) => return Some(sse::Event::default().id(id).event("gap").data("{}")),
            StreamMessage::Event(event) => event,
        };
        let is_told = event.is_streamed()
            && event.account.as_ref().is_none_or(|account| {
                rights.covers(account)
                    && self.appid.as_deref().is_none_or(|appid| account.appid.as_str() == appid)
            });
        let data = || serde_json::to_string(&**event).unwrap_or_default();
        is_told.then(|| sse::Event::default().id(self.follow.id(event)).event(event.name()).data(data()))
    }
}
