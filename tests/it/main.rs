//! Tests of the real program as a process, against the sandbox on a real socket, in real time.
//!
//! These tests prove what needs the whole system: sockets, signals, a file on disk, a process that dies. The
//! fleet's behaviour over months is tested on paused time next to its code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

// Named so that the longest test starts first.
mod applications;
mod budget;
mod canary;
mod certificates;
mod commands;
mod core_dumps;
mod crashes;
mod cycles;
mod faults;
mod fuzzing;
mod grafana;
mod harness;
mod hints;
mod hostile_clients;
mod hostile_upstream;
mod large_fleet;
mod late_delivery;
mod layers;
mod lifetimes;
mod log_lines;
mod metrics;
mod nginx;
mod outages;
mod page;
mod pools;
mod readme;
mod redis;
mod reloads;
mod sandbox;
mod scenarios;
mod sdk_pages;
mod stopping;
mod stores;
mod test_command;
mod tickets;
mod watching;
mod words;
