//! Writes what follows from the program's own tables into documents, the page and Grafana's files.

mod faults;
mod grafana;
mod metrics;
mod routes;
mod settings;
mod splice;

use std::path::Path;
use std::{fs, io};

use clap::Args;

use crate::run::Outcome;

/// Writes tables and texts from the program's own tables: the faults of README.md, README.zh-CN.md and docs/faults.md,
/// docs/metrics.md, docs/api.md, the settings in docs/configure.md and accounts.example.yaml, the page's Chinese advice,
/// and the advice in Grafana's dashboards and Prometheus' rules.
#[derive(Args)]
pub(crate) struct Generate {
    /// Change nothing, and fail if something is out of date
    #[arg(long)]
    check: bool,
}

/// A file, and how it follows from what it is and from the tables.
struct Target {
    path: &'static str,
    renew: fn(&str) -> Outcome<String>,
}

const TARGETS: [Target; 11] = [
    Target { path: "README.md", renew: |old| faults::readme(old, &faults::ENGLISH) },
    Target { path: "README.zh-CN.md", renew: |old| faults::readme(old, &faults::CHINESE) },
    Target { path: "docs/faults.md", renew: |_| Ok(faults::document()) },
    Target { path: "docs/metrics.md", renew: metrics::document },
    Target { path: "docs/api.md", renew: |_| Ok(routes::document()) },
    Target { path: "docs/configure.md", renew: settings::document },
    Target { path: "accounts.example.yaml", renew: settings::example },
    Target { path: "src/daemon/http/ui/advice.js", renew: |_| Ok(faults::page()) },
    Target { path: "grafana/rules/wxtokend.rules.yaml", renew: grafana::rules },
    Target { path: "grafana/dashboards/account.json", renew: grafana::dashboard },
    Target { path: "grafana/dashboards/fleet.json", renew: grafana::dashboard },
];

impl Generate {
    pub(crate) fn run(&self, root: &Path) -> Outcome<()> {
        let stale = stale(root)?;
        for (path, new) in &stale {
            match self.check {
                true => println!("{path} is out of date"),
                false => fs::write(root.join(path), new).map_err(|error| format!("write {path}: {error}"))?,
            }
        }
        match self.check && !stale.is_empty() {
            true => Err("run `cargo xtask gen` and look at what it changed".into()),
            false => Ok(()),
        }
    }
}

/// The files that are not what they should be, with what they should be.
fn stale(root: &Path) -> Outcome<Vec<(&'static str, String)>> {
    let mut stale = Vec::new();
    for Target { path, renew } in TARGETS {
        let old = match fs::read_to_string(root.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| format!("read {path}: {error}"))?,
        };
        let new = renew(&old).map_err(|error| format!("{path}: {error}"))?;
        if new != old {
            stale.push((path, new));
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_generated_is_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let stale: Vec<_> = stale(root).unwrap().into_iter().map(|(path, _)| path).collect();
        assert!(stale.is_empty(), "run `cargo xtask gen`: {stale:?}");
    }
}
