//! Signals of the operating system.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// Listens for SIGTERM and SIGINT, which then no longer end the process by themselves.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its name.
    pub(super) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Listens for SIGHUP.
pub(super) struct Reload(Signal);

impl Reload {
    pub(super) fn listen() -> Result<Self, Failure> {
        listen(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next signal.
    pub(super) async fn recv(&mut self) {
        self.0.recv().await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::to("listen for signals", &error))
}
