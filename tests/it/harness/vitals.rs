//! Resource usage of a process, as reported by the kernel.

/// Resident memory and open descriptors of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) resident_kib: u64,
    /// The peak of resident memory.
    pub(crate) peak_kib: u64,
    pub(crate) descriptors: usize,
}

impl Vitals {
    pub(crate) fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { resident_kib: kib("VmRSS:"), peak_kib: kib("VmHWM:"), descriptors }
    }
}
