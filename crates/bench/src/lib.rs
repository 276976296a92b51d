//! What wxtokend costs is measured by the benchmarks beside this file; `scripts/bench` runs them.
