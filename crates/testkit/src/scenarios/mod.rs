//! Scenarios as data: one file, scenarios.yaml, of given, steps and expected, which drives three things alike.
//!
//! The decision alone (`src/fleet/tests/decision.rs`), the simulated fleet (`src/fleet/tests/scenarios.rs`) and the real
//! daemon over HTTP (`tests/it/scenarios.rs`) each implement [`Stage`]; [`play`] does the rest. What one of them does
//! otherwise than the others is a defect of it or of the scenario.

pub mod model;
pub mod pace;
mod play;

pub use model::{Driver, Outcome, Scenario, all};
pub use play::{FaultSeen, Reading, Seen, Stage, last_reason, play};

/// The account that every scenario is about.
pub const APPID: &str = "wx-scenario";
/// One that is there while the first is removed: a file without accounts is none.
pub const NEIGHBOUR: &str = "wx-neighbour";
