//! What a way of building the program costs and brings: `scripts/bench profiles` builds it in each.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::client::{self, Load, Speaks, flat_out, token_reads};
use crate::lab::{KEY, Lab, Plan, SERVER, appid, program, until_ready};
use crate::{Options, Outcome, median};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 64;

/// Of the program that `WXTOKEND_PROGRAM` names.
pub(crate) fn measure(options: &Options, words: &[String]) -> Outcome<Value> {
    let word = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).unwrap_or_default();
    let accounts = options.accounts.unwrap_or(10_000);
    client::runtime()?.block_on(async {
        let lab = Lab::new(&Plan::of(accounts)).await?;
        let daemon = lab.daemon_with(SERVER, word("preload=")).await?;
        until_ready(daemon.address).await?;
        let load = Load {
            address: daemon.address,
            speaks: Speaks::Http,
            connections: CONNECTIONS,
            requests: Arc::new(token_reads(daemon.address, KEY, (0..accounts).map(appid))),
        };
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = daemon.vitals()?.cpu;
            let run = flat_out(&load, options.seconds(5)).await?;
            let used = (daemon.vitals()?.cpu - before).as_secs_f64();
            rates.push(run.per_second());
            cpu.push(used * 1e6 / run.latencies.count() as f64);
        }
        Ok(json!({
            "name": word("name="),
            "what": word("what="),
            "built_s": word("built=").parse::<f64>().ok(),
            "bytes": fs::metadata(program())?.len(),
            "accounts": accounts,
            "per_second": median(&rates),
            "cpu_us": median(&cpu),
            "resident_kib": daemon.vitals()?.resident_kib,
        }))
    })
}
