//! The queue of log lines in front of stderr.
//!
//! Standard error may be a pipe that is not read, or a stopped terminal. A write then never returns, and
//! would block a worker of the runtime with all its tasks. So a single thread does all writing, and other
//! threads hand their lines to it. Lines that do not fit into the queue are dropped, and a later line gives
//! their number.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::{Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Some two thousand lines: a few seconds of the busiest fleet. The writing thread may hold as much again.
const CAPACITY: usize = 512 * 1024;

/// Lines that wait to be written. Clones share the queue.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<LinesInner>);

#[derive(Default)]
struct LinesInner {
    queue: Mutex<LineQueue>,
    /// Notified when lines are queued, and when all have been written.
    changed: Condvar,
}

#[derive(Default)]
struct LineQueue {
    /// Whole lines, concatenated.
    waiting: Vec<u8>,
    /// Lines dropped after those that wait.
    dropped_since: u64,
    /// Lines dropped since the start.
    dropped: u64,
    /// Whether lines were taken out that have not been written yet.
    writing: bool,
}

impl Lines {
    /// Starts the thread that writes lines to stderr.
    pub(super) fn to_stderr() -> io::Result<Self> {
        let lines = Self::default();
        let thread = std::thread::Builder::new().name("log".to_owned());
        let writer = lines.clone();
        thread.spawn(move || writer.write_to(Stderr))?;
        Ok(lines)
    }

    /// Queues a line, or several that belong together. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        // An empty queue takes a single message of any length, such as all problems of a large file.
        if queue.waiting.is_empty() || queue.waiting.len() + line.len() <= CAPACITY {
            queue.waiting.extend_from_slice(line);
            drop(queue);
            self.0.changed.notify_all();
        } else {
            queue.dropped_since += 1;
            queue.dropped += 1;
        }
    }

    /// Lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.queue().dropped
    }

    /// Waits until everything is written, for `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let unwritten = |queue: &mut LineQueue| queue.writing || !queue.waiting.is_empty();
        drop(self.0.changed.wait_timeout_while(self.queue(), limit, unwritten));
    }

    /// Writes queued lines forever.
    fn write_to(&self, mut out: impl Write) {
        let (mut lines, mut unreported) = (Vec::new(), 0);
        loop {
            let dropped_since = self.take(&mut lines);
            // Write each line by itself: if other programs write to the same pipe or file, their output then
            // comes between lines.
            let all = lines.split_inclusive(|byte| *byte == b'\n');
            let lost = all.filter(|line| out.write_all(line).is_err()).count() as u64;
            self.queue().dropped += lost;
            unreported += lost + dropped_since;
            // If writing fails, the notice would be lost as well.
            if unreported > 0 && lost == 0 {
                warn!(
                    event = "log_lines_dropped",
                    lines = unreported,
                    "{unreported} log lines are missing here: stderr was not read, or not fast enough"
                );
                unreported = 0;
            }
        }
    }

    /// Waits for lines, moves all of them into `lines`, and returns how many were dropped after them. Both
    /// buffers are reused alternately: allocating a new one each time would fragment the heap among
    /// long-lived account data.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        lines.shrink_to(CAPACITY / 8);
        let mut queue = self.queue();
        queue.writing = false;
        self.0.changed.notify_all();
        let nothing = |queue: &mut LineQueue| queue.waiting.is_empty();
        let mut queue = self.0.changed.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        std::mem::swap(&mut queue.waiting, lines);
        std::mem::take(&mut queue.dropped_since)
    }

    fn queue(&self) -> MutexGuard<'_, LineQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, is_notice: false }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, is_notice: of.target() == module_path!() }
    }
}

/// A writer for one line, which is written in one piece.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    /// Whether the line is the notice of dropped lines.
    is_notice: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_notice {
            // The notice goes to the front, where the lines are missing, whether or not there is room. It
            // comes from the writing thread, so nothing has to be woken.
            drop(self.lines.queue().waiting.splice(0..0, line.iter().copied()));
        } else {
            self.lines.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, which the parent process may have made non-blocking.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&io::stderr(), PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing::subscriber::with_default;

    use super::super::{Format, layer, parse};
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    const LONG: Duration = Duration::from_secs(30);

    /// A writer that waits for permission before each line: `true` lets the write succeed, anything else
    /// makes it fail.
    struct Reader {
        lines: Sender<String>,
        permissions: Receiver<bool>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.permissions.recv() {
                Ok(true) => {
                    self.lines.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
                    Ok(line.len())
                }
                _ => Err(ErrorKind::BrokenPipe.into()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue with a writing thread, the lines that it has written, and the sender that lets it write.
    fn lines() -> (Lines, Receiver<String>, Sender<bool>) {
        let (lines, (sent, written), (permit, permissions)) = (Lines::default(), channel(), channel());
        let (writer, log) = (lines.clone(), lines.clone());
        std::thread::spawn(move || {
            let subscriber = registry().with(layer(Format::Json, parse("").unwrap(), false, log));
            with_default(subscriber, || writer.write_to(Reader { lines: sent, permissions }));
        });
        (lines, written, permit)
    }

    fn line(n: usize) -> String {
        format!("{n:04} {}\n", "x".repeat(1_018))
    }

    fn parse_notice(line: &str) -> (String, u64) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["event"].as_str().unwrap().to_owned(), line["lines"].as_u64().unwrap())
    }

    #[test]
    fn lines_that_are_not_read_block_nothing_and_are_counted_and_reported_where_they_are_missing() {
        let (lines, written, permit) = lines();
        lines.push(b"first\n");
        // Wait until the thread has taken the line and is blocked.
        while !lines.queue().waiting.is_empty() {
            std::thread::yield_now();
        }
        for n in 0..1_000 {
            lines.push(line(n).as_bytes());
        }
        // Each line has 1024 bytes.
        assert_eq!((lines.dropped(), lines.queue().waiting.len()), (488, CAPACITY));
        lines.flush(Duration::from_millis(10));
        assert!(lines.queue().writing, "it is waited for in vain, and not for long");

        permit.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), "first\n");
        // Wait until it has taken all waiting lines, so that there is room again.
        while !lines.queue().waiting.is_empty() {
            std::thread::yield_now();
        }
        lines.push(b"last\n");
        for _ in 0..514 {
            permit.send(true).unwrap();
        }
        lines.flush(LONG);
        for n in 0..512 {
            assert_eq!(written.recv_timeout(LONG).unwrap(), line(n), "whole, and in their order");
        }
        assert_eq!(parse_notice(&written.recv_timeout(LONG).unwrap()), ("log_lines_dropped".to_owned(), 488));
        assert_eq!(written.recv_timeout(LONG).unwrap(), "last\n");
        assert!(written.try_recv().is_err(), "told once");
    }

    #[test]
    fn a_line_longer_than_all_the_room_is_written_when_nothing_else_waits() {
        let (lines, written, permit) = lines();
        let long = "x".repeat(2 * CAPACITY) + "\n";
        lines.push(long.as_bytes());
        permit.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), long);
    }

    #[test]
    fn lines_that_cannot_be_written_are_reported_once_others_can() {
        let (lines, written, permit) = lines();
        for n in 0..3 {
            lines.push(line(n).as_bytes());
            permit.send(false).unwrap();
        }
        lines.flush(LONG);
        assert_eq!(lines.dropped(), 3);
        lines.push(b"next\n");
        permit.send(true).unwrap();
        permit.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), "next\n");
        assert_eq!(parse_notice(&written.recv_timeout(LONG).unwrap()).1, 3);
    }
}
