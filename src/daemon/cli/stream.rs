//! Follows a daemon's events across lost connections and restarts.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::client::DaemonClient;
use super::failure::Failure;
use crate::daemon::telemetry::logging;

/// The daemon sends something at least every 15 s. After this long the connection counts as lost.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// The delay before a lost connection is opened again.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// The stream of a daemon's events from now on.
pub(super) struct EventStream<'a> {
    client: &'a DaemonClient,
    query: Vec<(&'static str, &'a str)>,
    open: Option<Response>,
    buffer: Vec<u8>,
    last_event: Option<String>,
    was_open: bool,
    is_lost: bool,
}

/// An item of the stream.
#[derive(Debug)]
pub(super) enum StreamItem {
    /// The connection is open, initially or again. Data fetched earlier may be stale.
    Open,
    /// The connection was lost, for this reason. The next item is [`Self::Open`].
    Lost(String),
    /// An event.
    Event { name: String, data: Value },
}

impl<'a> EventStream<'a> {
    /// A stream of the events of all accounts, or of one.
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

    /// The next item. Fails if the daemon refuses or cannot be reached at all; a connection that is lost
    /// later is opened again. Await it to the end: dropping the future restarts its timeout and its delay.
    pub(super) async fn next(&mut self) -> Result<StreamItem, Failure> {
        loop {
            let Some(open) = &mut self.open else { return self.connect().await };
            if let Some(block) = take_block(&mut self.buffer) {
                if let Some(item) = self.read(&block) {
                    return Ok(item);
                }
                continue;
            }
            match timeout(SILENCE_TIMEOUT, open.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                // The stream has ended, failed or timed out.
                Ok(Ok(None) | Err(_)) | Err(_) => self.open = None,
            }
        }
    }

    /// Like [`Self::next`], for output in lines: messages on stderr say when the connection is lost and when
    /// it is back.
    pub(super) async fn next_reporting(&mut self) -> Result<StreamItem, Failure> {
        loop {
            let was_lost = self.is_lost;
            match self.next().await? {
                StreamItem::Lost(why) => {
                    logging::print_message(&format!("{why}\n  it is asked again until it is back\n"))
                }
                item => {
                    if was_lost {
                        logging::print_message("the daemon is back\n");
                    }
                    return Ok(item);
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
                    sleep(RECONNECT_DELAY).await;
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

/// Removes everything up to the first empty line and returns it.
fn take_block(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
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
        let (mut buffer, mut item) = (Vec::new(), Vec::new());
        for piece in text.chunks(7) {
            buffer.extend_from_slice(piece);
            while let Some(block) = take_block(&mut buffer) {
                item.extend(stream.read(&block));
            }
        }
        assert_eq!(stream.last_event.as_deref(), Some("1-3"));
        let [StreamItem::Event { name, data }] = &item[..] else { panic!("{item:?}") };
        assert_eq!((name.as_str(), &data["name"]), ("token", &Value::from("花店: a")));
    }

    #[tokio::test]
    async fn a_lost_connection_is_reported_once_and_made_again() {
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
        let (item, ()) = tokio::join!(stream.next(), answer(listener));
        assert!(matches!(item, Ok(StreamItem::Open)), "{item:?}");
        let item = stream.next().await;
        assert!(matches!(&item, Ok(StreamItem::Lost(why)) if why.contains("no answer from")), "{item:?}");
        let listener = TcpListener::bind(address).await.unwrap();
        let (item, ()) = tokio::join!(stream.next(), answer(listener));
        assert!(matches!(item, Ok(StreamItem::Open)), "{item:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_was_never_there_is_a_failure() {
        let client = crate::daemon::cli::client::tests::client("http://127.0.0.1:1", None);
        let failure = EventStream::new(&client, None).next().await.unwrap_err();
        assert!(failure.to_string().contains("is the daemon running?"), "{failure}");
    }
}
