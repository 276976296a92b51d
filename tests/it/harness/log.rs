//! The output of a process, line by line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// All lines so far. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>, Arc<watch::Sender<bool>>);

impl Log {
    /// Collects every line of `stream`.
    pub(crate) fn of(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let log = Self::default();
        let (lines, mut stuck) = (Arc::clone(&log.0), log.1.subscribe());
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream).lines();
            while let Ok(Some(line)) = stream.next_line().await {
                lines.lock().unwrap().push(line);
                // This fails once all handles are gone, and nothing can look at the lines any more.
                let _ = stuck.wait_for(|stuck| !stuck).await;
            }
        });
        log
    }

    /// Stops reading the stream, or resumes.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.1.send_replace(stuck);
    }

    /// The whole output.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// The JSON lines with this `event`, oldest first.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }

    /// The address of the API, or else of the sandbox, once a line of either format has announced it.
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
