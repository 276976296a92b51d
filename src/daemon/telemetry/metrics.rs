//! Metrics. Those of the whole program are kept in a registry, and those of accounts are rendered from live
//! state at the scrape.
//!
//! A registry could neither forget a removed account nor show a token's age, and ten thousand accounts in it
//! took more memory than everything else. Sums over accounts are called `wxtokend_fleet_…`: they are the only
//! metrics of accounts without series of their own.

mod accounts;
mod process;
mod row;
mod sinks;
mod text;
mod tickets;
mod totals;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{
    Counter, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use wxtokend_core::clock::{ClockSource, Moment, SystemClock};

use crate::config::PerAccount;
use crate::daemon::telemetry::logging;
use crate::fleet::{Fleet, HostView};
use text::Exposition;

const UPSTREAM_REQUEST: &str = "wxtokend_upstream_request_duration_seconds";
const STORE_COMMIT: &str = "wxtokend_store_commit_duration_seconds";
const HTTP_REQUEST: &str = "wxtokend_http_request_duration_seconds";
const WRONG_KEYS: &str = "wxtokend_wrong_keys_total";
/// Each call opens a connection, which takes four round trips: 10 ms in all near WeChat's hosts, nearly 1 s
/// from another continent. A call that hits the default timeout takes a little over 5 s, and is alone in the
/// bucket above that.
const UPSTREAM_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// An fsync takes less than 1 ms on a disk with a power-protected cache, 1 to 10 ms on flash, and 10 to 50 ms
/// on a rotating or shared disk. Ten thousand records at once, or a failing disk, take up to seconds.
const STORE_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Answers from memory take some 10 µs; the smallest buckets show any slowdown. Those that wait for WeChat
/// take up to seconds. Long polls end a little after 30 s, the default, or 60 s, the maximum.
const HTTP_BUCKETS: [f64; 13] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 31.0, 61.0];

/// The registry of metrics, and their rendering as text. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// May be changed by a reload.
    per_account: Arc<ArcSwap<PerAccount>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process already has another recorder, installed by a program that embeds us.
    #[error("set up the metrics: another recorder is installed in this process")]
    Taken,
    /// The exporter does not accept our buckets.
    #[error("set up the histograms")]
    Histograms(#[from] metrics_exporter_prometheus::BuildError),
}

impl Metrics {
    /// A registry that the whole process records to. Opens no listener. Call this before starting the fleet.
    ///
    /// # Errors
    /// When the process already has another recorder.
    pub fn install() -> Result<Self, InstallError> {
        let metrics = Self::new(with_buckets()?);
        metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| InstallError::Taken)?;
        Ok(metrics)
    }

    /// A registry of its own: it records only what is passed to it.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(with_buckets().unwrap_or_default())
    }

    fn new(builder: PrometheusBuilder) -> Self {
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder: Arc::new(recorder), handle, per_account: Arc::default() };
        with_local_recorder(&*metrics.recorder, || {
            describe();
            zero_counters();
        });
        metrics.note_reload(true, SystemClock::new().now());
        metrics
    }

    /// Sets which accounts have series of their own, from the next scrape on.
    pub(crate) fn set_per_account(&self, accounts: PerAccount) {
        self.per_account.store(Arc::new(accounts));
    }

    /// Writes the current values in Prometheus' text format, in parts of about 64 KiB.
    ///
    /// # Errors
    /// Errors of `out`.
    pub(crate) fn write(&self, fleet: &Fleet, out: &mut dyn io::Write) -> io::Result<()> {
        let mut text = Exposition::to(out);
        text.families(&self.handle.render())?;
        let mut hosts = BTreeMap::new();
        for HostView { host, up, .. } in fleet.hosts() {
            // Several base URLs may have the same host and differ only in the path.
            *hosts.entry(host).or_insert(false) |= up;
        }
        text.family("wxtokend_upstream_host_up", "gauge", "Whether the host is not known to be down.")?;
        for (host, up) in &hosts {
            text.sample("wxtokend_upstream_host_up", &[("host", host)], u8::from(*up))?;
        }
        sinks::write(&mut text, &fleet.sinks())?;
        let name = "wxtokend_log_lines_dropped_total";
        text.family(
            name,
            "counter",
            "Log lines that were dropped, since nobody read stderr, or not fast enough.",
        )?;
        text.sample(name, &[], logging::dropped())?;
        process::write(&mut text)?;
        accounts::write(&mut text, fleet, **self.per_account.load())?;
        text.finish()
    }

    /// Records how and when a reload of the configuration ended.
    pub fn note_reload(&self, ok: bool, at: Moment) {
        with_local_recorder(&*self.recorder, || {
            gauge!("wxtokend_config_last_reload_successful").set(if ok { 1.0 } else { 0.0 });
            gauge!("wxtokend_config_last_reload_timestamp_seconds").set(text::seconds(at.wall_ms));
        });
    }

    /// Drains histogram samples into buckets. Until then each sample takes memory.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts requests with a key that no client has.
    pub(crate) fn wrong_keys(&self) -> Counter {
        with_local_recorder(&*self.recorder, || counter!(WRONG_KEYS))
    }

    /// Durations of requests to `route` that were answered with `status`.
    pub(crate) fn request_durations(&self, route: &'static str, status: u16) -> Histogram {
        let status = SharedString::from(status.to_string());
        with_local_recorder(
            &*self.recorder,
            || histogram!(HTTP_REQUEST, "route" => route, "status" => status),
        )
    }
}

fn with_buckets() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(full(UPSTREAM_REQUEST), &UPSTREAM_BUCKETS)?
        .set_buckets_for_metric(full(STORE_COMMIT), &STORE_BUCKETS)?
        .set_buckets_for_metric(full(HTTP_REQUEST), &HTTP_BUCKETS)
}

fn describe() {
    describe_histogram!(
        UPSTREAM_REQUEST,
        Unit::Seconds,
        "Time that calls of WeChat took, each try by itself."
    );
    describe_histogram!(STORE_COMMIT, Unit::Seconds, "Time that writing to the store took.");
    describe_histogram!(HTTP_REQUEST, Unit::Seconds, "Time until answers of the API began, waits included.");
    describe_gauge!("wxtokend_upstream_in_flight", Unit::Count, "Calls of WeChat under way.");
    describe_counter!("wxtokend_actor_restarts_total", Unit::Count, "Crashes of accounts' actors: bugs.");
    describe_counter!(
        "wxtokend_token_reads_total",
        Unit::Count,
        "Reads of tokens by how they were answered."
    );
    describe_counter!(
        "wxtokend_ticket_reads_total",
        Unit::Count,
        "Reads of tickets by how they were answered."
    );
    describe_counter!(WRONG_KEYS, Unit::Count, "Requests that came with a key of nobody's.");
    describe_counter!("wxtokend_store_errors_total", Unit::Count, "Writes to the store that failed.");
    describe_gauge!(
        "wxtokend_config_last_reload_successful",
        Unit::Count,
        "Whether the configuration was taken when it was last read."
    );
    describe_gauge!(
        "wxtokend_config_last_reload_timestamp_seconds",
        Unit::Seconds,
        "When the configuration was last read, in unix time."
    );
    describe_gauge!(
        "wxtokend_clock_skew_seconds",
        Unit::Seconds,
        "By how much WeChat's clock is ahead of ours, to the second."
    );
    describe_gauge!("wxtokend_build_info", Unit::Count, "The version that runs.");
}

/// Sets counters of events that have not happened yet to 0, since a rate needs an initial value.
fn zero_counters() {
    gauge!("wxtokend_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("wxtokend_upstream_in_flight").set(0.0);
    counter!("wxtokend_actor_restarts_total").absolute(0);
    counter!("wxtokend_store_errors_total").absolute(0);
    counter!(WRONG_KEYS).absolute(0);
    for outcome in ["served", "unavailable", "unknown_account"] {
        counter!("wxtokend_token_reads_total", "outcome" => outcome).absolute(0);
        counter!("wxtokend_ticket_reads_total", "outcome" => outcome).absolute(0);
    }
    drop(histogram!(STORE_COMMIT));
    for endpoint in ["stable_token", "token", "check", "ticket"] {
        drop(histogram!(UPSTREAM_REQUEST, "endpoint" => endpoint));
    }
}
