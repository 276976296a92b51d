//! Metrics of the process from the kernel, under the names that all Prometheus clients use.
//!
//! A crate for this would pull in a binding generator for a few lines of `/proc`. Without `/proc` the metrics
//! are absent.

use std::fmt::Display;
use std::{fs, io};

use wxtokend_core::reference::metrics::{
    Metric, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_START,
    PROCESS_THREADS, PROCESS_VIRTUAL_MEMORY,
};

use super::text::Exposition;

const KIB: u64 = 1024;

pub(super) fn write(text: &mut Exposition<'_>) -> io::Result<()> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(fields_of_stat) {
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
        write_one(text, &PROCESS_CPU, seconds(stat.cpu_ticks))?;
        if let Some(boot) = boot_time() {
            write_one(text, &PROCESS_START, boot as f64 + seconds(stat.start_ticks))?;
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, metric, unit) in [
        ("VmRSS:", PROCESS_RESIDENT_MEMORY, KIB),
        ("VmSize:", PROCESS_VIRTUAL_MEMORY, KIB),
        ("Threads:", PROCESS_THREADS, 1),
    ] {
        if let Some(number) = number_after(&status, key) {
            write_one(text, &metric, number * unit)?;
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Excludes the descriptor that reads the folder.
        write_one(text, &PROCESS_OPEN_FDS, open.count().saturating_sub(1))?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = number_after(&limits, "Max open files") {
        write_one(text, &PROCESS_MAX_FDS, max)?;
    }
    Ok(())
}

struct Stat {
    cpu_ticks: u64,
    /// Clock ticks since boot.
    start_ticks: u64,
}

/// Parses `pid (name) state ppid …`. The name may contain anything, including closing brackets.
fn fields_of_stat(stat: &str) -> Option<Stat> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // Fields are numbered from 1 in proc(5); the state is number 3.
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
}

fn boot_time() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The first number on the line that starts with `key`.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn write_one(text: &mut Exposition<'_>, metric: &Metric, value: impl Display) -> io::Result<()> {
    text.family(metric)?;
    text.sample(metric, &[], value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 12345 1000 10 0";
        let stat = fields_of_stat(stat).unwrap();
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (300, 12345));
    }

    #[test]
    fn an_unlimited_number_is_none() {
        let limits = "Max open files            1024                 unlimited            files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(number_after("Max open files  unlimited unlimited files", "Max open files"), None);
    }
}
