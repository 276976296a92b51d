//! Measures what each way of building the program costs and gains: `scripts/bench profiles` builds it in
//! each.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::{self, Load};
use crate::lab::{Lab, Plan, Program, SERVER, until_ready};
use crate::{Options, Outcome, median, results};

const ROUNDS: usize = 7;

/// A running program, built in one of the ways.
struct Way<'a> {
    what: &'a str,
    built_s: Option<f64>,
    program: &'a Path,
    daemon: Program,
    _lab: Lab,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Measures the ways that `scripts/bench` has listed. They take turns, since no machine is equally fast all
/// the time.
pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    let accounts = options.accounts.unwrap_or(10_000);
    let list = fs::read_to_string(results().join("ways.tsv"))?;
    client::runtime()?.block_on(async {
        let mut ways = Vec::new();
        for line in list.lines() {
            let [what, built_s, program, allocator] = *line.split('\t').collect::<Vec<_>>() else {
                return Err(format!("no way to build: {line}").into());
            };
            let lab = Lab::new(&Plan::of(accounts)).await?;
            let daemon =
                lab.daemon_of(SERVER, program, Some(allocator).filter(|path| !path.is_empty())).await?;
            until_ready(daemon.address).await?;
            let (program, built_s) = (Path::new(program), built_s.parse().ok());
            ways.push(Way {
                what,
                built_s,
                program,
                daemon,
                _lab: lab,
                rates: Vec::new(),
                cpu_us: Vec::new(),
            });
        }
        for _ in 0..ROUNDS {
            for way in &mut ways {
                let load = Load::tokens(way.daemon.address, accounts);
                let cost = client::cost(&way.daemon, &load, options.seconds(5)).await?;
                way.rates.push(cost.per_second);
                way.cpu_us.push(cost.cpu_us);
            }
        }
        let results = ways.iter().map(Way::result).collect::<Outcome<Vec<_>>>()?;
        Ok(json!({ "accounts": accounts, "rounds": ROUNDS, "ways": results }))
    })
}

impl Way<'_> {
    fn result(&self) -> Outcome<Value> {
        Ok(json!({
            "what": self.what,
            "built_s": self.built_s,
            "bytes": fs::metadata(self.program)?.len(),
            "per_second": median(&self.rates),
            "cpu_us": median(&self.cpu_us),
            "least_cpu_us": self.cpu_us.iter().copied().reduce(f64::min),
            "resident_kib": self.daemon.vitals()?.resident_kib,
        }))
    }
}
