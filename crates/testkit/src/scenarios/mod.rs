//! Scenarios as data: one file, scenarios.yaml, of given, steps and expected, which drives three
//! implementations alike.
//!
//! The decision alone (`src/fleet/tests/decision.rs`), the simulated fleet (`src/fleet/tests/scenarios.rs`)
//! and the real daemon over HTTP (`tests/it/scenarios.rs`) each implement [`Stage`]; [`play()`] does the rest.
//! If one of them behaves differently from the others, that is a defect of it or of the scenario.

pub mod model;
pub mod pace;
mod play;

pub use model::{Driver, Outcome, Scenario, all};
pub use play::{FaultSeen, Reading, Seen, Stage, last_reason, play};

/// The account that every scenario is about.
pub const APPID: &str = "wx-scenario";
/// An account that is present while the first is removed, since a file without accounts is invalid.
pub const NEIGHBOUR: &str = "wx-neighbour";
