//! A Prometheus that scrapes a troubled daemon evaluates every expression of the dashboards and raises the
//! alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep};
use wxtokend_sandbox::{Call, Fault, FaultKind};

use super::boards::{Expression, Use};
use super::{Board, path, read};
use crate::harness::{Daemon, Http, Lab, Prometheus, QueryResult, appid, find, said, tool, until, words};

/// Several scrapes, a second apart, and as long again for a slow machine.
const BOUND: Duration = Duration::from_secs(90);
/// The account that the account dashboard shows: parked, with a token and with tickets.
const LOOKED_AT: &str = "parked";

/// Replaces variables as Grafana does.
fn substituted(expr: &str) -> String {
    [
        ("$__rate_interval", "15s"),
        ("$__interval", "5s"),
        ("$__range", "60s"),
        ("$instance", ".*"),
        ("$appid", LOOKED_AT),
    ]
    .iter()
    .fold(expr.to_owned(), |expr, (variable, value)| expr.replace(variable, value))
}

fn errcode(errcode: i64) -> Fault {
    Fault::new(FaultKind::Errcode { errcode, errmsg: None })
}

/// Accounts in each kind of trouble, and a Redis that does not exist. Their tokens live shorter than the
/// alert for ending tokens looks ahead.
async fn in_trouble() -> Lab {
    let mut lab = Lab::new(500_000, 100_000).await;
    lab.config["publish"] =
        json!([{ "redis": "redis://127.0.0.1:1", "preset": "wxjava", "accounts": ["*"] }]);
    lab.add("fresh", json!({ "name": "城市图书馆" }));
    lab.add(LOOKED_AT, json!({ "name": "Flower \"Shop\", {1}", "tickets": ["jsapi", "wx_card"] }));
    lab.add("unavailable", json!({ "endpoint": "token" }));
    lab.add("throttled", json!({}));
    lab.add("reported", json!({}));
    lab.add("degraded", json!({}));
    lab.add("cold", json!({}));
    lab.add("spent", json!({ "daily_budget": 4 }));
    lab.add("unsigned", json!({ "tickets": ["jsapi"] }));
    lab.wechat.inject(Some(&appid("unavailable")), errcode(-1));
    lab.wechat.inject(Some(&appid("throttled")), errcode(45009));
    lab.wechat.inject(Some(&appid("cold")), errcode(40125));
    lab.wechat.inject(Some(&appid("unsigned")), errcode(-1).on(Call::Ticket));
    lab
}

/// The shipped configuration, with a scrape interval of one second and this daemon.
fn prometheus_config(lab: &Lab, daemon: &Daemon) -> PathBuf {
    let mut config: Value = serde_yaml::from_str(&read("prometheus.yaml")).unwrap();
    config["global"] = json!({ "scrape_interval": "1s", "evaluation_interval": "1s" });
    config["scrape_configs"][0]["static_configs"][0]["targets"] = json!([daemon.address().to_string()]);
    for file in config["rule_files"].as_array_mut().unwrap() {
        *file = json!(path(file.as_str().unwrap()));
    }
    let file = lab.path("prometheus.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// Reads and refreshes in the background, so that there is something to measure.
fn traffic(http: &Http) -> AbortHandle {
    let http = http.clone();
    let traffic = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(300));
        loop {
            ticks.tick().await;
            let _ = http.try_token("fresh").await;
            let _ = http.try_get(&format!("/v1/accounts/{LOOKED_AT}/tickets/jsapi")).await;
            let _ = http.try_refresh("fresh", false).await;
        }
    });
    traffic.abort_handle()
}

/// Ends the token of `reported` early, `times` times.
async fn somebody_ends_tokens(lab: &Lab, daemon: &Daemon, times: usize) {
    lab.wechat.replace_dead_stable_tokens();
    for _ in 0..times {
        let token = daemon.token_value("reported").await;
        lab.wechat.kill_tokens(&appid("reported"));
        until("a report replaces the dead token", async || {
            daemon.reject("reported", &token).await.word("outcome") != "limited"
        })
        .await;
    }
}

async fn answer(
    prometheus: &Prometheus,
    Expression { expr, use_, .. }: &Expression,
    since: Instant,
) -> QueryResult {
    let expr = substituted(expr);
    let parts = |call: &str| expr.strip_prefix(call)?.strip_suffix(')').map(str::to_owned);
    match use_ {
        Use::Now => prometheus.now(&expr).await,
        Use::Lately | Use::Marks => {
            let span = since.elapsed().min(Duration::from_secs(60));
            prometheus.range(&expr, prometheus.clock().await, span).await
        }
        Use::Variable => match (parts("label_values("), parts("query_result(")) {
            (Some(parts), None) => {
                let (selector, label) = parts.rsplit_once(", ").unwrap();
                QueryResult::Series(prometheus.label_values(label, selector).await)
            }
            (None, Some(expr)) => prometheus.now(&expr).await,
            _ => QueryResult::Refused("no query of a variable".to_owned()),
        },
    }
}

/// Queries until each expression has returned data once.
async fn until_all_have_data(prometheus: &Prometheus, mut pending: Vec<Expression>, since: Instant) {
    while !pending.is_empty() {
        let mut without = Vec::new();
        for expression in pending {
            match answer(prometheus, &expression, since).await {
                QueryResult::Refused(why) => panic!("{}: {why}\n{}", expression.place, expression.expr),
                QueryResult::Series(series) if series.is_empty() => without.push(expression),
                QueryResult::Series(_) => {}
            }
        }
        let open: Vec<_> = without.iter().map(|one| format!("{}: {}", one.place, one.expr)).collect();
        assert!(since.elapsed() < BOUND, "no data within {BOUND:?}:\n{}", open.join("\n"));
        pending = without;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until exactly these alerts are pending or firing.
async fn until_alerts_are(prometheus: &Prometheus, expected: &[&str]) {
    let mut seen = BTreeSet::new();
    let start = Instant::now();
    loop {
        let alerts = prometheus.alerts().await;
        let names = alerts.iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned());
        let names: BTreeSet<_> = names.collect();
        if names.iter().eq(expected) {
            return;
        }
        seen.extend(names.clone());
        assert!(start.elapsed() < BOUND, "{expected:?} in vain: {names:?}, and of late {seen:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// A daemon with accounts in every kind of trouble, clients, and a Prometheus that scrapes it.
struct Stage {
    lab: Lab,
    daemon: Daemon,
    prometheus: Prometheus,
    since: Instant,
    traffic: AbortHandle,
}

impl Stage {
    /// Starts everything, with `metrics.per_account` set to this value.
    async fn set(per_account: &str) -> Self {
        let mut lab = in_trouble().await;
        lab.config["metrics"] = json!({ "per_account": per_account });
        let daemon = lab.start().await;
        for account in ["fresh", LOOKED_AT, "degraded", "reported", "spent"] {
            daemon.until_state(account, "fresh").await;
        }
        until("there are tickets", async || {
            let view = daemon.view(LOOKED_AT).await;
            view["tickets"].as_array().unwrap().iter().all(|ticket| ticket["state"] == "fresh")
        })
        .await;
        let prometheus = Prometheus::start(&lab, &prometheus_config(&lab, &daemon)).await;
        let since = Instant::now();
        // Counts must be seen to grow from here on.
        until("a first scrape", async || {
            let counter = prometheus.now("wxtokend_fleet_rejections_total").await;
            matches!(counter, QueryResult::Series(all) if !all.is_empty())
        })
        .await;
        let traffic = traffic(&daemon.http);
        lab.wechat.inject(Some(&appid(LOOKED_AT)), errcode(48001).on(Call::Ticket));
        for (account, code) in [(LOOKED_AT, 40164), ("degraded", 45011)] {
            lab.wechat.inject(Some(&appid(account)), errcode(code));
            daemon.refresh(account, false).await;
        }
        until("a budget is spent", async || {
            daemon.refresh("spent", false).await;
            daemon.view("spent").await["budget"]["remaining"] == 0
        })
        .await;
        somebody_ends_tokens(&lab, &daemon, 4).await;
        daemon.reload().await;
        Self { lab, daemon, prometheus, since, traffic }
    }
}

/// All expressions, with those separated that have data only after a refused reload.
fn expressions() -> (Vec<Expression>, Vec<Expression>) {
    let all = Board::all().iter().flat_map(Board::expressions).collect::<Vec<_>>();
    all.into_iter().partition(|one| !one.place.ends_with("Refused configurations"))
}

#[tokio::test]
async fn sums_and_alerts_stay_where_accounts_have_no_series_or_only_in_trouble() {
    for (per_account, named) in [("none", false), ("troubled", true)] {
        let Stage { lab: _lab, daemon: _daemon, prometheus, since, traffic } = Stage::set(per_account).await;
        let of_accounts = ["appid", "wxtokend_account_", "wxtokend_token_expiry", "wxtokend_budget_"];
        let (sums, _) = expressions();
        let sums: Vec<_> =
            sums.into_iter().filter(|one| !of_accounts.iter().any(|name| one.expr.contains(name))).collect();
        assert!(sums.len() > 25, "{}", sums.len());
        until_all_have_data(&prometheus, sums, since).await;
        if named {
            the_table_of_trouble_shows_who_why_and_how_long(&prometheus).await;
        }
        let mut trouble = vec![
            "WxtokendAccountParked",
            "WxtokendAccountUnavailable",
            "WxtokendBudgetNearlySpent",
            "WxtokendFailureRate",
            "WxtokendRedisDown",
            "WxtokendRejectionsSpiking",
            "WxtokendTicketParked",
            "WxtokendTicketUnavailable",
        ];
        trouble.extend(named.then_some("WxtokendTokenExpiring"));
        until_alerts_are(&prometheus, &trouble).await;
        for alert in prometheus.alerts().await {
            let by_name = alert["labels"].get("appid").is_some();
            let of_all = [
                "WxtokendFailureRate",
                "WxtokendBudgetNearlySpent",
                "WxtokendRedisDown",
                "WxtokendRejectionsSpiking",
            ]
            .contains(&alert["labels"]["alertname"].as_str().unwrap());
            assert_eq!(by_name, named && !of_all, "{per_account}: {alert}");
        }
        traffic.abort();
    }
}

#[tokio::test]
async fn a_prometheus_answers_every_expression_and_raises_the_alarm_on_a_daemon_in_trouble() {
    let Stage { mut lab, daemon, prometheus, since, traffic } = Stage::set("all").await;
    let (others, refusals) = expressions();
    assert!(others.len() > 50, "{}", others.len());
    until_all_have_data(&prometheus, others, since).await;
    names_are_picked_from_what_prometheus_says(&prometheus).await;
    the_table_of_trouble_shows_who_why_and_how_long(&prometheus).await;

    std::fs::write(lab.path("accounts.yaml"), "accounts: {").unwrap();
    daemon.signal(Signal::HUP);
    daemon.event("reload", 2).await;
    for refusal in refusals {
        until(&refusal.place, async || {
            matches!(answer(&prometheus, &refusal, since).await, QueryResult::Series(all) if !all.is_empty())
        })
        .await;
    }
    let trouble = [
        "WxtokendAccountParked",
        "WxtokendAccountUnavailable",
        "WxtokendBudgetNearlySpent",
        "WxtokendFailureRate",
        "WxtokendRedisDown",
        "WxtokendRejectionsSpiking",
        "WxtokendReloadFailed",
        "WxtokendTicketParked",
        "WxtokendTicketUnavailable",
        "WxtokendTokenExpiring",
    ];
    until_alerts_are(&prometheus, &trouble).await;
    rules_are_well_and_advise(&prometheus).await;

    traffic.abort();
    lab.wechat.close().await;
    daemon.refresh("fresh", false).await;
    let outage = ["WxtokendHostDown", "WxtokendWeChatUnreachable"];
    until("WeChat is told to be unreachable", async || {
        let alerts = prometheus.alerts().await;
        outage.iter().all(|name| alerts.iter().any(|alert| alert["labels"]["alertname"] == *name))
    })
    .await;
    daemon.kill().await;
    until("the daemon is told to be down", async || {
        prometheus.alerts().await.iter().any(|alert| alert["labels"]["alertname"] == "WxtokendDown")
    })
    .await;
}

/// As Grafana does: each series as text, with two named groups of a regular expression.
async fn names_are_picked_from_what_prometheus_says(prometheus: &Prometheus) {
    let boards = Board::all();
    let variable = boards[1].variables().iter().find(|variable| variable["name"] == "appid").unwrap();
    let query = variable["query"]["query"].as_str().unwrap();
    let expr = query.strip_prefix("query_result(").unwrap().strip_suffix(')').unwrap();
    let QueryResult::Series(all) = prometheus.now(expr).await else { panic!("{expr}") };
    let script = "
        const [all, regex] = JSON.parse(process.argv[1]);
        const found = all.map(({ metric: { __name__ = '', ...labels }, value }) => {
            const text = __name__ + '{' + Object.entries(labels).map(([k, v]) => `${k}=\"${v}\"`).join(',') + '}';
            const { groups } = `${text} ${value[1]} ${value[0] * 1000}`.match(new RegExp(regex.slice(1, -1)));
            return [groups.value, groups.text];
        });
        console.log(JSON.stringify(found));";
    let mut node = tool("node", "nodejs").await;
    node.args(["-e", script, &json!([all, variable["regex"]]).to_string()]);
    let ended = said(node).await;
    let found: BTreeMap<String, String> = serde_json::from_slice::<Vec<(String, String)>>(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", words(&ended)))
        .into_iter()
        .collect();
    assert_eq!(found.len(), 9);
    assert_eq!(found["fresh"], "城市图书馆 · fresh");
    assert_eq!(found[LOOKED_AT], "Flower \"Shop\", {1} · parked");
}

async fn the_table_of_trouble_shows_who_why_and_how_long(prometheus: &Prometheus) {
    let boards = Board::all();
    let table = boards[0].panels().find(|panel| panel["type"] == "table").unwrap();
    let expr = substituted(table["targets"][0]["expr"].as_str().unwrap());
    let rows = find("five accounts in trouble", async || match prometheus.now(&expr).await {
        QueryResult::Series(rows) => (rows.len() == 5).then_some(rows),
        QueryResult::Refused(why) => panic!("{why}"),
    })
    .await;
    let label = |row: &Value, label: &str| row["metric"][label].as_str().unwrap().to_owned();
    let left = |row: &Value| row["value"][1].as_str().unwrap().parse::<f64>().unwrap();
    // Accounts that need a person come first, and among these the ones without a token.
    let order: Vec<_> = rows.iter().map(|row| (label(row, "state"), left(row) > 1.0)).collect();
    let expected = [
        ("parked", false),
        ("parked", true),
        ("unavailable", false),
        ("unavailable", false),
        ("degraded", true),
    ];
    assert_eq!(order, expected.map(|(state, has_token)| (state.to_owned(), has_token)));
    let all: BTreeMap<_, _> = rows.iter().map(|row| (label(row, "appid"), row)).collect();
    for (appid, name, advice) in [
        (LOOKED_AT, "Flower \"Shop\", {1}", "parked/40164"),
        ("cold", "cold", "parked/40125"),
        ("throttled", "throttled", "throttled/45009"),
        ("unavailable", "unavailable", "transient/-1"),
        ("degraded", "degraded", "throttled/45011"),
    ] {
        assert_eq!(
            (label(all[appid], "name"), label(all[appid], "advice")),
            (name.to_owned(), advice.to_owned())
        );
    }
}

async fn rules_are_well_and_advise(prometheus: &Prometheus) {
    let rules = prometheus.rules().await;
    assert_eq!(rules.len(), super::rules::rules().len());
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule}");
        if rule["type"] == "recording" {
            let recorded = prometheus.now(name).await;
            assert!(
                matches!(recorded, QueryResult::Series(all) if !all.is_empty()),
                "{name} records nothing"
            );
        }
    }
    let alerts = prometheus.alerts().await;
    let of = |name: &str, appid: &str| {
        let is = |alert: &&Value| alert["labels"]["alertname"] == name && alert["labels"]["appid"] == appid;
        alerts.iter().find(is).unwrap_or_else(|| panic!("{name} of {appid}: {alerts:?}"))["annotations"]
            .clone()
    };
    let parked = of("WxtokendAccountParked", LOOKED_AT);
    assert_eq!(
        parked["summary"],
        "Flower \"Shop\", {1} (parked) needs a person: WeChat refuses to give out a token"
    );
    assert!(parked["advice"].as_str().unwrap().contains("IP whitelist"), "{parked}");
    let ticket = of("WxtokendTicketParked", LOOKED_AT);
    assert!(
        ticket["summary"].as_str().unwrap().contains("ticket of Flower \"Shop\", {1} (parked)"),
        "{ticket}"
    );
    assert!(ticket["advice"].as_str().unwrap().contains("may not use the API"), "{ticket}");
    let unsigned = of("WxtokendTicketUnavailable", "unsigned");
    assert!(unsigned["advice"].as_str().unwrap().contains("WeChat is busy"), "{unsigned}");
    let throttled = of("WxtokendAccountUnavailable", "throttled");
    assert!(throttled["advice"].as_str().unwrap().contains("quota reset"), "{throttled}");
    for alert in &alerts {
        let label = alert["annotations"].to_string();
        assert!(
            !label.contains("error") && !label.contains("<no value>") && !label.contains("{{"),
            "{alert}"
        );
    }
}

#[test]
fn every_variable_of_grafana_is_known_here() {
    for expression in Board::all().iter().flat_map(Board::expressions) {
        let open = substituted(&expression.expr);
        assert!(!open.contains('$'), "{}: {open}", expression.place);
    }
}
