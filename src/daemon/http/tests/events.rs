//! The event stream and the histories, on real sockets.

use reqwest::Response;

use super::*;

/// A client of a stream, which reads one event at a time.
struct StreamReader {
    answer: Response,
    buffer: String,
    /// The position of the stream before any event was sent.
    opened_at: Option<String>,
}

#[derive(Debug, Default)]
struct ReceivedEvent {
    name: String,
    id: String,
    data: Value,
}

impl Rig {
    async fn listen(&self, key: &str, path: &str, last_event: Option<&str>) -> StreamReader {
        let mut call = self.http.get(format!("http://{}{path}", self.address));
        if !key.is_empty() {
            call = call.bearer_auth(key);
        }
        if let Some(id) = last_event {
            call = call.header("last-event-id", id);
        }
        let answer = timeout(LONG, call.send()).await.expect("a head").unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut stream = StreamReader { answer, buffer: String::new(), opened_at: None };
        let opening = stream.block().await.expect("what opens it");
        assert!(opening.contains("retry:"), "{opening:?}");
        stream.opened_at = opening.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
        stream
    }
}

impl StreamReader {
    /// The next lines up to an empty one; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let chunk = timeout(LONG, self.answer.chunk()).await.expect("news").ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event.
    async fn next(&mut self) -> Option<ReceivedEvent> {
        loop {
            let block = self.block().await?;
            let mut event = ReceivedEvent::default();
            for (field, value) in block.lines().filter_map(|line| line.split_once(':')) {
                match field {
                    "event" => value.trim().clone_into(&mut event.name),
                    "id" => value.trim().clone_into(&mut event.id),
                    "data" => event.data = serde_json::from_str(value).unwrap(),
                    _ => {}
                }
            }
            if !event.name.is_empty() {
                return Some(event);
            }
        }
    }

    /// The next event with this name.
    async fn next_named(&mut self, name: &str) -> ReceivedEvent {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("it ended without {name}"));
            if event.name == name {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn tokens_states_and_reloads_are_streamed_as_they_happen_without_any_token() {
    let rig = Rig::start(TestApi::default()).await;
    let mut stream = rig.listen("", "/v1/events", None).await;
    let old = rig.fleet.token("wx1").await.unwrap();
    rig.fleet.refresh("wx1", true).await.unwrap();
    let token = stream.next_named("token").await;
    assert_eq!(token.data["appid"], "wx1");
    assert_eq!(token.data["version"], old.version() + 1);
    let view = rig.get("/v1/accounts/wx1").await.json();
    assert_eq!(token.data["expires_at"], view["expires_at"]);
    assert!(token.data.get("access_token").is_none() && !rig.leaks(&token.data.to_string()), "{token:?}");
    rig.sandbox.inject(Some(&id("wx2")), Fault::errcode(40164));
    rig.fleet.refresh("wx2", false).await.unwrap();
    let state = loop {
        let state = stream.next_named("state").await;
        if state.data["state"] == "parked" {
            break state;
        }
    };
    assert_eq!((&state.data["appid"], &state.data["last_fault"]["errcode"]), (&"wx2".into(), &40164.into()));
    rig.reload(vec![account("wx1")]).await;
    assert_eq!(stream.next_named("reload").await.data["successful"], true);
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_and_says_so_where_it_cannot() {
    let rig = Rig::start(TestApi::default()).await;
    // Otherwise a second forced call would have to wait.
    rig.sandbox.set_switches(Switches { dead_stable_replaced: true, ..Switches::default() });
    let mut stream = rig.listen("", "/v1/events?appid=wx1", None).await;
    rig.fleet.refresh("wx1", true).await.unwrap();
    let first = stream.next_named("token").await;
    drop(stream);
    rig.sandbox.kill_tokens(&id("wx1"));
    let dead = rig.token_of("wx1").await;
    assert_eq!(rig.reject("wx1", &dead).await.json()["outcome"], "refreshed");
    let mut again = rig.listen("", "/v1/events?appid=wx1", Some(&first.id)).await;
    let missed = again.next_named("token").await;
    assert_eq!(missed.data["version"].as_u64(), first.data["version"].as_u64().map(|version| version + 1));
    for not_local in ["1-1", "nonsense", "0-0", "-"] {
        let mut other = rig.listen("", "/v1/events", Some(not_local)).await;
        assert_eq!(
            other.opened_at, None,
            "who loses it before it has heard of the gap must hear of it later"
        );
        let gap = other.next().await.unwrap();
        assert_eq!(gap.name, "gap", "{not_local}");
        drop(other);
        // The stream goes on after the gap, without another gap.
        rig.fleet.note_reload(true);
        let mut again = rig.listen("", "/v1/events?appid=wx1", Some(&gap.id)).await;
        assert_eq!(again.opened_at.as_deref(), Some(&*gap.id));
        assert_eq!(again.next().await.unwrap().name, "reload");
    }
    for nothing in [None, Some("")] {
        let mut new = rig.listen("", "/v1/events", nothing).await;
        assert!(new.opened_at.is_some());
        rig.fleet.note_reload(true);
        assert_eq!(new.next().await.unwrap().name, "reload", "{nothing:?}: it has heard of nothing before");
    }
}

#[tokio::test]
async fn a_client_gets_events_of_its_own_accounts_only() {
    let clients =
        vec![client("one", &["wx1"], READ), client("all", &["*"], READ), client("none", &["*"], ADMIN)];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    let mut event = rig.listen("one", "/v1/events", None).await;
    let mut all = rig.listen("all", "/v1/events", None).await;
    let mut second = rig.listen("all", "/v1/events?appid=wx2", None).await;
    rig.fleet.refresh("wx2", true).await.unwrap();
    rig.fleet.refresh("wx1", true).await.unwrap();
    assert_eq!(event.next_named("token").await.data["appid"], "wx1");
    assert_eq!(all.next_named("token").await.data["appid"], "wx2");
    assert_eq!(all.next_named("token").await.data["appid"], "wx1");
    rig.fleet.refresh("wx2", true).await.unwrap();
    assert_eq!(second.next_named("token").await.data["appid"], "wx2");
    for (key, path, code) in [
        ("none", "/v1/events", "forbidden"),
        ("one", "/v1/events?appid=wx2", "forbidden"),
        ("one", "/v1/events?appid=wx3", "forbidden"),
        ("all", "/v1/events?appid=wx3", "unknown_account"),
        ("all", "/v1/events?appids=wx1", "bad_request"),
        ("wrong", "/v1/events", "unauthorized"),
        ("one", "/v1/accounts/wx2/history", "forbidden"),
        ("none", "/v1/accounts/wx1/history", "forbidden"),
        ("all", "/v1/accounts/wx3/history", "unknown_account"),
        ("all", "/v1/accounts/wx1/history?limit=0", "bad_request"),
        ("all", "/v1/accounts/wx1/history?limit=1001", "bad_request"),
    ] {
        rig.is_problem(&rig.get_as(key, path).await, code);
    }
}

#[tokio::test]
async fn a_stream_follows_its_keys_grants_and_ends_with_the_key() {
    let rig =
        Rig::start(TestApi { clients: vec![client("key", &["wx1"], READ)], ..TestApi::default() }).await;
    let mut stream = rig.listen("key", "/v1/events", None).await;
    rig.clients.set(vec![client("key", &["wx2"], READ)]);
    // The next event shows whether the stream has seen the new list of clients.
    rig.fleet.refresh("wx1", true).await.unwrap();
    rig.fleet.refresh("wx2", true).await.unwrap();
    assert_eq!(stream.next_named("token").await.data["appid"], "wx2");
    for clients in [vec![client("other", &["*"], READ)], vec![client("key", &["wx2"], ADMIN)], Vec::new()] {
        rig.clients.set(vec![client("key", &["wx2"], READ)]);
        let mut stream = rig.listen("key", "/v1/events", None).await;
        rig.clients.set(clients);
        assert!(stream.next().await.is_none(), "its key does not open it any more");
    }
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams() {
    let rig = Rig::start(TestApi::default()).await;
    let mut stream = rig.listen("", "/v1/events", None).await;
    rig.stop.cancel();
    assert!(stream.next().await.is_none());
    timeout(LONG, rig.served).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_history_is_newest_first_and_as_long_as_asked_for() {
    let clients = vec![client("crm", &["wx1"], Allow::ALL)];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    let has_token = || rig.fleet.history("wx1", 10).unwrap().iter().any(|event| event.event == "token");
    until("its token is history", has_token).await;
    let body = serde_json::json!({ "access_token": "an older one" }).to_string();
    let headers = [("authorization", "Bearer crm"), ("content-type", "application/json")];
    let answer = rig.call("POST", "/v1/accounts/wx1/token/reject", &headers, &body).await;
    assert_eq!(answer.json()["outcome"], "superseded");
    let history = rig.get_as("crm", "/v1/accounts/wx1/history").await;
    let json = history.json();
    let events = json["events"].as_array().unwrap();
    assert_eq!(json["appid"], "wx1");
    assert_eq!((&events[0]["event"], &events[0]["by"]), (&"rejection".into(), &"crm".into()), "{history:?}");
    assert!(events.iter().any(|event| event["event"] == "token"), "{history:?}");
    let at = |event: &Value| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(events.is_sorted_by(|a, b| at(a) >= at(b)), "{history:?}");
    assert!(!rig.leaks(&history.body) && !history.body.contains("an older one"), "{history:?}");
    let short = rig.get_as("crm", "/v1/accounts/wx1/history?limit=1").await.json();
    assert_eq!(short["events"].as_array().unwrap(), &events[..1]);
}
