//! What the outside can see of the running program.

pub(super) mod logging;
pub(super) mod metrics;
