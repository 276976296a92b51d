//! What the program offers to the outside, as tables: its metrics and its HTTP routes.
//!
//! The program takes names, paths and methods from them, and docs/metrics.md and docs/api.md are written from
//! them: `cargo xtask gen`.

pub mod metrics;
pub mod routes;
