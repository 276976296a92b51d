//! Checks grafana/ against what the program exports, what Prometheus evaluates and what Grafana publishes of
//! its schema.

mod boards;
mod files;
mod live;
mod names;
mod rules;
mod schema;

use std::path::PathBuf;

use boards::Board;

/// A path below grafana/; `../` leads to the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("grafana").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("grafana/{name}: {error}"))
}
