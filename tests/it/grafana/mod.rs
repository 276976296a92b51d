//! Checks grafana/ against what the program exports, what Prometheus evaluates and what Grafana publishes of
//! its schema.

mod boards;
mod files;
mod live;
mod names;
mod rules;
mod schema;

use std::collections::BTreeSet;
use std::path::PathBuf;

use wxtokend_core::fault::Fault;

use boards::Board;

/// A path below grafana/; `../` leads to the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("grafana").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("grafana/{name}: {error}"))
}

/// The program's advice for each kind and errcode. `other` stands for any unknown code.
fn advice() -> BTreeSet<[String; 3]> {
    let row = |fault: &Fault, errcode: &str| {
        [fault.kind.as_str().to_owned(), errcode.to_owned(), fault.advice.clone()]
    };
    let mut rows: BTreeSet<_> = crate::readme::known_codes()
        .into_iter()
        .map(|code| row(&Fault::from_errcode(code, ""), &code.to_string()))
        .collect();
    rows.insert(row(&Fault::from_errcode(12_345, ""), "other"));
    for fault in [
        Fault::host(""),
        Fault::unknown_outcome(wxtokend_core::fault::FaultScope::Account, ""),
        Fault::budget_exhausted(1, std::time::Duration::ZERO),
        Fault::precondition_failed(),
    ] {
        rows.insert(row(&fault, "none"));
    }
    rows.extend([40001, 40014, 42001].map(|code: i64| row(&Fault::token_refused(code), &code.to_string())));
    rows
}
