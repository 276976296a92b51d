//! Runs the daemon as a process.

use std::ops::Deref;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::log::Log;
use super::{Http, TIMEOUT, Vitals, find};

/// A running daemon, killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) http: Http,
    pub(crate) log: Log,
    pub(crate) stdout: Log,
}

impl Deref for Daemon {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Daemon {
    /// Starts a daemon and waits until it listens.
    pub(crate) async fn start(command: Command) -> Self {
        Self::try_start(command).await.unwrap_or_else(|output| panic!("the daemon ended at once:\n{output}"))
    }

    /// Starts a daemon and waits until it listens. The error is its output, if it ends instead.
    pub(crate) async fn try_start(mut command: Command) -> Result<Self, String> {
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {:?}, which cargo builds for the tests: {error}", command.as_std())
        });
        let log = Log::of(child.stderr.take().unwrap());
        let stdout = Log::of(child.stdout.take().unwrap());
        let address = find("the daemon has started", async || match child.try_wait().unwrap() {
            Some(status) => Some(Err(format!("{status}\n{}", log.text()))),
            None => log.started_at().map(Ok),
        });
        let address = address.await?;
        Ok(Self { child, http: Http::to(address), log, stdout })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Current memory and descriptors of the process.
    pub(crate) fn vitals(&self) -> Vitals {
        Vitals::of(self.pid())
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until the process ends, which it must.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(TIMEOUT, self.child.wait()).await.expect("the daemon never ended").unwrap()
    }

    /// Asks the process to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for the `n`-th line with this `event`, counted from 1.
    pub(crate) async fn event(&self, event: &str, n: usize) -> Value {
        find(&format!("log line {n} of {event}"), async || self.log.events(event).into_iter().nth(n - 1))
            .await
    }

    /// Reloads the configuration, which must succeed.
    pub(crate) async fn reload(&self) -> Value {
        let before = self.log.events("reload").len();
        self.signal(Signal::HUP);
        let line = self.event("reload", before + 1).await;
        assert_eq!(line["successful"], true, "{line}");
        line
    }
}
