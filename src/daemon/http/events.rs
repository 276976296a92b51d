//! `GET /v1/events`, a live stream of events, and `GET /v1/accounts/{appid}/history`, past events.
//!
//! The stream uses server-sent events (`EventSource` in the HTML standard), which every language has a reader
//! for and every proxy lets through. A client that reconnects with `Last-Event-ID` resumes where it was. One
//! that has missed events receives a `gap` event, and should read the list of accounts again.

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
use super::rights::{Permission, Rights};
use crate::fleet::{Event, EventView, Follow};

/// Interval of keep-alive messages. Some proxies take a connection that is silent for longer to be dead. The
/// message is the stream's current position, without an event.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events within this time of the last batch are sent together, so that a busy fleet's events do not cost a
/// wake-up each.
const BATCH_WINDOW: Duration = Duration::from_millis(50);
/// The delay after which a disconnected client is asked to reconnect.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// Events in a history by default, and at most.
const DEFAULT_EVENTS: usize = 100;
const MAX_EVENTS: usize = 1000;

#[derive(Serialize)]
struct History {
    appid: String,
    /// Newest first.
    events: Vec<EventView>,
}

pub(super) async fn history(
    State(app): State<AppState>,
    caller: Caller,
    AppidPath(appid): AppidPath,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    caller.require_account(&appid, &app.fleet, Permission::Read)?;
    let limit = match Query::of(&uri, &["limit"])?.number("limit")?.map(usize::try_from) {
        None => DEFAULT_EVENTS,
        Some(Ok(limit @ 1..=MAX_EVENTS)) => limit,
        Some(_) => return Err(ApiProblem::bad_request(format!("limit is 1 to {MAX_EVENTS}"))),
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
    caller.require(Permission::Read)?;
    let appid = Query::of(&uri, &["appid"])?.text("appid").map(str::to_owned);
    if let Some(appid) = &appid {
        caller.require_account(appid, &app.fleet, Permission::Read)?;
        app.fleet.snapshot(appid).ok_or_else(ApiProblem::unknown_account)?;
    }
    let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("unreadable"));
    // Clients that have received no event yet send it empty.
    let last_event = last_event.filter(|id| !id.is_empty());
    let follow = app.fleet.follow(last_event);
    let opened = sse::Event::default().retry(RECONNECT_AFTER);
    // The first message shows that the stream is open and gives the position to resume from before any event
    // is sent. A client that has missed events must not resume from here before it knows of the gap.
    let opened = if follow.has_missed() { opened } else { opened.id(follow.id_of_place()) };
    let subscriber =
        Subscriber { app, caller, appid, follow, ready: VecDeque::new(), next_fetch: Instant::now() };
    let messages = stream::once(async { opened })
        .chain(stream::unfold(subscriber, async |mut subscriber| {
            Some((subscriber.next().await?, subscriber))
        }));
    // Without this header nginx buffers the stream until it has a full page.
    let headers = [("x-accel-buffering", "no"), (header::CACHE_CONTROL.as_str(), "no-store")];
    Ok((headers, Sse::new(messages.map(Ok::<_, Infallible>))).into_response())
}

/// One client of the stream.
struct Subscriber {
    app: AppState,
    caller: Caller,
    /// The one account to report; `None` for all.
    appid: Option<String>,
    follow: Follow,
    ready: VecDeque<StreamMessage>,
    /// Earliest time to fetch the next events.
    next_fetch: Instant,
}

/// A message to send on the stream.
enum StreamMessage {
    Event(Arc<Event>),
    /// Some events were missed. Holds the ID of the last of them, after which the stream goes on.
    Gap(String),
}

impl Subscriber {
    /// The next message; `None` when the server stops or the client's key is no longer valid.
    async fn next(&mut self) -> Option<sse::Event> {
        let silent_until = Instant::now() + KEEP_ALIVE;
        loop {
            let clients = self.app.clients.clone();
            // Subscribe before checking the rights, so that a replacement in between is not missed.
            let exchanged = clients.exchanged();
            let rights = self.caller.rights().ok().filter(|rights| rights.may(Permission::Read))?;
            // Filter only now: since the event happened, a slow client may have lost access to the account.
            while let Some(message) = self.ready.pop_front() {
                if let Some(message) = self.visible_event(&rights, &message) {
                    return Some(message);
                }
            }
            let batch = async {
                sleep_until(self.next_fetch).await;
                self.follow.next().await
            };
            let batch = tokio::select! {
                biased;
                () = self.app.stopping.cancelled() => return None,
                () = self.app.fleet.until_draining() => return None,
                () = exchanged => continue,
                batch = batch => batch,
                // Send the position: otherwise a client that received nothing for days would reconnect with a
                // position that is no longer in the journal.
                () = sleep_until(silent_until) => {
                    return Some(sse::Event::default().id(self.follow.id_of_place()));
                }
            };
            self.next_fetch = Instant::now() + BATCH_WINDOW;
            if batch.missed {
                self.ready.push_back(StreamMessage::Gap(batch.behind));
            }
            self.ready.extend(batch.events.into_iter().map(StreamMessage::Event));
        }
    }

    fn visible_event(&self, rights: &Rights, message: &StreamMessage) -> Option<sse::Event> {
        let event = match message {
            StreamMessage::Gap(id) => return Some(sse::Event::default().id(id).event("gap").data("{}")),
            StreamMessage::Event(event) => event,
        };
        let is_visible = event.is_streamed()
            && event.account.as_ref().is_none_or(|account| {
                rights.covers(account)
                    && self.appid.as_deref().is_none_or(|appid| account.appid.as_str() == appid)
            });
        let data = || serde_json::to_string(&EventView::of(event)).unwrap_or_default();
        is_visible.then(|| sse::Event::default().id(self.follow.id(event)).event(event.name()).data(data()))
    }
}
