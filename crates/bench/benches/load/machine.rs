//! What processes use, and what this machine is.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;

/// What a process uses, as reported by the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) resident_kib: u64,
    /// Pages of files among them: the program itself and its libraries.
    pub(crate) resident_file_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) cpu: Duration,
    /// CPU time in the kernel, part of `cpu`.
    pub(crate) system: Duration,
}

impl Vitals {
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name: &str| -> Outcome<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        let (resident_kib, resident_file_kib) = (kib("VmRSS:")?, kib("RssFile:")?);
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').unwrap_or_default().1.split_ascii_whitespace().collect();
        let (user, system) = (fields[11].parse::<u64>()?, fields[12].parse::<u64>()?);
        let time = |ticks| Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Ok(Self {
            resident_kib,
            resident_file_kib,
            descriptors,
            cpu: time(user + system),
            system: time(system),
        })
    }
}

/// Describes the processor, memory, system and programs, for the head of the report.
pub(crate) fn described() -> Value {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpu = line(&file("/proc/cpuinfo"), "model name");
    let memory: u64 = line(&file("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let cores = file("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
    json!({
        "processor": cpu,
        "cores": cores,
        "memory_gib": (memory as f64 / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "rust": first_line("rustc", &["--version"]),
        "wxtokend": format!("{} {}", env!("CARGO_PKG_VERSION"), first_line("git", &["describe", "--always", "--dirty"])),
        "redis": first_line("redis-server", &["--version"]),
        "wrk": first_line("wrk", &["--version"]),
    })
}

/// Returns the first line of a program's output, on either stream.
fn first_line(program: &str, args: &[&str]) -> String {
    let Ok(output) = std::process::Command::new(program).args(args).output() else {
        return "none".to_owned();
    };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
