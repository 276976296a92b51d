//! The process as the kernel sees it, under the names that every Prometheus client uses.
//!
//! A crate for this would bring a binding generator along for a few lines of `/proc`; where there is none, the
//! metrics are absent.

use std::{fs, io};

use super::text::Exposition;

const KIB: u64 = 1024;

pub(super) fn write(text: &mut Exposition<'_>) -> io::Result<()> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(fields_of_stat) {
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
        let name = "process_cpu_seconds_total";
        one(
            text,
            name,
            "counter",
            "Processor time spent, in user and kernel mode.",
            seconds(stat.cpu_ticks),
        )?;
        if let Some(boot) = booted_at() {
            let name = "process_start_time_seconds";
            let start = boot as f64 + seconds(stat.start_ticks);
            one(text, name, "gauge", "When the process started, in unix time.", start)?;
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, name, unit, help) in [
        ("VmRSS:", "process_resident_memory_bytes", KIB, "Memory that is held in RAM."),
        ("VmSize:", "process_virtual_memory_bytes", KIB, "Memory that is addressed."),
        ("Threads:", "process_threads", 1, "Threads of the operating system."),
    ] {
        if let Some(number) = number_after(&status, key) {
            one(text, name, "gauge", help, number * unit)?;
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Less the one that counts them.
        let open = open.count().saturating_sub(1);
        one(text, "process_open_fds", "gauge", "File descriptors that are open.", open)?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = number_after(&limits, "Max open files") {
        one(text, "process_max_fds", "gauge", "File descriptors that may be open.", most)?;
    }
    Ok(())
}

struct Stat {
    cpu_ticks: u64,
    /// Since boot.
    start_ticks: u64,
}

/// `pid (name) state ppid …`; the name may hold anything, closing brackets too.
fn fields_of_stat(stat: &str) -> Option<Stat> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
    // Counted from 1 in proc(5), where the state is number 3.
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
}

fn booted_at() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The first number of the line that starts with `key`.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn one(
    text: &mut Exposition<'_>,
    name: &str,
    kind: &str,
    help: &str,
    value: impl std::fmt::Display,
) -> io::Result<()> {
    text.family(name, kind, help)?;
    text.sample(name, &[], value)
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
