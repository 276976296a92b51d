//! What the program offers to the outside, as tables: its metrics, its HTTP routes and its settings.
//!
//! The program takes names, paths and methods from them, and `cargo xtask gen` writes documents from them.

pub mod metrics;
pub mod routes;
pub mod setting;
pub mod settings;
