//! `wxtokend run`: from the configuration to a daemon, and back to nothing.

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

/// A supervisor gives us 10 s; what is left is for the last threads and the last lines.
const LONGEST_STOP: Duration = Duration::from_secs(8);

pub(super) async fn run(args: Run, log_format: Format) -> Result<(), Failure> {
    open_files::raise_limit();
    let mut stop = Stop::listen()?;
    // From the very start: without it a reload that comes early would end us.
    let hangup = Reload::listen()?;
    let daemon = tokio::select! {
        daemon = Daemon::start(args, log_format) => daemon?,
        signal = stop.asked() => {
            info!(event = "stopped", signal, "asked to stop while starting");
            return Ok(());
        }
    };
    daemon.run(stop, hangup).await
}

/// Everything that runs, and what it takes to end or change it.
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
            true => Source::for_simulation(args.config, "".as_ref()),
            false => Source::real(args.config),
        };
        let mut config = load(&source).await?;
        if !args.sandbox {
            warnings::log(&source, &config.warnings, &[]);
        }
        // Before the fleet, whose counters are born with it.
        let metrics = Metrics::install().map_err(|error| Failure::to("set up the metrics", &error))?;
        let mut rehearsal = None;
        if args.sandbox {
            rehearsal.insert(SandboxRun::start(times, &config).await?).redirect(&mut config);
        }
        let failed = |error: &dyn std::error::Error| Failure::to("start", error);
        let listeners = Listeners::bind(&config).await.map_err(|error| failed(&error))?;
        let fleet = Fleet::start(config.clone()).await.map_err(|error| failed(&error))?;
        let api = ApiServer::on(listeners, &config, fleet.clone(), metrics.clone());
        let scene = rehearsal.as_ref().map(|rehearsal| {
            let simulation = rehearsal.simulation.address();
            Overview { source: &source, config: &config, times, simulation }
        });
        announce(&config, &api, scene.as_ref(), log_format);
        metrics.note_reload(true, SystemClock::new().now());
        let stop_serving = CancellationToken::new();
        let reloader = Reloader {
            source,
            fixed: RestartOnly::of(&config),
            fleet: fleet.clone(),
            clients: api.clients(),
            metrics,
            rehearsal,
            warnings: config.warnings,
        };
        let serving = tokio::spawn(api.serve(stop_serving.clone().cancelled_owned()));
        Ok(Self { fleet, reloader, serving, stop_serving })
    }

    /// Until it is asked to stop.
    async fn run(mut self, mut stop: Stop, mut hangup: Reload) -> Result<(), Failure> {
        let signal = loop {
            tokio::select! {
                signal = stop.asked() => break signal,
                _ = &mut self.serving => {
                    self.fleet.shutdown().await;
                    return Err(Failure::Failed("the API ended by itself".to_owned()));
                }
                () = hangup.asked() => tokio::select! {
                    () = self.reloader.reload() => {}
                    signal = stop.asked() => break signal,
                },
            }
        };
        info!(event = "stopping", signal, "asked to stop: calls under way end, those who wait are answered");
        tokio::select! {
            () = self.end() => Ok(()),
            signal = stop.asked() => Err(Failure::Failed(format!("a second {signal} ended it at once"))),
        }
    }

    async fn end(self) {
        self.stop_serving.cancel();
        let all = async { tokio::join!(self.fleet.shutdown(), self.serving) };
        match timeout(LONGEST_STOP, all).await {
            Ok(_) => info!(event = "stopped", "stopped"),
            Err(_) => warn!(event = "stopped", "stopped; somebody's connection had to be cut"),
        }
    }
}

/// Reads the configuration beside the runtime: a file that hangs must not keep a signal from being heard.
async fn load(source: &Source) -> Result<Config, Failure> {
    let source = source.clone();
    let read = tokio::task::spawn_blocking(move || source.load()).await;
    read.map_err(|error| Failure::to("read the configuration", &error))?
}

fn announce(config: &Config, api: &ApiServer, scene: Option<&Overview<'_>>, log_format: Format) {
    // Where metrics have no listener of their own, the API serves them, unless others can reach it.
    let local = Some(api.address()).filter(|address| is_loopback(*address));
    let metrics = api.metrics_address().or(local);
    info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        api = %api.address(),
        metrics = metrics.map(tracing::field::display),
        sandbox = scene.map(|scene| tracing::field::display(scene.simulation)),
        accounts = config.accounts.len(),
        store = %config.store.path.display(),
        "wxtokend serves tokens"
    );
    if scene.is_none() && api.clients().need_no_key() {
        warnings::no_clients();
    }
    if let (Some(scene), Format::Text) = (scene, log_format) {
        logging::tell(&welcome::to_rehearsal(scene, api.address(), metrics));
    }
}
