//! Checks that dashboards, rules, documents and a scrape use the same metric names.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::rules::rules;
use super::{Board, read};
use crate::cycles::sources;
use crate::harness::{Lab, tool, words};
use crate::metrics::{scrape_with_a_fault, scraped};

/// Our names in a text: of metrics, and of recording rules (`level:metric:operations`).
fn names(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !part_of_a_name(c)).map(|word| word.trim_end_matches(':'));
    let (recorded, plain): (Vec<_>, _) = words.partition(|word| word.contains(":wxtokend_"));
    let ours = |word: &&str| word.starts_with("wxtokend_") || word.starts_with("process_");
    // This is the name of a group of rules.
    let plain = plain.into_iter().filter(ours).filter(|word| *word != "wxtokend_advice");
    (plain.map(str::to_owned).collect(), recorded.into_iter().map(str::to_owned).collect())
}

/// The family of a histogram's series.
fn family(name: &str, families: &BTreeSet<String>) -> String {
    let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    parts.filter(|family| families.contains(*family)).unwrap_or(name).to_owned()
}

#[tokio::test]
async fn dashboards_rules_and_documents_name_the_metrics_of_a_scrape_and_all_of_them() {
    let lab = Lab::new(60_000, 10_000).await;
    let families: BTreeSet<String> = scraped(&scrape_with_a_fault(&lab).await).into_keys().collect();
    let shown: String =
        Board::all().iter().flat_map(Board::expressions).map(|shown| shown.expr + "\n").collect();
    let texts = [
        ("the dashboards", shown),
        ("the rules", read("rules/wxtokend.rules.yaml")),
        ("grafana/README.md", read("README.md")),
        ("docs/runbook.md", read("../docs/runbook.md")),
    ];
    let records: BTreeSet<_> =
        rules().iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect();
    let mut used = BTreeSet::new();
    for (place, text) in texts {
        let (plain, recorded) = names(&text);
        for name in plain {
            let family = family(&name, &families);
            assert!(families.contains(&family), "{place}: {name} is no metric of ours");
            used.insert(family);
        }
        assert!(recorded.is_subset(&records), "{place}: {recorded:?}");
        assert!(place != "the dashboards" || recorded.is_empty(), "a dashboard works without the rules");
    }
    let unused: Vec<_> =
        families.difference(&used).filter(|family| family.starts_with("wxtokend_")).collect();
    assert!(unused.is_empty(), "exported and shown nowhere: {unused:?}");
}

#[test]
fn the_runbook_and_the_rules_name_events_that_are_logged() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [sources(&root.join("src")), sources(&root.join("crates/core/src"))].concat();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for text in [read("rules/wxtokend.rules.yaml"), read("../docs/runbook.md")] {
        let events = text.split("event=").skip(1);
        let events = events.map(|rest| rest.split(|c: char| c != '_' && !c.is_alphabetic()).next().unwrap());
        let events: BTreeSet<_> = events.collect();
        assert!(!events.is_empty());
        for event in events {
            let quoted = format!("\"{event}\"");
            assert!(texts.iter().any(|text| text.contains(&quoted)), "event={event}");
        }
    }
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let lab = Lab::new(60_000, 10_000).await;
    let scrape = scrape_with_a_fault(&lab).await;
    let mut promtool = tool("promtool", "prometheus").await.into_std();
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = promtool.spawn().unwrap();
        child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let ended = ended.await.unwrap();
    assert!(ended.status.success() && words(&ended).is_empty(), "{}", words(&ended));
}
