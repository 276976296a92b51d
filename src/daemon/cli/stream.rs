//! Follows a daemon's events, over lost connections and restarts.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::client::DaemonClient;
use super::failure::Failure;
use crate::daemon::telemetry::logging;

/// The daemon says something at least every 15 s; after this long it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// The pause before a lost connection is made again.
const PAUSE: Duration = Duration::from_secs(2);

/// The events of a daemon from now on.
pub(super) struct EventStream<'a> {
    client: &'a DaemonClient,
    query: Vec<(&'static str, &'a str)>,
    open: Option<Response>,
    buffer: Vec<u8>,
    last_event: Option<String>,
    was_open: bool,
    is_lost: bool,
}

/// What a stream brings.
#[derive(Debug)]
pub(super) enum StreamItem {
    /// It is open, for the first time or again: what is known may be old.
    Open,
    /// There is no connection any more, for this reason; the next news is that it is open again.
    Lost(String),
    /// Something has happened.
    Event { name: String, data: Value },
}

impl<'a> EventStream<'a> {
    /// Of all accounts, or of one.
    pub(super) fn new(client: &'a DaemonClient, appid: Option<&'a str>) -> Self {
        let query = appid.into_iter().map(|appid| ("appid", appid)).collect();
        Self {
            client,
            query,
            open: None,
            buffer: Vec::new(),
            last_event: None,
            was_open: false,
            is_lost: false,
        }
    }

    /// The next news. Fails when the daemon refuses, and when it cannot be reached at all; a connection that is lost
    /// later is made again. To be awaited to its end: who asks anew begins its waits and pauses anew.
    pub(super) async fn next(&mut self) -> Result<StreamItem, Failure> {
        loop {
            let Some(open) = &mut self.open else { return self.connect().await };
            if let Some(block) = take_block(&mut self.buffer) {
                if let Some(news) = self.read(&block) {
                    return Ok(news);
                }
                continue;
            }
            match timeout(SILENCE, open.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                // Ended, broken or silent.
                Ok(Ok(None) | Err(_)) | Err(_) => self.open = None,
            }
        }
    }

    /// [`Self::next`] for those who write lines: a person is told that the connection is lost, and that it is back.
    pub(super) async fn next_telling(&mut self) -> Result<StreamItem, Failure> {
        loop {
            let was_lost = self.is_lost;
            match self.next().await? {
                StreamItem::Lost(why) => {
                    logging::tell(&format!("{why}\n  it is asked again until it is back\n"))
                }
                news => {
                    if was_lost {
                        logging::tell("the daemon is back\n");
                    }
                    return Ok(news);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<StreamItem, Failure> {
        self.buffer.clear();
        loop {
            let path = ["v1", "events"];
            match self.client.stream(&path, &self.query, self.last_event.as_deref()).await {
                Ok(open) => {
                    (self.was_open, self.is_lost) = (true, false);
                    self.open = Some(open);
                    return Ok(StreamItem::Open);
                }
                Err(Failure::Later(why)) if self.was_open => {
                    if !std::mem::replace(&mut self.is_lost, true) {
                        return Ok(StreamItem::Lost(why));
                    }
                    sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn read(&mut self, block: &str) -> Option<StreamItem> {
        let (mut name, mut data) = (None, None);
        for (field, value) in block.lines().filter_map(|line| line.split_once(':')) {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.last_event = Some(value.to_owned()),
                "event" => name = Some(value.to_owned()),
                "data" => data = serde_json::from_str(value).ok(),
                _ => {}
            }
        }
        Some(StreamItem::Event { name: name?, data: data? })
    }
}

/// What stands before the first empty line.
fn take_block(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(2).position(|two| two == b"\n\n")?;
    let block = buffer.drain(..end + 2).collect::<Vec<_>>();
    Some(String::from_utf8_lossy(&block).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_event_may_come_in_pieces_and_comments_are_passed_over() {
        let client = crate::daemon::cli::client::tests::client("http://127.0.0.1:1", None);
        let mut stream = EventStream::new(&client, None);
        let text =
            ":\n\nid: 1-2\nretry: 2000\n\nid: 1-3\nevent: token\ndata: {\"name\":\"花店: a\"}\n\n".as_bytes();
        let (mut buffer, mut news) = (Vec::new(), Vec::new());
        for piece in text.chunks(7) {
            buffer.extend_from_slice(piece);
            while let Some(block) = take_block(&mut buffer) {
                news.extend(stream.read(&block));
            }
        }
        assert_eq!(stream.last_event.as_deref(), Some("1-3"));
        let [StreamItem::Event { name, data }] = &news[..] else { panic!("{news:?}") };
        assert_eq!((name.as_str(), &data["name"]), ("token", &Value::from("花店: a")));
    }

    #[tokio::test]
    async fn a_lost_connection_is_told_once_and_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = async |listener: TcpListener| {
            let (mut connection, _) = listener.accept().await.unwrap();
            assert_ne!(connection.read(&mut [0; 4096]).await.unwrap(), 0);
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            connection.write_all(head).await.unwrap();
        };
        let client = crate::daemon::cli::client::tests::client(&format!("http://{address}"), None);
        let mut stream = EventStream::new(&client, None);
        let (news, ()) = tokio::join!(stream.next(), answer(listener));
        assert!(matches!(news, Ok(StreamItem::Open)), "{news:?}");
        let news = stream.next().await;
        assert!(matches!(&news, Ok(StreamItem::Lost(why)) if why.contains("no answer from")), "{news:?}");
        let listener = TcpListener::bind(address).await.unwrap();
        let (news, ()) = tokio::join!(stream.next(), answer(listener));
        assert!(matches!(news, Ok(StreamItem::Open)), "{news:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_was_never_there_is_a_failure() {
        let client = crate::daemon::cli::client::tests::client("http://127.0.0.1:1", None);
        let failure = EventStream::new(&client, None).next().await.unwrap_err();
        assert!(failure.to_string().contains("is the daemon running?"), "{failure}");
    }
}
