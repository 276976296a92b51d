//! What a process has written, line by line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// All lines so far. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>, Arc<watch::Sender<bool>>);

impl Log {
    /// Keeps every line that comes out of `stream`.
    pub(crate) fn of(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let log = Self::default();
        let (lines, mut stuck) = (Arc::clone(&log.0), log.1.subscribe());
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream).lines();
            while let Ok(Some(line)) = stream.next_line().await {
                lines.lock().unwrap().push(line);
                // Without a sender nobody can look at what is read any more.
                let _ = stuck.wait_for(|stuck| !stuck).await;
            }
        });
        log
    }

    /// From now on nobody reads the stream, or somebody does again.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.1.send_replace(stuck);
    }

    /// Everything, as it was written.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// The JSON lines that carry `event`, oldest first.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }

    /// Where the API listens, or else the simulated WeChat, once a line of either format has said so.
    pub(crate) fn started_at(&self) -> Option<SocketAddr> {
        if let Some(line) = self.events("started").pop() {
            let address = if line["api"].is_null() { &line["sandbox"] } else { &line["api"] };
            return Some(address.as_str()?.parse().unwrap());
        }
        let lines = self.0.lock().unwrap();
        let line = lines.iter().find(|line| line.contains("event=\"started\""))?;
        let word = line.split(' ').find_map(|word| word.strip_prefix("api="));
        word.map(|address| address.parse().unwrap())
    }
}
