//! Counts of what happened in a run, and its trace.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use wxtokend_sandbox::FaultKind;

use super::fault_rates::HOUR;

/// Counts of everything that happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) simulated_ms: i64,
    pub(super) accounts: u64,
    pub(super) reads: u64,
    pub(super) without_token: u64,
    pub(super) calls: u64,
    pub(super) checks: u64,
    pub(super) tickets: u64,
    /// Counts of events by name.
    pub(super) events: BTreeMap<&'static str, u64>,
    /// Counts of faulty calls by name.
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) violations: Vec<String>,
}

impl Tally {
    pub(super) fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    pub(super) fn count_fault(&mut self, fault: String) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.simulated_ms += other.simulated_ms;
        self.accounts += other.accounts;
        self.reads += other.reads;
        self.without_token += other.without_token;
        self.calls += other.calls;
        self.checks += other.checks;
        self.tickets += other.tickets;
        for (event, n) in other.events {
            *self.events.entry(event).or_default() += n;
        }
        for (fault, n) in other.faults {
            *self.faults.entry(fault).or_default() += n;
        }
        self.violations.extend(other.violations);
    }

    /// Formats the counts as a table.
    pub(super) fn table(&self, seeds: u64) -> String {
        let mut rows = vec![
            ("seeds".to_owned(), seeds),
            ("simulated fleet hours".to_owned(), u64::try_from(self.simulated_ms / HOUR).unwrap_or(0)),
            ("reads checked".to_owned(), self.reads),
            ("  of them without a token".to_owned(), self.without_token),
            ("token calls".to_owned(), self.calls),
            ("check calls".to_owned(), self.checks),
            ("calls for tickets".to_owned(), self.tickets),
        ];
        rows.extend(self.events.iter().map(|(name, n)| ((*name).to_owned(), *n)));
        rows.extend(self.faults.iter().map(|(name, n)| (format!("fault: {name}"), *n)));
        rows.push(("violations".to_owned(), self.violations.len() as u64));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        rows.iter().map(|(name, n)| format!("{name:width$}  {n:>12}\n")).collect()
    }
}

/// A running digest of everything that happens, and the last lines of its trace.
pub(super) struct Trace {
    digest: DefaultHasher,
    /// How many lines are kept, if any; keeping them takes time.
    words: Option<usize>,
    last: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(words: Option<usize>) -> Self {
        Self { digest: DefaultHasher::new(), words, last: VecDeque::new() }
    }

    pub(super) fn note(
        &mut self,
        at_ms: i64,
        what: &str,
        account: Option<&str>,
        words: impl FnOnce() -> String,
    ) {
        (at_ms, what, account).hash(&mut self.digest);
        if let Some(lines) = self.words {
            if self.last.len() == lines {
                self.last.pop_front();
            }
            let (day, rest) = (at_ms.div_euclid(86_400_000), at_ms.rem_euclid(86_400_000));
            let clock = format!(
                "{day}d {:02}:{:02}:{:06.3}",
                rest / 3_600_000,
                rest / 60_000 % 60,
                (rest % 60_000) as f64 / 1000.0
            );
            self.last.push_back(format!("{clock} {} {what} {}", account.unwrap_or("-"), words()));
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Returns the last lines that concern `account`, or the whole fleet.
    pub(super) fn tail(&self, account: Option<&str>) -> String {
        let concerns = |line: &&String| {
            let mut words = line.split(' ');
            let whom = words.nth(2);
            whom == Some("-") || account.is_none() || whom == account
        };
        self.last.iter().filter(concerns).map(|line| format!("  {line}\n")).collect()
    }
}

/// Returns the name under which a fault is counted.
pub(super) fn name_of(fault: &FaultKind) -> String {
    match fault {
        FaultKind::Errcode { errcode, .. } => format!("errcode {errcode}"),
        FaultKind::Status { status } => format!("HTTP {status}"),
        FaultKind::Lost { seen_as } => format!("minted, answer lost as {seen_as:?}"),
        FaultKind::Raw(_) => "raw".to_owned(),
        FaultKind::Late { .. } => "delivered late".to_owned(),
        FaultKind::BadExpires { .. } => "another expires_in".to_owned(),
        FaultKind::Delay { .. } => "late".to_owned(),
        FaultKind::Html => "a page with 200".to_owned(),
        FaultKind::Hang => "hang".to_owned(),
        FaultKind::Half => "half an answer".to_owned(),
        FaultKind::Reset => "reset".to_owned(),
        FaultKind::EmptyToken => "empty token".to_owned(),
    }
}
