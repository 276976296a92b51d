//! The metrics of `/metrics`: name, type, unit, labels and meaning.
//!
//! To add one, add a row here, record it, and run `cargo xtask gen`, which writes docs/metrics.md.

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The full name. Those of the process have the names that all Prometheus clients use.
    pub name: &'static str,
    /// Its type in Prometheus.
    pub kind: MetricKind,
    /// What its values are.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one line without a backslash: the text after `# HELP`.
    pub help: &'static str,
}

/// A metric's type in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values in buckets.
    Histogram,
}

impl MetricKind {
    /// The name of the type in Prometheus' text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or 0 and 1 for no and yes.
    Number,
    /// Seconds.
    Seconds,
    /// Seconds since the beginning of 1970.
    UnixTime,
    /// Bytes.
    Bytes,
    /// A share: 1 is the whole.
    Ratio,
}

impl Unit {
    /// How the names of metrics in this unit end, before a counter's `_total`; empty for numbers.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Number => "",
            Self::Seconds | Self::UnixTime => "_seconds",
            Self::Bytes => "_bytes",
            Self::Ratio => "_ratio",
        }
    }
}

/// Metrics of one subject: a section of docs/metrics.md.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The section's heading.
    pub title: &'static str,
    /// The metrics, in the order of the section.
    pub metrics: &'static [Metric],
}

/// All metrics.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    TABLE.iter().flat_map(|group| group.metrics)
}

macro_rules! metrics {
    ($($title:literal {
        $($id:ident = $kind:ident, $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)*
    })*) => {
        $($(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*)*

        /// All metrics, by subject.
        pub const TABLE: &[Group] = &[$(Group { title: $title, metrics: &[$($id),*] }),*];
    };
}

metrics! {
    "Accounts" {
        TOKEN_AGE = Gauge, Seconds, "wxtokend_token_age_seconds", ["appid"],
            "Time since the token was requested.";
        TOKEN_ISSUED = Gauge, UnixTime, "wxtokend_token_issued_timestamp_seconds", ["appid"],
            "When the token was requested, in Unix time.";
        TOKEN_EXPIRY = Gauge, UnixTime, "wxtokend_token_expiry_timestamp_seconds", ["appid"],
            "When the token ends, in Unix time.";
        TOKEN_NEXT_REFRESH = Gauge, UnixTime, "wxtokend_token_next_refresh_timestamp_seconds", ["appid"],
            "When WeChat is asked next, in Unix time; absent while that is not known.";
        TOKEN_VERSION = Gauge, Number, "wxtokend_token_version", ["appid"],
            "The token's version, which grows with each new token.";
        ACCOUNT_STATE = Gauge, Number, "wxtokend_account_state", ["appid", "state"],
            "1 for the state that the account is in.";
        ACCOUNT_FAULT = Gauge, Number, "wxtokend_account_fault", ["appid", "kind", "errcode"],
            "1 if the account's last call failed in this way.";
        ACCOUNT_INFO = Gauge, Number, "wxtokend_account_info", ["appid", "name", "endpoint"],
            "1: the account's name, and the endpoint that its tokens come from.";
        CONSECUTIVE_FAILURES = Gauge, Number, "wxtokend_consecutive_failures", ["appid"],
            "Calls that have failed in a row.";
        BUDGET_LIMIT = Gauge, Number, "wxtokend_budget_limit_calls", ["appid"],
            "Token calls that may be made in any 24 h.";
        BUDGET_REMAINING = Gauge, Number, "wxtokend_budget_remaining_calls", ["appid"],
            "Token calls that may be made right now, at most half of the limit.";
        REFRESHES = Counter, Number, "wxtokend_refreshes_total", ["appid", "outcome"],
            "Token calls by how they ended.";
        REFRESH_FAILURES = Counter, Number, "wxtokend_refresh_failures_total", ["appid", "kind", "errcode"],
            "Failed token calls by what was wrong.";
        REJECTIONS = Counter, Number, "wxtokend_rejections_total", ["appid", "outcome"],
            "Reports of refused tokens, and requests to refresh, by how they were decided.";
    }
    "Tickets" {
        TICKET_AGE = Gauge, Seconds, "wxtokend_ticket_age_seconds", ["appid", "type"],
            "Time since the ticket was issued, as far as is known.";
        TICKET_EXPIRY = Gauge, UnixTime, "wxtokend_ticket_expiry_timestamp_seconds", ["appid", "type"],
            "Until when the ticket is trusted, in Unix time.";
        TICKET_STATE = Gauge, Number, "wxtokend_ticket_state", ["appid", "type", "state"],
            "1 for the state that the ticket is in.";
        TICKET_FAULT = Gauge, Number, "wxtokend_ticket_fault", ["appid", "type", "kind", "errcode"],
            "1 if the last call for the ticket failed in this way.";
        TICKET_BUDGET_REMAINING = Gauge, Number, "wxtokend_ticket_budget_remaining_calls", ["appid", "type"],
            "Calls for the ticket that may be made right now, at most half of the account's limit.";
        TICKET_REFRESHES = Counter, Number, "wxtokend_ticket_refreshes_total", ["appid", "type", "outcome"],
            "Calls for the ticket by how they ended.";
        TICKETS = Gauge, Number, "wxtokend_tickets", ["type", "state"],
            "Tickets by state.";
        FLEET_TICKET_REFRESHES = Counter, Number, "wxtokend_fleet_ticket_refreshes_total", ["outcome"],
            "Calls for tickets of all accounts, including removed ones, by how they ended.";
        TICKET_READS = Counter, Number, "wxtokend_ticket_reads_total", ["outcome"],
            "Reads of tickets by how they were answered.";
    }
    "Fleet" {
        ACCOUNTS = Gauge, Number, "wxtokend_accounts", ["state"],
            "Accounts by state.";
        FLEET_FAULTS = Gauge, Number, "wxtokend_fleet_faults", ["kind", "errcode"],
            "Accounts whose last call failed, by what was wrong.";
        FLEET_TOKEN_AGE_MAX = Gauge, Seconds, "wxtokend_fleet_token_age_max_seconds", [],
            "Time since the oldest valid token was requested.";
        FLEET_TOKEN_EXPIRY_MIN = Gauge, UnixTime, "wxtokend_fleet_token_expiry_min_timestamp_seconds", [],
            "When the first of the valid tokens ends, in Unix time.";
        FLEET_BUDGET_REMAINING_MIN = Gauge, Ratio, "wxtokend_fleet_budget_remaining_min_ratio", [],
            "The smallest share of its budget that an account has left; 1 is a full budget.";
        FLEET_BUDGET_LOW = Gauge, Number, "wxtokend_fleet_budget_low_accounts", [],
            "Accounts with less than a tenth of a full budget left.";
        FLEET_REFRESHES = Counter, Number, "wxtokend_fleet_refreshes_total", ["outcome"],
            "Token calls of all accounts, including removed ones, by how they ended.";
        FLEET_REFRESH_FAILURES =
            Counter, Number, "wxtokend_fleet_refresh_failures_total", ["kind", "errcode"],
            "Failed token calls of all accounts, including removed ones, by what was wrong.";
        FLEET_REJECTIONS = Counter, Number, "wxtokend_fleet_rejections_total", ["outcome"],
            "Reports of refused tokens, and requests to refresh, of all accounts, including removed ones.";
        HINTS = Counter, Number, "wxtokend_hints_total", ["source", "verdict"],
            "Hints that a token may be dead which nobody has reported, by where they came from (`ask`: an SDK asked again, \
             `drift`: a key in Redis was changed, `audit`: the token was not checked for a while) and what became of \
             them: `dead`, `alive`, `unknown` (the check was inconclusive), `skipped` (not checked).";
        TOKEN_READS = Counter, Number, "wxtokend_token_reads_total", ["outcome"],
            "Reads of tokens by how they were answered.";
        ACTOR_RESTARTS = Counter, Number, "wxtokend_actor_restarts_total", [],
            "Crashes of accounts' actors: bugs.";
    }
    "WeChat" {
        UPSTREAM_REQUEST_DURATION =
            Histogram, Seconds, "wxtokend_upstream_request_duration_seconds", ["endpoint"],
            "Time that calls to WeChat took, each attempt by itself.";
        UPSTREAM_IN_FLIGHT = Gauge, Number, "wxtokend_upstream_in_flight", [],
            "Calls to WeChat in flight.";
        UPSTREAM_HOST_UP = Gauge, Number, "wxtokend_upstream_host_up", ["host"],
            "1 unless the host is known to be down.";
        CLOCK_SKEW = Gauge, Seconds, "wxtokend_clock_skew_seconds", [],
            "By how much WeChat's clock is ahead of ours, to the second.";
    }
    "Calls passed on" {
        PROXY_CALLS = Counter, Number, "wxtokend_proxy_calls_total", ["outcome"],
            "Calls of applications, by what became of them: `passed`, `repeated` (the token was refused, replaced, and \
             the call repeated), `refused_again`, `refused` (the token is alive, or cannot be replaced now), \
             `not_repeated` (the body was too long), `invalid`, `no_token`, `bad_gateway`, `gateway_timeout`, \
             `cancelled` (by the client).";
    }
    "Redis" {
        REDIS_UP = Gauge, Number, "wxtokend_redis_up", ["sink"],
            "Whether the Redis accepts what is published.";
        REDIS_PENDING = Gauge, Number, "wxtokend_redis_pending_accounts", ["sink"],
            "Tokens and tickets whose change has not reached the Redis.";
        REDIS_WRITES = Counter, Number, "wxtokend_redis_writes_total", ["sink", "outcome"],
            "Tokens and tickets written to the Redis, or deleted from it.";
        REDIS_DRIFT = Counter, Number, "wxtokend_redis_drift_total", ["sink"],
            "Tokens and tickets whose keys somebody else had changed.";
    }
    "Program" {
        HTTP_REQUEST_DURATION =
            Histogram, Seconds, "wxtokend_http_request_duration_seconds", ["route", "status"],
            "Time until the API began to answer, waits included.";
        WRONG_KEYS = Counter, Number, "wxtokend_wrong_keys_total", [],
            "Requests with a key that no client has.";
        STORE_COMMIT_DURATION = Histogram, Seconds, "wxtokend_store_commit_duration_seconds", [],
            "Time that writing to the store took.";
        STORE_ERRORS = Counter, Number, "wxtokend_store_errors_total", [],
            "Writes to the store that failed.";
        LOG_LINES_DROPPED = Counter, Number, "wxtokend_log_lines_dropped_total", [],
            "Log lines that were dropped because nobody read stderr fast enough.";
        CONFIG_RELOAD_SUCCESSFUL = Gauge, Number, "wxtokend_config_last_reload_successful", [],
            "Whether the configuration was accepted when it was last read.";
        CONFIG_RELOAD_TIME = Gauge, UnixTime, "wxtokend_config_last_reload_timestamp_seconds", [],
            "When the configuration was last read, in Unix time.";
        BUILD_INFO = Gauge, Number, "wxtokend_build_info", ["version"],
            "1: the version that runs.";
        PROCESS_CPU = Counter, Seconds, "process_cpu_seconds_total", [],
            "Processor time spent, in user and kernel mode.";
        PROCESS_START = Gauge, UnixTime, "process_start_time_seconds", [],
            "When the process started, in Unix time.";
        PROCESS_RESIDENT_MEMORY = Gauge, Bytes, "process_resident_memory_bytes", [],
            "Memory that is held in RAM.";
        PROCESS_VIRTUAL_MEMORY = Gauge, Bytes, "process_virtual_memory_bytes", [],
            "Memory in the address space.";
        PROCESS_THREADS = Gauge, Number, "process_threads", [],
            "Threads of the operating system.";
        PROCESS_OPEN_FDS = Gauge, Number, "process_open_fds", [],
            "File descriptors that are open.";
        PROCESS_MAX_FDS = Gauge, Number, "process_max_fds", [],
            "File descriptors that may be open.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_with_the_unit_and_a_counters_with_total() {
        let names: BTreeSet<_> = all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().count());
        for Metric { name, kind, unit, .. } in all() {
            let base = name.strip_suffix("_total");
            assert_eq!(base.is_some(), *kind == MetricKind::Counter, "{name}");
            let base = base.unwrap_or(name);
            let ends_with = |unit: Unit| base.ends_with(unit.suffix());
            assert!(ends_with(*unit), "{name}");
            let units = [Unit::Seconds, Unit::Bytes, Unit::Ratio];
            assert!(*unit != Unit::Number || !units.into_iter().any(ends_with), "{name} has a unit");
        }
    }

    #[test]
    fn a_help_text_is_one_sentence_that_needs_no_escaping() {
        for Metric { name, help, .. } in all() {
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}: {help}");
        }
    }
}
