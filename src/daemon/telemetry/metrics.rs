//! The metrics: what belongs to the whole program is kept in a registry, what belongs to an account is rendered
//! from its live state at the scrape.
//!
//! A registry could neither forget a removed account nor tell a token's age, and ten thousand accounts in it cost
//! more memory than everything else. What is summed up over the accounts is called `wxtokend_fleet_…`: it is all that
//! is left of them where they have no series of their own.

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
/// Each call connects anew, which is four round trips: 10 ms beside WeChat's hosts, most of 1 s from another
/// continent. What runs into the default timeout takes a little over 5 s, and so stands alone behind that.
const UPSTREAM_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// An fsync: below 1 ms on a disk with a cache that outlives power, 1 to 10 ms on flash, 10 to 50 ms on what spins or
/// is shared. Ten thousand records at once, or a disk that is about to fail, take up to seconds.
const STORE_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Answers out of memory take some 10 µs, or show by how much they do not; those that wait for WeChat take up to
/// seconds; long polls end a little after the 30 s or the 60 s that are asked for at most.
const HTTP_BUCKETS: [f64; 13] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 31.0, 61.0];

/// The registry and the text it is shown as. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// A reload may change it.
    per_account: Arc<ArcSwap<PerAccount>>,
}

/// The metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process has another recorder, which a program that embeds us has installed.
    #[error("set up the metrics: another recorder is installed in this process")]
    Taken,
    /// The exporter does not take our buckets.
    #[error("set up the histograms")]
    Histograms(#[from] metrics_exporter_prometheus::BuildError),
}

impl Metrics {
    /// A registry that the whole process records to. Opens no listener. To be called before the fleet is started.
    ///
    /// # Errors
    /// When the process has another recorder already.
    pub fn install() -> Result<Self, InstallError> {
        let metrics = Self::new(with_buckets()?);
        metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| InstallError::Taken)?;
        Ok(metrics)
    }

    /// A registry of its own, that only what is handed it records to.
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
            begin();
        });
        metrics.note_reload(true, SystemClock::new().now());
        metrics
    }

    /// From the next scrape on these accounts have series of their own.
    pub(crate) fn set_per_account(&self, accounts: PerAccount) {
        self.per_account.store(Arc::new(accounts));
    }

    /// Writes everything as Prometheus reads it, right at this instant, in parts of 64 KiB or so.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(&self, fleet: &Fleet, out: &mut dyn io::Write) -> io::Result<()> {
        let mut text = Exposition::to(out);
        text.families(&self.handle.render())?;
        let mut hosts = BTreeMap::new();
        for HostView { host, up, .. } in fleet.hosts() {
            // Base URLs may differ in their paths alone.
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
        text.end()
    }

    /// Notes how a reload of the configuration ended, and when.
    pub fn note_reload(&self, ok: bool, at: Moment) {
        with_local_recorder(&*self.recorder, || {
            gauge!("wxtokend_config_last_reload_successful").set(if ok { 1.0 } else { 0.0 });
            gauge!("wxtokend_config_last_reload_timestamp_seconds").set(text::seconds(at.wall_ms));
        });
    }

    /// Condenses what has been measured since the last time; until then each measurement takes memory.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Of all requests whose key was nobody's.
    pub(crate) fn wrong_keys(&self) -> Counter {
        with_local_recorder(&*self.recorder, || counter!(WRONG_KEYS))
    }

    /// The durations of requests to `route` that were answered with `status`.
    pub(crate) fn of_requests(&self, route: &'static str, status: u16) -> Histogram {
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

/// What has not happened yet shows as 0: a rate needs something to start from.
fn begin() {
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
