//! Scenarios as data: one file, scenarios.yaml, of given, steps and expected, which drives three things alike.
//!
//! The decision alone (`src/policy/scenarios.rs`), the simulated fleet (`src/fleet/tests/scenarios.rs`) and the real
//! daemon over HTTP (`tests/it/scenarios.rs`) each implement [`Stage`]; [`play`] does the rest. What one of them does
//! otherwise than the others is a defect of it or of the scenario. Included by `#[path]` in the unit tests of the
//! library and in the tests of the program.

pub(crate) mod model;
pub(crate) mod pace;
mod play;

pub(crate) use model::{Driver, Outcome, Scenario, all};
pub(crate) use play::{FaultSeen, Reading, Seen, Stage, last_reason, play};

/// The account that every scenario is about.
pub(crate) const APPID: &str = "wx-scenario";
/// One that is there while the first is removed: a file without accounts is none.
pub(crate) const NEIGHBOUR: &str = "wx-neighbour";
