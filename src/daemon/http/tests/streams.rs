//! IDs of a stream's events, and resuming from them. On paused time and without sockets.

use super::access::{LabApi, PendingRequest};
use super::*;
use crate::fleet::tests::lab::{APPID, fill_journal};

/// The capacity of the journal.
const CAPACITY: usize = 65_536;

/// A stream of the events of one account, or of all.
struct StreamReader {
    request: PendingRequest,
    buffer: String,
}

/// The ID and the name of an event; empty if it has none.
type Block = (String, String);

impl StreamReader {
    async fn open(api: &LabApi, query: &str, last_event: &str) -> (Self, String) {
        let last_event =
            if last_event.is_empty() { String::new() } else { format!("Last-Event-ID: {last_event}\r\n") };
        let head = format!("GET /v1/events{query}\n{last_event}");
        let mut stream = Self { request: api.ask("", &head, "").await, buffer: String::new() };
        while !stream.buffer.contains("\r\n\r\n") {
            stream.read_more().await;
        }
        assert!(stream.buffer.starts_with("HTTP/1.1 200"), "{}", stream.buffer);
        let opening = stream.next().await;
        (stream, opening.0)
    }

    async fn read_more(&mut self) {
        let mut some = [0; 4096];
        let read = timeout(LONG, self.request.client.read(&mut some)).await.expect("news").unwrap();
        assert!(read > 0, "it ended: {}", self.buffer);
        self.buffer.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }

    /// The next block that is not empty.
    async fn next(&mut self) -> Block {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                return (field("id: "), field("event: "));
            }
            self.read_more().await;
        }
    }
}

fn number(id: &str) -> usize {
    id.split_once('-').unwrap_or_else(|| panic!("no id: {id:?}")).1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_resumes_after_a_gap_without_losing_the_next_event() {
    let api = LabApi::open(Vec::new()).await;
    let (first, place) = StreamReader::open(&api, "", "").await;
    drop(first);
    for _ in 0..CAPACITY + 300 {
        api.app.fleet.note_reload(true);
    }
    let (mut late, opened_at) = StreamReader::open(&api, "", &place).await;
    assert_eq!(opened_at, place, "whoever is lost now has missed as much as before");
    let (gap, name) = late.next().await;
    assert_eq!(name, "gap");
    let next = late.next().await;
    assert_eq!((number(&next.0), &*next.1), (number(&gap) + 1, "reload"));
    drop(late);
    let (mut again, _) = StreamReader::open(&api, "", &gap).await;
    assert_eq!(again.next().await, next, "none is lost, and there is no other gap");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_sent_its_position_and_has_missed_nothing_when_it_reconnects() {
    let api = LabApi::open(Vec::new()).await;
    // All accounts have tokens, and nothing is due for an hour.
    sleep(Duration::from_secs(60)).await;
    let (mut quiet, opened_at) = StreamReader::open(&api, "?appid=cold", "").await;
    let mut place = opened_at.clone();
    for _ in 0..3 {
        fill_journal(&api.lab.fleet, APPID, CAPACITY / 2);
        let before = tokio::time::Instant::now();
        let (id, name) = quiet.next().await;
        assert!(before.elapsed() <= Duration::from_secs(16), "{:?}", before.elapsed());
        assert_eq!((name.as_str(), number(&id)), ("", number(&place) + CAPACITY / 2));
        place = id;
    }
    drop(quiet);
    fill_journal(&api.lab.fleet, APPID, CAPACITY / 2);
    for (last_event, is_gap) in [(&place, false), (&opened_at, true)] {
        let (mut again, _) = StreamReader::open(&api, "?appid=cold", last_event).await;
        api.app.fleet.note_reload(true);
        let (_, name) = again.next().await;
        assert_eq!(name, if is_gap { "gap" } else { "reload" });
    }
}
