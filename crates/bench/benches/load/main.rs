//! Measures what the program can do under load: the whole program, over sockets.
//!
//! `cargo bench --bench load -- PART`; `scripts/bench` runs all parts and makes report.md of them. The
//! results of each part are kept as JSON in target/bench/. Nothing here judges: the goals are shown next to
//! the figures.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is what it is for")]

mod bare;
mod client;
mod http;
mod lab;
mod machine;
mod plot;
mod profile;
mod proxy;
mod report;
mod size;
mod soak;
mod spread;
mod storm;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Options of a part.
struct Options {
    /// Overrides the part's own number of accounts.
    accounts: Option<usize>,
    /// Shortens everything that takes a set time, to try a part out.
    quick: bool,
}

impl Options {
    fn seconds(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { seconds.div_ceil(5) } else { seconds })
    }
}

fn main() -> Outcome<()> {
    // Cargo adds an argument of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some((part, words)) = words.split_first() else {
        return Err("name a part: see scripts/bench".into());
    };
    if part == "bare" {
        return bare::serve(words.first().ok_or("a file")?.as_ref());
    }
    if part == "wechat" {
        return bare::serve_wechat(words.first().ok_or("a length")?.parse()?);
    }
    let options = Options {
        accounts: words.iter().find_map(|word| word.parse().ok()),
        quick: words.iter().any(|word| word == "quick"),
    };
    let machine = machine::described();
    let result = match part.as_str() {
        "report" => return report::write(),
        "http" => on_client_core(|| http::measure(&options))?,
        "size" => size::measure(&options)?,
        "spread" => spread::measure(&options)?,
        "proxy" => on_client_core(|| proxy::measure(&options))?,
        "storm" => storm::measure(&options)?,
        "profiles" => on_client_core(|| profile::measure(&options))?,
        "soak" => on_client_core(|| soak::measure(&options))?,
        other => return Err(format!("there is no part {other}: see scripts/bench").into()),
    };
    let name = match part.as_str() {
        "size" => format!("size-{}", result["accounts"]),
        part => part.to_owned(),
    };
    let command = [&["scripts/bench".to_owned(), part.clone()], words].concat().join(" ");
    save(&name, &json!({ "machine": machine, "command": command, "quick": options.quick, "result": result }))
}

/// Runs `work` on the clients' core, since the server under test has its own.
fn on_client_core(work: impl FnOnce() -> Outcome<Value>) -> Outcome<Value> {
    lab::pin_to(lab::CLIENTS)?;
    work()
}

fn results() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bench")
}

fn save(name: &str, result: &Value) -> Outcome<()> {
    fs::create_dir_all(results())?;
    let text = serde_json::to_string_pretty(result)?;
    println!("{text}");
    Ok(fs::write(results().join(format!("{name}.json")), text)?)
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
