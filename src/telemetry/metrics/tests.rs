//! What a scrape shows of a real fleet before the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::fault::FaultKind;
use crate::http::tests::{Plan, Rig, SECRET, account, id, until};
use crate::sandbox::Fault;
use crate::state::Phase;

/// A scrape, taken apart: each series' value by its name with its labels, and each family's type.
struct Scrape {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads the text, strictly: each family has one HELP and one TYPE, all its samples follow, and no series
    /// stands there twice.
    fn parse(text: &str) -> Self {
        let mut scrape = Self { series: BTreeMap::new(), types: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "HELP stands before TYPE");
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
                assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let suffixes = ["_bucket", "_sum", "_count"].map(|suffix| name.strip_suffix(suffix));
                let of_family = name == family
                    || scrape.types[&family] == "histogram" && suffixes.contains(&Some(&*family));
                assert!(of_family, "{line} stands under {family}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(scrape.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert!(text.ends_with('\n'));
        scrape
    }

    fn of(rig: &Rig) -> Self {
        Self::parse(&rig.metrics.render(&rig.fleet))
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not there: {:#?}", self.series.keys()))
    }

    fn has(&self, part: &str) -> bool {
        self.series.keys().any(|series| series.contains(part))
    }

    fn families(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }
}

/// The contract's list, without `clock_skew_seconds`, which is unknown until WeChat has answered.
const CONTRACT: [&str; 30] = [
    "wxtokend_token_age_seconds",
    "wxtokend_token_issued_timestamp_seconds",
    "wxtokend_token_expiry_timestamp_seconds",
    "wxtokend_token_next_refresh_timestamp_seconds",
    "wxtokend_token_version",
    "wxtokend_account_state",
    "wxtokend_account_fault",
    "wxtokend_account_info",
    "wxtokend_consecutive_failures",
    "wxtokend_budget_limit_calls",
    "wxtokend_budget_remaining_calls",
    "wxtokend_refreshes_total",
    "wxtokend_refresh_failures_total",
    "wxtokend_rejections_total",
    "wxtokend_accounts",
    "wxtokend_upstream_request_duration_seconds",
    "wxtokend_upstream_in_flight",
    "wxtokend_upstream_host_up",
    "wxtokend_actor_restarts_total",
    "wxtokend_token_reads_total",
    "wxtokend_store_commit_duration_seconds",
    "wxtokend_store_errors_total",
    "wxtokend_config_last_reload_successful",
    "wxtokend_config_last_reload_timestamp_seconds",
    "wxtokend_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

#[tokio::test]
async fn every_metric_of_the_contract_is_there_from_the_start() {
    let rig = Rig::start(Plan::default()).await;
    let scrape = Scrape::of(&rig);
    let families: Vec<_> = scrape.families().collect();
    for name in CONTRACT {
        assert!(families.contains(&name), "{name} is not in {families:#?}");
    }
    for (series, value) in [
        ("wxtokend_actor_restarts_total", 0.0),
        ("wxtokend_store_errors_total", 0.0),
        ("wxtokend_upstream_in_flight", 0.0),
        ("wxtokend_token_reads_total{outcome=\"served\"}", 0.0),
        ("wxtokend_config_last_reload_successful", 1.0),
        (concat!("wxtokend_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    for (name, kind) in &scrape.types {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert_eq!(name.contains("_duration_"), kind == "histogram", "{name}");
    }
    let now = SystemClock::new().now().wall_ms as f64 / 1000.0;
    let started = scrape.value("process_start_time_seconds");
    assert!((now - 3600.0..=now + 1.0).contains(&started), "{started}");
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    let open = scrape.value("process_open_fds");
    assert!(open > 3.0 && open < scrape.value("process_max_fds"));
}

#[tokio::test]
async fn an_account_shows_as_it_is_at_this_instant() {
    let mut named = account("wx1");
    named.name = "Flower \"Shop\" \\ 花\nLtd".to_owned();
    let plan = Plan {
        accounts: vec![named, account("wx2")],
        faults: vec![("wx2", Fault::errcode(40164))],
        ..Plan::default()
    };
    let rig = Rig::start(plan).await;
    let token = rig.fleet.token("wx1").await.unwrap();
    let scrape = Scrape::of(&rig);
    let of = |name: &str| scrape.value(&format!("wxtokend_{name}{{appid=\"wx1\"}}"));
    let now = rig.fleet.now().wall_ms as f64 / 1000.0;
    assert_eq!(of("token_version"), token.version() as f64);
    assert_eq!(of("token_expiry_timestamp_seconds"), token.expires_at().as_millisecond() as f64 / 1000.0);
    assert!((of("token_issued_timestamp_seconds") - now).abs() < 20.0);
    assert!((0.0..20.0).contains(&of("token_age_seconds")));
    let next = of("token_next_refresh_timestamp_seconds");
    assert!((now + 6800.0..now + 7200.0).contains(&next), "{next}");
    assert_eq!((of("budget_limit_calls"), of("budget_remaining_calls")), (2000.0, 999.0));
    assert_eq!(of("consecutive_failures"), 0.0);
    let info =
        r#"wxtokend_account_info{appid="wx1",name="Flower \"Shop\" \\ 花\nLtd",endpoint="stable_token"}"#;
    assert_eq!(scrape.value(info), 1.0);
    for (appid, is) in [("wx1", Phase::Fresh), ("wx2", Phase::Parked)] {
        for state in Phase::ALL {
            let series = format!("wxtokend_account_state{{appid=\"{appid}\",state=\"{}\"}}", state.as_str());
            assert_eq!(scrape.value(&series), if state == is { 1.0 } else { 0.0 }, "{series}");
        }
    }
    for (state, count) in [("fresh", 1.0), ("parked", 1.0), ("starting", 0.0)] {
        assert_eq!(scrape.value(&format!("wxtokend_accounts{{state=\"{state}\"}}")), count);
    }
    let refreshed = "wxtokend_refreshes_total{appid=\"wx1\",outcome=\"refreshed\"}";
    assert_eq!(scrape.value(refreshed), 1.0);
    let host = format!("wxtokend_upstream_host_up{{host=\"{}\"}}", rig.fleet.hosts()[0].0);
    assert_eq!(scrape.value(&host), 1.0);
}

#[tokio::test]
async fn an_account_without_a_token_has_a_fault_and_no_token_gauges() {
    let rig = Rig::start(Plan { faults: vec![("wx2", Fault::errcode(40164))], ..Plan::default() }).await;
    let scrape = Scrape::of(&rig);
    let tokens = |series: &&String| series.starts_with("wxtokend_token_") && series.contains("\"wx2\"");
    assert_eq!(scrape.series.keys().find(tokens), None);
    let labels = format!("{{appid=\"wx2\",kind=\"{}\",errcode=\"40164\"}}", FaultKind::Parked.as_str());
    assert_eq!(scrape.value(&format!("wxtokend_account_fault{labels}")), 1.0);
    assert_eq!(scrape.value(&format!("wxtokend_refresh_failures_total{labels}")), 1.0);
    assert_eq!(scrape.value("wxtokend_consecutive_failures{appid=\"wx2\"}"), 1.0);
    assert!(!scrape.has("wxtokend_account_fault{appid=\"wx1\""));
    rig.sandbox.clear_faults(Some(&id("wx2")));
    rig.fleet.refresh("wx2", false).await.unwrap();
    let scrape = Scrape::of(&rig);
    assert!(!scrape.has("wxtokend_account_fault") && scrape.has("wxtokend_token_age_seconds{appid=\"wx2\"}"));
    assert_eq!(scrape.value("wxtokend_rejections_total{appid=\"wx2\",outcome=\"refreshed\"}"), 1.0);
}

#[tokio::test]
async fn a_fault_without_a_code_says_none() {
    let hang = Fault::new(crate::sandbox::FaultKind::Html);
    let rig = Rig::start(Plan { faults: vec![("wx2", hang)], ..Plan::default() }).await;
    let series = "wxtokend_account_fault{appid=\"wx2\",kind=\"transient\",errcode=\"none\"}";
    assert_eq!(Scrape::of(&rig).value(series), 1.0);
}

#[tokio::test]
async fn a_removed_account_is_gone_from_the_next_scrape() {
    let rig = Rig::start(Plan::default()).await;
    assert!(Scrape::of(&rig).has("appid=\"wx2\""));
    rig.reload(vec![account("wx1")]).await;
    let scrape = Scrape::of(&rig);
    assert!(!scrape.has("wx2") && scrape.has("appid=\"wx1\""));
    assert_eq!(scrape.value("wxtokend_accounts{state=\"fresh\"}"), 1.0);
}

#[tokio::test]
async fn requests_are_timed_by_route_and_status() {
    let rig = Rig::start(Plan::default()).await;
    rig.get("/v1/accounts/wx1/token").await;
    rig.get("/v1/accounts/wx2/token").await;
    rig.get("/v1/accounts/wx9/token").await;
    rig.post("/healthz").await;
    rig.get("/some/where").await;
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let scrape = Scrape::parse(&answer.body);
    for (route, status, count) in [
        ("/v1/accounts/{appid}/token", 200, 2.0),
        ("/v1/accounts/{appid}/token", 404, 1.0),
        ("/healthz", 405, 1.0),
        ("unmatched", 404, 1.0),
    ] {
        let labels = format!("route=\"{route}\",status=\"{status}\"");
        assert_eq!(scrape.value(&format!("wxtokend_http_request_duration_seconds_count{{{labels}}}")), count);
    }
    assert!(!answer.body.contains("wx9") && !answer.body.contains("/some/where"));
}

#[tokio::test]
async fn a_reload_that_fails_shows() {
    let rig = Rig::start(Plan::default()).await;
    let at = Moment { wall_ms: 1_790_000_000_500, boot_ms: 0 };
    rig.metrics.note_reload(false, at);
    let scrape = Scrape::of(&rig);
    assert_eq!(scrape.value("wxtokend_config_last_reload_successful"), 0.0);
    assert_eq!(scrape.value("wxtokend_config_last_reload_timestamp_seconds"), 1_790_000_000.5);
}

#[tokio::test]
async fn no_secret_and_no_token_is_in_a_scrape() {
    let rig = Rig::start(Plan { faults: vec![("wx2", Fault::errcode(40125))], ..Plan::default() }).await;
    let token = rig.token_of("wx1").await;
    rig.reject("wx1", &token).await;
    let text = rig.get("/metrics").await.body;
    assert!(!rig.leaks(&text) && !text.contains(SECRET) && !text.contains(&token));
}

#[tokio::test]
async fn ten_thousand_accounts_are_rendered_in_one_go() {
    let accounts = (0..10_000).map(|n| account(&format!("wx{n:016}"))).collect();
    let outage = Fault::new(crate::sandbox::FaultKind::Hang);
    let rig =
        Rig::start_at_once(Plan { accounts, timeout: Duration::from_secs(60), ..Plan::default() }).await;
    rig.sandbox.inject(None, outage);
    until("all cells are there", || rig.fleet.size() == 10_000).await;
    let text = rig.metrics.render(&rig.fleet);
    let scrape = Scrape::parse(&text);
    let states = scrape.series.keys().filter(|series| series.starts_with("wxtokend_account_state")).count();
    assert_eq!(states, 60_000);
    let room = accounts::room_for(&rig.fleet);
    assert!(text.len() < room, "{} bytes, room for {room}", text.len());
}
