//! Scrapes of a real fleet that uses the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wxtokend_core::fault::FaultKind;
use wxtokend_core::phase::Phase;
use wxtokend_sandbox::Fault;

use super::*;
use crate::daemon::http::tests::{Rig, SECRET, TestApi, account, id, until};

/// A parsed scrape: the value of each series by its name with labels, and the type of each family.
struct ScrapedText {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl ScrapedText {
    /// Parses the text strictly: each family has one HELP and one TYPE followed by all its samples, and no
    /// series occurs twice.
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
        Self::with(rig, PerAccount::All)
    }

    /// A scrape with series of their own for these accounts.
    fn with(rig: &Rig, accounts: PerAccount) -> Self {
        let mut text = Vec::new();
        rig.metrics.write(&rig.fleet, accounts, &mut text).unwrap();
        Self::parse(&String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not there: {:#?}", self.series.keys()))
    }

    /// All series of the fleet with their values.
    fn totals(&self) -> BTreeMap<&str, f64> {
        let of_fleet = |series: &str| {
            ["wxtokend_fleet_", "wxtokend_accounts{"]
                .iter()
                .any(|zero_counters| series.starts_with(zero_counters))
        };
        let totals = self.series.iter().filter(|(series, _)| of_fleet(series));
        totals.map(|(series, value)| (series.as_str(), *value)).collect()
    }

    /// The values of an account's series with this name.
    fn values(&self, name: &str) -> Vec<f64> {
        let zero_counters = format!("wxtokend_{name}{{appid=");
        self.series
            .iter()
            .filter(|(series, _)| series.starts_with(&zero_counters))
            .map(|(_, value)| *value)
            .collect()
    }

    fn has(&self, part: &str) -> bool {
        self.series.keys().any(|series| series.contains(part))
    }

    fn families(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }
}

/// The series that the contract promises, without `clock_skew_seconds`, which is unknown until WeChat has
/// answered.
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
    let rig = Rig::start(TestApi::default()).await;
    let scrape = ScrapedText::of(&rig);
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
    let plan = TestApi {
        accounts: vec![named, account("wx2")],
        faults: vec![("wx2", Fault::errcode(40164))],
        ..TestApi::default()
    };
    let rig = Rig::start(plan).await;
    let token = rig.fleet.token("wx1").await.unwrap();
    let scrape = ScrapedText::of(&rig);
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
    let host = format!("wxtokend_upstream_host_up{{host=\"{}\"}}", rig.fleet.hosts()[0].host);
    assert_eq!(scrape.value(&host), 1.0);
}

#[tokio::test]
async fn an_account_without_a_token_has_a_fault_and_no_token_gauges() {
    let rig =
        Rig::start(TestApi { faults: vec![("wx2", Fault::errcode(40164))], ..TestApi::default() }).await;
    let scrape = ScrapedText::of(&rig);
    let tokens = |series: &&String| series.starts_with("wxtokend_token_") && series.contains("\"wx2\"");
    assert_eq!(scrape.series.keys().find(tokens), None);
    let labels = format!("{{appid=\"wx2\",kind=\"{}\",errcode=\"40164\"}}", FaultKind::Parked.as_str());
    assert_eq!(scrape.value(&format!("wxtokend_account_fault{labels}")), 1.0);
    assert_eq!(scrape.value(&format!("wxtokend_refresh_failures_total{labels}")), 1.0);
    assert_eq!(scrape.value("wxtokend_consecutive_failures{appid=\"wx2\"}"), 1.0);
    assert!(!scrape.has("wxtokend_account_fault{appid=\"wx1\""));
    rig.sandbox.clear_faults(Some(&id("wx2")));
    rig.fleet.refresh("wx2", false).await.unwrap();
    let scrape = ScrapedText::of(&rig);
    assert!(
        !scrape.has("wxtokend_account_fault{") && scrape.has("wxtokend_token_age_seconds{appid=\"wx2\"}")
    );
    assert_eq!(scrape.value("wxtokend_rejections_total{appid=\"wx2\",outcome=\"refreshed\"}"), 1.0);
}

#[tokio::test]
async fn a_fault_without_a_code_says_none() {
    let hang = Fault::new(wxtokend_sandbox::FaultKind::Html);
    let rig = Rig::start(TestApi { faults: vec![("wx2", hang)], ..TestApi::default() }).await;
    let series = "wxtokend_account_fault{appid=\"wx2\",kind=\"transient\",errcode=\"none\"}";
    assert_eq!(ScrapedText::of(&rig).value(series), 1.0);
}

#[tokio::test]
async fn a_removed_account_is_gone_from_the_next_scrape() {
    let rig = Rig::start(TestApi::default()).await;
    assert!(ScrapedText::of(&rig).has("appid=\"wx2\""));
    rig.reload(vec![account("wx1")]).await;
    let scrape = ScrapedText::of(&rig);
    assert!(!scrape.has("wx2") && scrape.has("appid=\"wx1\""));
    assert_eq!(scrape.value("wxtokend_accounts{state=\"fresh\"}"), 1.0);
}

#[tokio::test]
async fn requests_are_timed_by_route_and_status() {
    let rig = Rig::start(TestApi::default()).await;
    rig.get("/v1/accounts/wx1/token").await;
    rig.get("/v1/accounts/wx2/token").await;
    rig.get("/v1/accounts/wx9/token").await;
    rig.post("/healthz").await;
    rig.get("/some/where").await;
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let scrape = ScrapedText::parse(&answer.body);
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
    let rig = Rig::start(TestApi::default()).await;
    let at = Moment { wall_ms: 1_790_000_000_500, boot_ms: 0 };
    rig.metrics.note_reload(false, at);
    let scrape = ScrapedText::of(&rig);
    assert_eq!(scrape.value("wxtokend_config_last_reload_successful"), 0.0);
    assert_eq!(scrape.value("wxtokend_config_last_reload_timestamp_seconds"), 1_790_000_000.5);
}

#[tokio::test]
async fn no_secret_and_no_token_is_in_a_scrape() {
    let rig =
        Rig::start(TestApi { faults: vec![("wx2", Fault::errcode(40125))], ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    rig.reject("wx1", &token).await;
    let text = rig.get("/metrics").await.body;
    assert!(!rig.leaks(&text) && !text.contains(SECRET) && !text.contains(&token));
}

#[tokio::test]
async fn the_totals_agree_with_the_accounts_whatever_is_shown_of_each() {
    let mut poor = account("wx3");
    poor.settings.daily_budget = 4;
    let faults = vec![("wx2", Fault::errcode(40164)), ("wx5", Fault::errcode(40164))];
    let accounts = ["wx1", "wx2", "wx5"].map(account).into_iter().chain([poor]).collect();
    let rig = Rig::start(TestApi { accounts, faults, ..TestApi::default() }).await;
    rig.fleet.refresh("wx3", false).await.unwrap();
    let scrape = ScrapedText::of(&rig);
    let least = |name: &str| scrape.values(name).into_iter().reduce(f64::min).unwrap();
    let greatest = |name: &str| scrape.values(name).into_iter().reduce(f64::max).unwrap();
    for (series, value) in [
        ("accounts{state=\"parked\"}", 2.0),
        ("fleet_faults{kind=\"parked\",errcode=\"40164\"}", 2.0),
        ("fleet_token_age_max_seconds", greatest("token_age_seconds")),
        ("fleet_token_expiry_min_timestamp_seconds", least("token_expiry_timestamp_seconds")),
        ("fleet_budget_remaining_min_ratio", 0.0),
        ("fleet_budget_low_accounts", 1.0),
        ("fleet_refreshes_total{outcome=\"refreshed\"}", 2.0),
        ("fleet_refreshes_total{outcome=\"unchanged\"}", 1.0),
        ("fleet_refreshes_total{outcome=\"failed\"}", 2.0),
        ("fleet_refresh_failures_total{kind=\"parked\",errcode=\"40164\"}", 2.0),
        ("fleet_rejections_total{outcome=\"still_valid\"}", 1.0),
    ] {
        assert_eq!(scrape.value(&format!("wxtokend_{series}")), value, "{series}");
    }
    for accounts in [PerAccount::Troubled, PerAccount::None] {
        let other = ScrapedText::with(&rig, accounts);
        assert!(scrape.families().eq(other.families()), "{accounts:?}");
        let age = "wxtokend_fleet_token_age_max_seconds";
        let (mut before, mut after) = (scrape.totals(), other.totals());
        assert!(before.remove(age).unwrap() <= after.remove(age).unwrap());
        assert_eq!(before, after, "{accounts:?}");
    }
}

#[tokio::test]
async fn without_a_valid_token_there_is_no_oldest_one() {
    let faults = ["wx1", "wx2"].map(|appid| (appid, Fault::errcode(40164))).into();
    let rig = Rig::start(TestApi { faults, ..TestApi::default() }).await;
    let scrape = ScrapedText::of(&rig);
    assert!(!scrape.has("wxtokend_fleet_token_age") && !scrape.has("wxtokend_fleet_token_expiry"));
}

#[tokio::test]
async fn an_account_that_is_asked_about_only_in_trouble_has_series_while_it_is() {
    let accounts = ["wx1", "wx2", "wx3"].map(account).into();
    let faults = vec![("wx2", Fault::errcode(40164))];
    let rig = Rig::start(TestApi { accounts, faults, ..TestApi::default() }).await;
    let shown_of = |accounts| {
        let scrape = ScrapedText::with(&rig, accounts);
        ["wx1", "wx2", "wx3"].map(|appid| scrape.has(&format!("appid=\"{appid}\"")))
    };
    let shown = || shown_of(PerAccount::Troubled);
    assert_eq!(shown(), [false, true, false], "one is parked");
    rig.sandbox.inject(Some(&id("wx3")), Fault::new(wxtokend_sandbox::FaultKind::Html));
    rig.fleet.refresh("wx3", false).await.unwrap();
    assert_eq!(rig.fleet.account("wx3").unwrap().state, Phase::Degraded);
    assert_eq!(shown(), [false, true, true], "and one is degraded");
    assert_eq!(
        ScrapedText::with(&rig, PerAccount::Troubled)
            .value("wxtokend_refreshes_total{appid=\"wx3\",outcome=\"refreshed\"}"),
        1.0
    );
    rig.sandbox.clear_faults(Some(&id("wx2")));
    rig.fleet.refresh("wx2", false).await.unwrap();
    assert_eq!(shown(), [false, false, true], "its trouble is over");
    rig.reload(["wx1", "wx2"].map(account).into()).await;
    assert_eq!(shown(), [false; 3], "it is removed");
    rig.sandbox.kill_tokens(&id("wx1"));
    assert!(!ScrapedText::with(&rig, PerAccount::None).has("appid="));
    assert_eq!(shown_of(PerAccount::All), [true, true, false]);
}

#[tokio::test]
async fn a_call_under_way_does_not_hide_that_the_last_one_failed() {
    let rig = Rig::start(TestApi::default()).await;
    rig.sandbox.inject(Some(&id("wx1")), Fault::new(wxtokend_sandbox::FaultKind::Html));
    rig.fleet.refresh("wx1", false).await.unwrap();
    rig.sandbox.clear_faults(Some(&id("wx1")));
    rig.sandbox.inject(None, Fault::new(wxtokend_sandbox::FaultKind::Hang));
    let refreshes = ["wx1", "wx2"].map(|appid| {
        let fleet = rig.fleet.clone();
        tokio::spawn(async move { drop(fleet.refresh(appid, false).await) })
    });
    let is_refreshing = |appid| rig.fleet.account(appid).unwrap().state == Phase::Refreshing;
    until("both are under way", || is_refreshing("wx1") && is_refreshing("wx2")).await;
    let scrape = ScrapedText::with(&rig, PerAccount::Troubled);
    assert!(scrape.has("appid=\"wx1\"") && !scrape.has("appid=\"wx2\""));
    refreshes.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_account_that_is_starting_is_not_in_trouble() {
    let faults = vec![("wx1", Fault::new(wxtokend_sandbox::FaultKind::Hang))];
    let plan = TestApi {
        accounts: vec![account("wx1")],
        faults,
        timeout: Duration::from_secs(60),
        ..TestApi::default()
    };
    let rig = Rig::start_at_once(plan).await;
    let scrape = ScrapedText::with(&rig, PerAccount::Troubled);
    assert_eq!(scrape.value("wxtokend_accounts{state=\"starting\"}"), 1.0);
    assert!(!scrape.has("appid="));
}

#[tokio::test]
async fn what_is_counted_of_all_accounts_does_not_fall_when_one_goes_and_comes_back() {
    let rig =
        Rig::start(TestApi { faults: vec![("wx2", Fault::errcode(40164))], ..TestApi::default() }).await;
    rig.fleet.refresh("wx2", false).await.unwrap_err();
    rig.fleet.refresh("wx1", false).await.unwrap();
    let counts = || {
        let scrape = ScrapedText::of(&rig);
        let counts = scrape.totals().into_iter().filter(|(series, _)| series.contains("_total"));
        counts.map(|(series, count)| (series.to_owned(), count)).collect::<BTreeMap<_, _>>()
    };
    let before = counts();
    assert_eq!(before["wxtokend_fleet_refresh_failures_total{kind=\"parked\",errcode=\"40164\"}"], 2.0);
    rig.reload(vec![account("wx1")]).await;
    assert_eq!(counts(), before);
    rig.reload(vec![account("wx1"), account("wx2")]).await;
    let failed = "wxtokend_fleet_refreshes_total{outcome=\"failed\"}";
    until("it is tried again", || counts()[failed] == 3.0).await;
}

/// Accepts a limited number of parts and records the length of each.
struct Parts {
    taken: usize,
    lengths: Vec<usize>,
}

impl io::Write for Parts {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.lengths.push(part.len());
        if self.lengths.len() > self.taken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(part.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_long_scrape_is_made_in_parts_and_no_further_than_somebody_takes_them() {
    let accounts = (0..500).map(|n| account(&format!("wx{n:016}"))).collect();
    let rig = Rig::start_at_once(TestApi { accounts, ..TestApi::default() }).await;
    let mut parts = Parts { taken: usize::MAX, lengths: Vec::new() };
    rig.metrics.write(&rig.fleet, PerAccount::All, &mut parts).unwrap();
    let lengths = parts.lengths;
    assert!(lengths.len() > 5 && lengths.iter().all(|length| *length < 65 * 1024), "{lengths:?}");
    let mut parts = Parts { taken: 1, lengths: Vec::new() };
    rig.metrics.write(&rig.fleet, PerAccount::All, &mut parts).unwrap_err();
    assert_eq!(parts.lengths.len(), 2);
}

#[tokio::test]
async fn a_ticket_has_series_of_its_own_in_addition_to_its_accounts() {
    let tickets = wxtokend_core::ticket::TicketKind::ALL.into_iter().collect();
    let with_tickets = account("wx1").with(|settings| settings.tickets = tickets);
    let fault = Fault::errcode(48001).on(wxtokend_sandbox::Call::Ticket);
    let accounts =
        vec![with_tickets.clone(), wxtokend_core::account::Account { appid: id("wx2"), ..with_tickets }];
    let rig = Rig::start(TestApi { accounts, faults: vec![("wx2", fault)], ..TestApi::default() }).await;
    until("all have ended a call", || {
        let views = rig.fleet.accounts().into_iter().flat_map(|account| account.tickets);
        views.into_iter().all(|ticket| ticket.state != Phase::Starting)
    })
    .await;
    let scrape = ScrapedText::of(&rig);
    for kind in ["jsapi", "wx_card"] {
        let labels = format!("appid=\"wx1\",type=\"{kind}\"");
        assert!(scrape.value(&format!("wxtokend_ticket_age_seconds{{{labels}}}")) < 20.0);
        assert!(scrape.value(&format!("wxtokend_ticket_expiry_timestamp_seconds{{{labels}}}")) > 1e9);
        for phase in Phase::ALL {
            let state = format!("wxtokend_ticket_state{{{labels},state=\"{}\"}}", phase.as_str());
            assert_eq!(scrape.value(&state), f64::from(u8::from(phase == Phase::Fresh)), "{state}");
        }
        assert_eq!(scrape.value(&format!("wxtokend_ticket_budget_remaining_calls{{{labels}}}")), 999.0);
        let refreshed = format!("wxtokend_ticket_refreshes_total{{{labels},outcome=\"refreshed\"}}");
        assert_eq!(scrape.value(&refreshed), 1.0);
        let fault = format!("appid=\"wx2\",type=\"{kind}\",kind=\"parked\",errcode=\"48001\"");
        assert_eq!(scrape.value(&format!("wxtokend_ticket_fault{{{fault}}}")), 1.0);
        for (state, count) in [("fresh", 1.0), ("parked", 1.0), ("starting", 0.0)] {
            let all = format!("wxtokend_tickets{{type=\"{kind}\",state=\"{state}\"}}");
            assert_eq!(scrape.value(&all), count, "{all}");
        }
    }
    assert!(!scrape.has("wxtokend_ticket_age_seconds{appid=\"wx2\""), "there is none");
    for (outcome, count) in [("refreshed", 2.0), ("failed", 2.0), ("unchanged", 0.0)] {
        let all = format!("wxtokend_fleet_ticket_refreshes_total{{outcome=\"{outcome}\"}}");
        assert_eq!(scrape.value(&all), count, "{all}");
    }
    let scrape = ScrapedText::with(&rig, PerAccount::Troubled);
    assert!(
        scrape.has("wxtokend_ticket_state{appid=\"wx2\"")
            && !scrape.has("wxtokend_ticket_state{appid=\"wx1\"")
    );
    let named = |appid: &str| scrape.has(&format!("wxtokend_account_info{{appid=\"{appid}\""));
    assert!(named("wx2") && !named("wx1"), "whose ticket is in trouble has a name");
    let scrape = ScrapedText::with(&rig, PerAccount::None);
    assert!(!scrape.has("wxtokend_ticket_state{") && scrape.has("wxtokend_tickets{"));
    rig.reload(vec![account("wx1")]).await;
    assert!(!ScrapedText::of(&rig).has("wxtokend_ticket_state{"), "nobody keeps them any more");
}

#[tokio::test(start_paused = true)]
async fn samples_are_drained_without_a_router_for_as_long_as_the_registry_is_there() {
    let metrics = Metrics::detached();
    metrics.request_durations("/v1/accounts", 200).record(0.5);
    // Only its `Debug` shows what is in the buckets without draining first.
    let is_drained = || format!("{:?}", metrics.recorder).contains("Histogram { count: 1,");
    assert!(!is_drained());
    sleep(2 * UPKEEP_INTERVAL).await;
    assert!(is_drained());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 1);
    drop(metrics);
    sleep(2 * UPKEEP_INTERVAL).await;
    assert_eq!(tasks(), 0);
}
