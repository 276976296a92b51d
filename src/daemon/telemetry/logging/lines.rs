//! The queue in front of stderr.
//!
//! Standard error may be a pipe that nobody reads, or a stopped terminal: then a write never returns, and whoever
//! writes a line stands there for ever, a worker of the runtime with all its tasks. So one thread does nothing else but
//! write, and all others hand their lines to it. What finds no room is dropped, and a line tells how many there were.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::{Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Some two thousand lines: a few seconds of the busiest fleet. As much again may be with the thread that writes.
const ROOM: usize = 512 * 1024;

/// Lines that wait to be written. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<LinesInner>);

#[derive(Default)]
struct LinesInner {
    queue: Mutex<LineQueue>,
    /// Something waits, or nothing does any more.
    changed: Condvar,
}

#[derive(Default)]
struct LineQueue {
    /// Whole lines, one behind the other.
    waiting: Vec<u8>,
    /// How many were dropped behind them.
    missing: u64,
    /// How many ever were.
    dropped: u64,
    /// Whether some were taken out and are not written yet.
    writing: bool,
}

impl Lines {
    /// Starts the thread that writes them to stderr.
    pub(super) fn to_stderr() -> io::Result<Self> {
        let lines = Self::default();
        let thread = std::thread::Builder::new().name("log".to_owned());
        let writer = lines.clone();
        thread.spawn(move || writer.write_to(Stderr))?;
        Ok(lines)
    }

    /// Queues a line, or several that belong together; never waits for whoever reads them.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        // Not even all of the room may be enough for a single one: the problems of a large file.
        if queue.waiting.is_empty() || queue.waiting.len() + line.len() <= ROOM {
            queue.waiting.extend_from_slice(line);
            drop(queue);
            self.0.changed.notify_all();
        } else {
            queue.missing += 1;
            queue.dropped += 1;
        }
    }

    /// How many were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.queue().dropped
    }

    /// Waits until everything is written, for `limit` at the most.
    pub(super) fn flush(&self, limit: Duration) {
        let unwritten = |queue: &mut LineQueue| queue.writing || !queue.waiting.is_empty();
        drop(self.0.changed.wait_timeout_while(self.queue(), limit, unwritten));
    }

    /// Writes them for ever.
    fn write_to(&self, mut out: impl Write) {
        let (mut lines, mut untold) = (Vec::new(), 0);
        loop {
            let missing = self.take(&mut lines);
            // Each by itself: where others write to the same pipe or file, theirs come between lines.
            let all = lines.split_inclusive(|byte| *byte == b'\n');
            let lost = all.filter(|line| out.write_all(line).is_err()).count() as u64;
            self.queue().dropped += lost;
            untold += lost + missing;
            // Nor does this one get through where nobody takes the others.
            if untold > 0 && lost == 0 {
                warn!(
                    event = "log_lines_dropped",
                    lines = untold,
                    "{untold} log lines are missing here: stderr was not read, or not fast enough"
                );
                untold = 0;
            }
        }
    }

    /// Waits for lines; puts all there are into `lines`, whose room the next ones get, and says how many were dropped behind
    /// them. Two buffers take turns: one that is new each time leaves holes among what accounts keep.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        lines.shrink_to(ROOM / 8);
        let mut queue = self.queue();
        queue.writing = false;
        self.0.changed.notify_all();
        let nothing = |queue: &mut LineQueue| queue.waiting.is_empty();
        let mut queue = self.0.changed.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        std::mem::swap(&mut queue.waiting, lines);
        std::mem::take(&mut queue.missing)
    }

    fn queue(&self) -> MutexGuard<'_, LineQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, of_missing: false }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, of_missing: of.target() == module_path!() }
    }
}

/// Takes a line, which comes in one piece.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    /// Whether it tells of those that are missing.
    of_missing: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.of_missing {
            // Where they are missing, and whether there is room or not. It is the writing thread's, which is awake.
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

/// Standard error, which whoever started us may have made non-blocking.
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

    /// Hands each line over, and takes the next when it is told that the reader reads, and whether that works.
    struct Reader {
        lines: Sender<String>,
        reads: Receiver<bool>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.reads.recv() {
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

    /// Lines that a thread writes; what it has written; lets it write.
    fn lines() -> (Lines, Receiver<String>, Sender<bool>) {
        let (lines, (sent, written), (read, reads)) = (Lines::default(), channel(), channel());
        let (writer, told) = (lines.clone(), lines.clone());
        std::thread::spawn(move || {
            let told = registry().with(layer(Format::Json, parse("").unwrap(), false, told));
            with_default(told, || writer.write_to(Reader { lines: sent, reads }));
        });
        (lines, written, read)
    }

    fn line(n: usize) -> String {
        format!("{n:04} {}\n", "x".repeat(1_018))
    }

    fn told(line: &str) -> (String, u64) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["event"].as_str().unwrap().to_owned(), line["lines"].as_u64().unwrap())
    }

    #[test]
    fn lines_that_nobody_reads_hold_up_nobody_and_are_counted_and_told_where_they_are_missing() {
        let (lines, written, read) = lines();
        lines.push(b"first\n");
        // Taken out by the thread, which stands there.
        while !lines.queue().waiting.is_empty() {
            std::thread::yield_now();
        }
        for n in 0..1_000 {
            lines.push(line(n).as_bytes());
        }
        // 1024 bytes each.
        assert_eq!((lines.dropped(), lines.queue().waiting.len()), (488, ROOM));
        lines.flush(Duration::from_millis(10));
        assert!(lines.queue().writing, "it is waited for in vain, and not for long");

        read.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), "first\n");
        // It has taken all that waited: there is room again.
        while !lines.queue().waiting.is_empty() {
            std::thread::yield_now();
        }
        lines.push(b"last\n");
        for _ in 0..514 {
            read.send(true).unwrap();
        }
        lines.flush(LONG);
        for n in 0..512 {
            assert_eq!(written.recv_timeout(LONG).unwrap(), line(n), "whole, and in their order");
        }
        assert_eq!(told(&written.recv_timeout(LONG).unwrap()), ("log_lines_dropped".to_owned(), 488));
        assert_eq!(written.recv_timeout(LONG).unwrap(), "last\n");
        assert!(written.try_recv().is_err(), "told once");
    }

    #[test]
    fn a_line_longer_than_all_the_room_is_written_when_nothing_else_waits() {
        let (lines, written, read) = lines();
        let long = "x".repeat(2 * ROOM) + "\n";
        lines.push(long.as_bytes());
        read.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), long);
    }

    #[test]
    fn lines_that_cannot_be_written_are_told_once_others_can() {
        let (lines, written, read) = lines();
        for n in 0..3 {
            lines.push(line(n).as_bytes());
            read.send(false).unwrap();
        }
        lines.flush(LONG);
        assert_eq!(lines.dropped(), 3);
        lines.push(b"next\n");
        read.send(true).unwrap();
        read.send(true).unwrap();
        assert_eq!(written.recv_timeout(LONG).unwrap(), "next\n");
        assert_eq!(told(&written.recv_timeout(LONG).unwrap()).1, 3);
    }
}
