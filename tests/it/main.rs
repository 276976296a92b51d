//! The real program as a process, against the simulated WeChat on a real socket, in real time.
//!
//! What is proven here needs the whole: sockets, signals, a file on disk, a process that dies. What the fleet does
//! over months is proven on paused time beside its code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

// Named so that the longest test begins first.
mod applications;
mod budget;
mod canary;
mod certificates;
mod commands;
mod core_dumps;
mod crashes;
mod crowd;
mod cycles;
mod faults;
mod fuzzing;
mod grafana;
mod harness;
mod hostile_clients;
mod hostile_upstream;
mod late_delivery;
mod layers;
mod lifetimes;
mod log_lines;
mod nginx;
mod outages;
mod page;
mod pools;
mod readme;
mod redis;
mod rejections;
mod reloads;
mod scenarios;
mod sdk_pages;
mod stopping;
mod stores;
mod test_command;
mod tickets;
mod watching;
mod words;
