//! What the program offers to the outside, as tables: its metrics.
//!
//! The program takes names and texts from them, and docs/metrics.md is written from them: `cargo xtask gen`.

pub mod metrics;
