//! Benchmarks of wxtokend, in `benches/`; `scripts/bench` runs them.
