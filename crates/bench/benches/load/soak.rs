//! Half an hour at full load with tokens that live for a minute: anything that grows leaks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{self, Load, flat_out};
use crate::lab::{Lab, Plan, SERVER, until_ready};
use crate::{Options, Outcome};

const MINUTES: u64 = 30;
const EVERY: Duration = Duration::from_secs(10);

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    let accounts = options.accounts.unwrap_or(10_000);
    let time = if options.quick { 6 * EVERY } else { Duration::from_secs(MINUTES * 60) };
    client::runtime()?.block_on(async {
        let plan = Plan { lifetime: "60s", overlap: "10s", max_per_second: 2000, ..Plan::of(accounts) };
        let lab = Lab::new(&plan).await?;
        let daemon = lab.daemon(SERVER).await?;
        until_ready(daemon.address).await?;
        let load = Load::tokens(daemon.address, accounts);
        let began = Instant::now();
        let mut samples = Vec::new();
        let mut reads = 0;
        while began.elapsed() < time {
            let run = flat_out(&load, EVERY).await?;
            let vitals = daemon.vitals()?;
            reads += run.latencies.len();
            samples.push(json!({
                "at_s": began.elapsed().as_secs_f64(),
                "per_second": run.per_second(),
                "p50_us": run.latencies.value_at_quantile(0.5) as f64 / 1e3,
                "p99_us": run.latencies.value_at_quantile(0.99) as f64 / 1e3,
                "resident_kib": vitals.resident_kib,
                "descriptors": vitals.descriptors,
                "store_bytes": std::fs::metadata(lab.store())?.len(),
            }));
        }
        Ok(json!({ "accounts": accounts, "reads": reads, "samples": samples }))
    })
}
