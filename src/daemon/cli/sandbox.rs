//! `wxtokend sandbox`.

use tracing::{info, warn};

use super::args::Sandbox;
use super::embedded_sandbox::{EmbeddedSandbox, Times};
use super::failure::Failure;
use super::signals::Stop;
use super::source::Source;
use super::welcome::{self, Overview};
use crate::daemon::telemetry::logging::{self, Format};

pub(super) async fn sandbox(args: Sandbox, log_format: Format) -> Result<(), Failure> {
    let times = Times::new(args.token_lifetime, args.overlap)?;
    let source = Source::for_sandbox(args.config, "".as_ref());
    let config = source.load()?;
    let mut stop = Stop::listen()?;
    let server = EmbeddedSandbox::start(args.listen, times, &config).await.map_err(|error| {
        let place = args.listen.map_or_else(String::new, |address| format!(" on {address}"));
        Failure::to(&format!("listen{place}"), &error)
    })?;
    let address = server.address();
    info!(event = "started", sandbox = %address, accounts = config.accounts.len(), "the simulated WeChat listens");
    if !address.ip().to_canonical().is_loopback() {
        warn!(event = "sandbox_is_open", "everybody who reaches {address} can read its tokens");
    }
    if log_format == Format::Text {
        let overview = Overview { source: &source, config: &config, times, sandbox_address: address };
        logging::print_message(&welcome::sandbox_message(&overview));
    }
    let signal = stop.recv().await;
    info!(event = "stopped", signal, "stopped");
    Ok(())
}
