//! Checks that the program exports the metrics of the table, each with its type and labels, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use wxtokend_core::reference::metrics::all;

use crate::cycles::sources;
use crate::harness::{Http, Lab, find};
use crate::readme::sandboxed;

/// The type of a family in a scrape, and the labels of its samples; `le` belongs to every histogram.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// The families of a scrape by name.
pub(crate) fn scraped(text: &str) -> BTreeMap<String, Family> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    for (name, kind) in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        found.entry(name.to_owned()).or_default().kind = kind.to_owned();
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = family.filter(|family| found.contains_key(*family)).unwrap_or(name);
        let names = labels.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"']).next());
        let names = names.filter(|name| !name.is_empty() && *name != "}" && *name != "le").map(str::to_owned);
        found.get_mut(family).unwrap_or_else(|| panic!("{family} has no TYPE")).labels.extend(names);
    }
    found
}

/// Everything that a daemon can export, including an account in trouble.
pub(crate) async fn scrape_with_a_fault(lab: &Lab) -> String {
    let (daemon, sandbox) = sandboxed(lab).await;
    let appid = "wx5e1f00000000000a";
    // This account has tickets.
    for (appid, fault) in [
        (appid, json!({ "kind": "errcode", "errcode": 40164 })),
        ("wx5e1f00000000000d", json!({ "kind": "errcode", "errcode": 48001, "endpoint": "ticket" })),
    ] {
        let path = format!("/_sandbox/accounts/{appid}/faults");
        let inject = Http::to(sandbox.parse().unwrap()).request(reqwest::Method::POST, &path);
        assert_eq!(Http::try_send(inject.body(fault.to_string())).await.unwrap().status, 200);
    }
    daemon.refresh(appid, false).await;
    daemon.until_state(appid, "parked").await;
    // Tickets are polled every few seconds here.
    let listed = find("a ticket's fault", async || {
        let scrape = daemon.get("/metrics").await.body;
        scrape.contains("wxtokend_ticket_fault{").then_some(scrape)
    });
    listed.await + &sink_metrics().await
}

/// The metrics of publishing, which a daemon on the sandbox does not export.
async fn sink_metrics() -> String {
    let mut lab = Lab::new(60_000, 10_000).await.with_both();
    lab.config["publish"] =
        json!([{ "redis": "redis://127.0.0.1:1", "preset": "wxjava", "accounts": ["*"] }]);
    let scrape = lab.start().await.get("/metrics").await.body;
    scrape.lines().filter(|line| line.contains("wxtokend_redis_")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn the_metrics_of_a_scrape_are_those_of_the_table() {
    let scrape = scrape_with_a_fault(&Lab::new(60_000, 10_000).await).await;
    let exported: BTreeSet<_> = scraped(&scrape).into_iter().collect();
    let table = all().map(|metric| {
        let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        (metric.name.to_owned(), Family { kind: metric.kind.as_str().to_owned(), labels })
    });
    let table: BTreeSet<_> = table.collect();
    let only_exported: Vec<_> = exported.difference(&table).collect();
    let only_in_the_table: Vec<_> = table.difference(&exported).collect();
    assert!(exported == table, "exported: {only_exported:?}, in the table: {only_in_the_table:?}");
}

#[test]
fn what_is_recorded_takes_its_name_from_the_table() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let text: String = text.split_whitespace().collect();
        for recorder in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
            assert!(!text.contains(recorder), "{}: {recorder}…", path.display());
        }
    }
}
