//! `wxtokend run`: starts and stops the daemon.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wxtokend_core::clock::{ClockSource, SystemClock};

use super::args::Run;
use super::embedded_sandbox::{SandboxRun, Times};
use super::failure::Failure;
use super::reload::{Reloader, RestartOnly};
use super::signals::{Reload, Stop};
use super::source::Source;
use super::welcome::{self, Overview};
use super::{open_files, warnings};
use crate::config::Config;
use crate::daemon::http::{ApiServer, Listeners, is_loopback};
use crate::daemon::telemetry::logging::{self, Format};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;

/// A supervisor gives us 10 s to stop; the rest is for the last threads and log lines.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

pub(super) async fn run(args: Run, log_format: Format) -> Result<(), Failure> {
    open_files::raise_limit();
    let mut stop = Stop::listen()?;
    // Listen from the very start: otherwise an early SIGHUP would end the process.
    let hangup = Reload::listen()?;
    let daemon = tokio::select! {
        daemon = Daemon::start(args, log_format) => daemon?,
        signal = stop.recv() => {
            info!(event = "stopped", signal, "asked to stop while starting");
            return Ok(());
        }
    };
    daemon.run(stop, hangup).await
}

/// A running daemon, and the means to stop and reload it.
struct Daemon {
    fleet: Fleet,
    reloader: Reloader,
    serving: JoinHandle<()>,
    stop_serving: CancellationToken,
}

impl Daemon {
    async fn start(args: Run, log_format: Format) -> Result<Self, Failure> {
        let times = Times::new(args.token_lifetime, args.overlap)?;
        let source = match args.sandbox {
            true => Source::for_sandbox(args.config, "".as_ref()),
            false => Source::for_daemon(args.config),
        };
        let mut config = load(&source).await?;
        if !args.sandbox {
            warnings::log(&source, &config.warnings, &[]);
        }
        // Install before starting the fleet, which registers its counters at the start.
        let metrics = Metrics::install().map_err(|error| Failure::to("set up the metrics", &error))?;
        let mut sandbox_run = None;
        if args.sandbox {
            sandbox_run.insert(SandboxRun::start(times, &config).await?).redirect(&mut config);
        }
        let failed = |error: &dyn std::error::Error| Failure::to("start", error);
        let listeners = Listeners::bind(&config).await.map_err(|error| failed(&error))?;
        let fleet = Fleet::start(config.clone()).await.map_err(|error| failed(&error))?;
        let api = ApiServer::on(listeners, &config, fleet.clone(), metrics.clone());
        let overview = sandbox_run.as_ref().map(|sandbox_run| {
            let sandbox_address = sandbox_run.server.address();
            Overview { source: &source, config: &config, times, sandbox_address }
        });
        announce(&config, &api, overview.as_ref(), log_format);
        metrics.note_reload(true, SystemClock::new().now());
        let stop_serving = CancellationToken::new();
        let reloader = Reloader {
            source,
            fixed: RestartOnly::of(&config),
            fleet: fleet.clone(),
            clients: api.clients(),
            proxy: api.proxy(),
            metrics,
            per_account: api.per_account(),
            sandbox_run,
            warnings: config.warnings,
        };
        let serving = tokio::spawn(api.serve(stop_serving.clone().cancelled_owned()));
        Ok(Self { fleet, reloader, serving, stop_serving })
    }

    /// Runs until a signal asks it to stop.
    async fn run(mut self, mut stop: Stop, mut hangup: Reload) -> Result<(), Failure> {
        let signal = loop {
            tokio::select! {
                signal = stop.recv() => break signal,
                _ = &mut self.serving => {
                    self.fleet.shutdown().await;
                    return Err(Failure::Failed("the API ended by itself".to_owned()));
                }
                () = hangup.recv() => tokio::select! {
                    () = self.reloader.reload() => {}
                    signal = stop.recv() => break signal,
                },
            }
        };
        info!(event = "stopping", signal, "asked to stop: calls under way end, those who wait are answered");
        tokio::select! {
            () = self.shut_down() => Ok(()),
            signal = stop.recv() => Err(Failure::Failed(format!("a second {signal} ended it at once"))),
        }
    }

    async fn shut_down(self) {
        self.stop_serving.cancel();
        let everything = async { tokio::join!(self.fleet.shutdown(), self.serving) };
        match timeout(STOP_TIMEOUT, everything).await {
            Ok(_) => info!(event = "stopped", "stopped"),
            Err(_) => warn!(event = "stopped", "stopped; somebody's connection had to be cut"),
        }
    }
}

/// Reads the configuration on a blocking thread: a file that hangs must not keep signals from being handled.
async fn load(source: &Source) -> Result<Config, Failure> {
    let source = source.clone();
    let read = tokio::task::spawn_blocking(move || source.load()).await;
    read.map_err(|error| Failure::to("read the configuration", &error))?
}

fn announce(config: &Config, api: &ApiServer, overview: Option<&Overview<'_>>, log_format: Format) {
    // Metrics without a listener of their own are served with the API, if that is a loopback address.
    let local = Some(api.address()).filter(|address| is_loopback(*address));
    let metrics = api.metrics_address().or(local);
    info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        api = %api.address(),
        metrics = metrics.map(tracing::field::display),
        sandbox = overview.map(|overview| tracing::field::display(overview.sandbox_address)),
        accounts = config.accounts.len(),
        store = %config.store.path.display(),
        "wxtokend serves tokens"
    );
    if overview.is_none() && api.clients().need_no_key() {
        warnings::no_clients();
    }
    if let (Some(overview), Format::Text) = (overview, log_format) {
        logging::print_message(&welcome::sandbox_run_message(overview, api.address(), metrics));
    }
}
