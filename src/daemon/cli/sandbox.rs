//! `wxtokend sandbox`.

use std::path::Path;

use tracing::{info, warn};
use wxtokend_sandbox::Tls;

use super::args::Sandbox;
use super::embedded_sandbox::{EmbeddedSandbox, Times, true_time_s};
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
    let tls = args.tls_ca.as_deref().map(|file| make_tls(file, &args.tls_name)).transpose()?;
    let server = EmbeddedSandbox::start(args.listen, times, tls, &config).await.map_err(|error| {
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
        let ca = args.tls_ca.as_deref();
        logging::print_message(&welcome::sandbox_message(&overview, ca));
    }
    let signal = stop.recv().await;
    info!(event = "stopped", signal, "stopped");
    Ok(())
}

/// Makes a CA and a certificate, and writes the CA's certificate to `file` before anybody can connect.
fn make_tls(file: &Path, names: &[String]) -> Result<Tls, Failure> {
    let tls = Tls::new(names, true_time_s())
        .map_err(|error| Failure::Usage(format!("--tls-name: no certificate can be made: {error}")))?;
    std::fs::write(file, tls.ca_pem())
        .map_err(|error| Failure::to(&format!("write the CA certificate to {}", file.display()), &error))?;
    Ok(tls)
}
