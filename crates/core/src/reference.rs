//! What the program offers to the outside, as tables: `cargo xtask gen` writes documents from them.

pub mod setting;
pub mod settings;
