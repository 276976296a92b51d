//! What the outside can see of the running program.

pub mod logging;
pub mod metrics;
