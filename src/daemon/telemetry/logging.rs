//! Log lines to stderr, as text or JSON, without secrets.
//!
//! `RUST_LOG` selects which of *our* lines are logged; without it everything from `info` up is. Lines of
//! dependencies below `warn` are never logged, whatever `RUST_LOG` says: the classic endpoint carries the
//! AppSecret in its URL, and HTTP libraries print URLs and headers at `debug` and `trace`. The rule names our
//! targets and not theirs, so that it also covers a dependency that is added next year.

mod lines;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::{Level, Metadata, error, warn};
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, registry};
use wxtokend_core::clock::{ClockSource, SystemClock};

use crate::store;
use lines::Lines;

/// The queue of this process, once [`init`] has been called.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Starts logging, panics included. Call this once, before anything else.
///
/// # Errors
/// When the thread that writes the lines cannot be started.
pub(crate) fn init(format: Format) -> io::Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, misspelt) = match parse(&filter) {
        Ok(filter) => (filter, None),
        Err(error) => (everything_from_info(), Some(error)),
    };
    let lines = Lines::to_stderr()?;
    let layer = layer(format, filter, colour(&io::stderr()), lines.clone());
    let _ = LINES.set(lines);
    // Fails if the program already has a subscriber, which then gets our lines.
    let _ = tracing::subscriber::set_global_default(registry().with(layer));
    std::panic::set_hook(Box::new(report_panic));
    if let Some(error) = misspelt {
        warn!(event = "rust_log_ignored", %error, "RUST_LOG is no filter such as info or wxtokend=debug; logging from info up");
    }
    Ok(())
}

/// Prints a message that is not a log line to stderr, after the lines so far. Does not wait for it to be
/// read.
pub(crate) fn print_message(text: &str) {
    match LINES.get() {
        Some(lines) => lines.push(text.as_bytes()),
        // There is nowhere left to report a failure.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// How many lines have been dropped so far because stderr was not read.
pub(crate) fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// Waits until all lines are written, for `limit` at most.
pub(crate) fn flush(limit: Duration) {
    if let Some(lines) = LINES.get() {
        lines.flush(limit);
    }
}

/// Whether to colour output on `stream`: it is a terminal, and `NO_COLOR` is not set.
#[must_use]
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn everything_from_info() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

/// Filters by levels and targets, and not by spans and fields as `EnvFilter` can: that would pull in the
/// regular expression crates.
fn parse(filter: &str) -> Result<Targets, ParseError> {
    match filter.trim() {
        "" => Ok(everything_from_info()),
        filter => filter.parse(),
    }
}

/// Whether a line may be logged: ours at any level, those of dependencies from `warn` up.
fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target.strip_prefix("wxtokend").is_some_and(|rest| {
        rest.is_empty() || ["::", "_core::", "_sandbox"].iter().any(|part| rest.starts_with(part))
    });
    ours || *metadata.level() <= Level::WARN
}

fn layer<W>(format: Format, filter: Targets, colour: bool, to: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter.and(filter_fn(is_allowed));
    // Without internal errors: they are printed by `eprintln!`, which panics if stderr is closed.
    let lines = fmt::layer().with_writer(to).with_timer(Utc::default()).log_internal_errors(false);
    match format {
        Format::Text => lines.with_ansi(colour).with_target(false).with_filter(filter).boxed(),
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            lines.with_filter(filter).boxed()
        }
    }
}

/// RFC 3339 in UTC, to the millisecond.
#[derive(Default)]
struct Utc(SystemClock);

impl FormatTime for Utc {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        write!(to, "{:.3}", self.0.now().timestamp())
    }
}

/// Logs a panic as an ordinary line, with its location. The message is ours, so it contains no secret.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if store::is_reading() {
        // The file is damaged; this is not a bug. The resulting error says what to do.
        return;
    }
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    error!(
        event = "panicked",
        location,
        thread = thread.name(),
        "a bug of ours, please report it: {message}"
    );
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing::{debug, info, trace};

    use super::*;

    /// Captures the lines of a test.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn capture(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let to = captured.clone();
        let lines = registry().with(layer(format, parse(filter).unwrap(), false, move || to.clone()));
        tracing::subscriber::with_default(lines, log);
        let written = captured.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn whatever_the_filter_dependencies_log_nothing_below_warn() {
        for filter in ["", "trace", "hyper_util=trace", "reqwest=debug,wxtokend=trace", "wxtokendless=trace"]
        {
            let text = capture(Format::Text, filter, || {
                trace!(target: "hyper_util::client::legacy", "GET /cgi-bin/token?secret=hunter2");
                debug!(target: "reqwest::connect", "secret=hunter2");
                info!(target: "h2", "secret=hunter2");
                info!(target: "wxtokendless", "secret=hunter2");
                warn!(target: "wxtokend::fleet", "ours");
            });
            assert!(!text.contains("hunter2"), "{filter}: {text}");
        }
        assert!(capture(Format::Text, "", || warn!(target: "hyper", "theirs")).contains("theirs"));
    }

    #[test]
    fn spans_of_dependencies_stay_out_too() {
        let text = capture(Format::Text, "trace", || {
            let span = tracing::info_span!(target: "kameo::actor", "handler", message = "hunter2");
            span.in_scope(|| info!(target: "wxtokend::fleet", "ours"));
        });
        assert!(text.contains("ours") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_line_below_a_call_names_its_account_and_why_it_is_made() {
        let log = || {
            let span = tracing::info_span!(target: "wxtokend::fleet", "call", appid = "wx1", reason = "due");
            span.in_scope(|| info!(target: "wxtokend::wechat", "ours"));
        };
        let text = capture(Format::Text, "", log);
        assert!(text.contains("appid=\"wx1\"") && text.contains("reason=\"due\""), "{text}");
        let line: serde_json::Value = serde_json::from_str(&capture(Format::Json, "", log)).unwrap();
        assert_eq!(
            (&line["span"]["appid"], &line["span"]["reason"]),
            (&"wx1".into(), &"due".into()),
            "{line}"
        );
    }

    #[test]
    fn ours_are_logged_from_info_up_unless_more_is_wanted() {
        let log = || {
            debug!(target: "wxtokend::fleet", "details");
            info!(target: "wxtokend", "news");
        };
        let usual = capture(Format::Text, "", log);
        assert!(usual.contains("news") && !usual.contains("details"), "{usual}");
        assert!(capture(Format::Text, "wxtokend::fleet=debug", log).contains("details"));
        assert_eq!(capture(Format::Text, "off", log), "");
        assert!(parse("wxtokend=loud").is_err());
    }

    #[test]
    fn a_json_line_has_its_fields_a_message_and_a_utc_time() {
        let text =
            capture(Format::Json, "", || info!(target: "wxtokend", event = "started", accounts = 6, "hello"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((line["event"].as_str(), line["accounts"].as_u64()), (Some("started"), Some(6)));
        assert_eq!((line["message"].as_str(), line["level"].as_str()), (Some("hello"), Some("INFO")));
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-09-21T10:00:00.000Z".len(), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok());
    }
}
