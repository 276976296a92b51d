//! What a way of building the program costs and brings: `scripts/bench profiles` builds it in each.

use std::fs;

use serde_json::{Value, json};

use crate::client::{self, Load};
use crate::lab::{Lab, Plan, SERVER, program, until_ready};
use crate::{Options, Outcome, median};

const ROUNDS: usize = 5;

/// Of the program that `WXTOKEND_PROGRAM` names.
pub(crate) fn measure(options: &Options, words: &[String]) -> Outcome<Value> {
    let word = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).unwrap_or_default();
    let accounts = options.accounts.unwrap_or(10_000);
    client::runtime()?.block_on(async {
        let lab = Lab::new(&Plan::of(accounts)).await?;
        let daemon = lab.daemon_with(SERVER, word("preload=")).await?;
        until_ready(daemon.address).await?;
        let load = Load::tokens(daemon.address, accounts);
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let cost = client::cost(&daemon, &load, options.seconds(5)).await?;
            rates.push(cost.per_second);
            cpu.push(cost.cpu_us);
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
