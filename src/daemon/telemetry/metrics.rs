//! Metrics. Those of the whole program are kept in a registry, and those of accounts are rendered from live
//! state at the scrape.
//!
//! A registry could neither forget a removed account nor show a token's age, and ten thousand accounts in it
//! took more memory than everything else. Sums over accounts are called `wxtokend_fleet_…`: they are the only
//! metrics of accounts without series of their own.

mod accounts;
mod process;
mod row;
#[cfg(feature = "redis")]
mod sinks;
mod text;
mod tickets;
mod totals;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{
    Counter, Histogram, SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::sleep;
use wxtokend_core::clock::{ClockSource, Moment, SystemClock};
use wxtokend_core::reference;
use wxtokend_core::reference::metrics::{
    ACTOR_RESTARTS, BUILD_INFO, CONFIG_RELOAD_SUCCESSFUL, CONFIG_RELOAD_TIME, HINTS, HTTP_REQUEST_DURATION,
    Metric, MetricKind, PROXY_CALLS, STORE_COMMIT_DURATION, STORE_ERRORS, TICKET_READS, TOKEN_READS,
    UPSTREAM_HOST_UP, UPSTREAM_IN_FLIGHT, UPSTREAM_REQUEST_DURATION, WRONG_KEYS,
};
use wxtokend_core::token::state::{HintSource, HintVerdict};

use crate::config::PerAccount;
#[cfg(feature = "daemon")]
use crate::daemon::telemetry::logging;
use crate::fleet::{Fleet, HostView};
use text::Exposition;

/// How often histograms are drained; a busy server collects a megabyte of samples in this time.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

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
    /// A registry that the whole process records to. Opens no listener. Call this before starting the fleet, in
    /// the tokio runtime that goes on for as long as the program: a task of it keeps the samples from piling up.
    ///
    /// # Errors
    /// When the process already has another recorder.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn install() -> Result<Self, InstallError> {
        let metrics = Self::new(with_buckets()?);
        metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| InstallError::Taken)?;
        Ok(metrics)
    }

    /// A registry of its own: it records only what is passed to it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(with_buckets().unwrap_or_default())
    }

    fn new(builder: PrometheusBuilder) -> Self {
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder: Arc::new(recorder), handle };
        tokio::spawn(drain_histograms(Arc::downgrade(&metrics.recorder)));
        with_local_recorder(&*metrics.recorder, || {
            describe();
            zero_counters();
        });
        metrics.note_reload(true, SystemClock::new().now());
        metrics
    }

    /// Writes the current values in Prometheus' text format, in parts of about 64 KiB, with series of their own for
    /// these accounts.
    ///
    /// # Errors
    /// Errors of `out`.
    pub(crate) fn write(
        &self,
        fleet: &Fleet,
        accounts: PerAccount,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let mut text = Exposition::to(out);
        text.families(&self.handle.render())?;
        let mut hosts = BTreeMap::new();
        for HostView { host, up, .. } in fleet.hosts() {
            // Several base URLs may have the same host and differ only in the path.
            *hosts.entry(host).or_insert(false) |= up;
        }
        text.family(&UPSTREAM_HOST_UP)?;
        for (host, up) in &hosts {
            text.sample(&UPSTREAM_HOST_UP, &[("host", host)], u8::from(*up))?;
        }
        #[cfg(feature = "redis")]
        sinks::write(&mut text, &fleet.sinks())?;
        #[cfg(feature = "daemon")]
        {
            use wxtokend_core::reference::metrics::LOG_LINES_DROPPED;

            text.family(&LOG_LINES_DROPPED)?;
            text.sample(&LOG_LINES_DROPPED, &[], logging::dropped())?;
        }
        process::write(&mut text)?;
        accounts::write(&mut text, fleet, accounts)?;
        text.finish()
    }

    /// Records how and when a reload of the configuration ended.
    pub fn note_reload(&self, ok: bool, at: Moment) {
        with_local_recorder(&*self.recorder, || {
            gauge!(CONFIG_RELOAD_SUCCESSFUL.name).set(if ok { 1.0 } else { 0.0 });
            gauge!(CONFIG_RELOAD_TIME.name).set(text::seconds(at.wall_ms));
        });
    }

    /// Counts requests with a key that no client has.
    pub(crate) fn wrong_keys(&self) -> Counter {
        with_local_recorder(&*self.recorder, || counter!(WRONG_KEYS.name))
    }

    /// Counts calls that were to be passed on, with one outcome.
    pub(crate) fn proxy_calls(&self, outcome: &'static str) -> Counter {
        with_local_recorder(&*self.recorder, || counter!(PROXY_CALLS.name, "outcome" => outcome))
    }

    /// Durations of requests to `route` that were answered with `status`.
    pub(crate) fn request_durations(&self, route: &'static str, status: u16) -> Histogram {
        let status = SharedString::from(status.to_string());
        with_local_recorder(
            &*self.recorder,
            || histogram!(HTTP_REQUEST_DURATION.name, "route" => route, "status" => status),
        )
    }
}

/// Drains the samples of histograms into buckets now and then, as each takes memory until then, for as long as the
/// registry is there.
async fn drain_histograms(recorder: Weak<PrometheusRecorder>) {
    loop {
        sleep(UPKEEP_INTERVAL).await;
        let Some(recorder) = recorder.upgrade() else { return };
        recorder.handle().run_upkeep();
    }
}

fn with_buckets() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let of = |metric: &Metric| Matcher::Full(metric.name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(of(&UPSTREAM_REQUEST_DURATION), &UPSTREAM_BUCKETS)?
        .set_buckets_for_metric(of(&STORE_COMMIT_DURATION), &STORE_BUCKETS)?
        .set_buckets_for_metric(of(&HTTP_REQUEST_DURATION), &HTTP_BUCKETS)
}

/// Gives each metric its help text, which a scrape shows of those that are kept in the registry.
fn describe() {
    for Metric { name, kind, help, .. } in reference::metrics::all() {
        match kind {
            MetricKind::Counter => describe_counter!(*name, *help),
            MetricKind::Gauge => describe_gauge!(*name, *help),
            MetricKind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

/// Sets counters of events that have not happened yet to 0, since a rate needs an initial value.
fn zero_counters() {
    gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(UPSTREAM_IN_FLIGHT.name).set(0.0);
    counter!(ACTOR_RESTARTS.name).absolute(0);
    counter!(STORE_ERRORS.name).absolute(0);
    counter!(WRONG_KEYS.name).absolute(0);
    for outcome in ["served", "unavailable", "unknown_account"] {
        counter!(TOKEN_READS.name, "outcome" => outcome).absolute(0);
        counter!(TICKET_READS.name, "outcome" => outcome).absolute(0);
    }
    for source in HintSource::ALL {
        for verdict in HintVerdict::ALL {
            counter!(HINTS.name, "source" => source.as_str(), "verdict" => verdict.as_str()).absolute(0);
        }
    }
    drop(histogram!(STORE_COMMIT_DURATION.name));
    for endpoint in ["stable_token", "token", "check", "ticket"] {
        drop(histogram!(UPSTREAM_REQUEST_DURATION.name, "endpoint" => endpoint));
    }
}
