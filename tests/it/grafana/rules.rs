//! The alert rules: their links, and that each has been seen firing and not firing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{path, read};
use crate::harness::{said, tool, words};

const RULES: &str = "rules/wxtokend.rules.yaml";
const TESTS: [&str; 4] = [
    "rules/tests/accounts.yaml",
    "rules/tests/daemon.yaml",
    "rules/tests/tickets.yaml",
    "rules/tests/wechat.yaml",
];

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&read(name)).unwrap_or_else(|error| panic!("grafana/{name}: {error}"))
}

/// All rules of the file.
pub(super) fn rules() -> Vec<Value> {
    let groups = yaml(RULES)["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

/// The anchor of a Markdown heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_a_severity_a_summary_advice_and_a_section_of_the_runbook() {
    let runbook = read("../docs/runbook.md");
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: BTreeSet<_> =
        sections.map(|heading| format!("docs/runbook.md#{}", anchor(heading))).collect();
    let mut pointed_to = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let notes = alert["annotations"].as_object().unwrap();
        assert_eq!(notes.keys().collect::<Vec<_>>(), ["advice", "runbook_url", "summary"], "{name}");
        let url = notes["runbook_url"].as_str().unwrap();
        assert_eq!(url, format!("docs/runbook.md#{}", anchor(name)));
        assert!(sections.contains(url), "{name}: {url} leads nowhere");
        pointed_to.insert(url.to_owned());
    }
    assert_eq!(sections, pointed_to, "a section without an alert");
}

#[test]
fn every_alert_is_tested_firing_and_not_firing() {
    let mut seen = BTreeSet::new();
    for file in TESTS {
        for test in yaml(file)["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().unwrap() {
                let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
                seen.insert((case["alertname"].as_str().unwrap().to_owned(), fires));
            }
        }
    }
    let all = alerts().into_iter().flat_map(|alert| {
        let name = alert["alert"].as_str().unwrap().to_owned();
        [(name.clone(), false), (name, true)]
    });
    assert_eq!(seen, all.collect());
}

#[tokio::test]
async fn the_rules_are_as_promtool_wants_them_and_pass_their_tests() {
    let files: Vec<_> = TESTS.iter().map(|file| path(file)).collect();
    let config = path("prometheus.yaml");
    let lint: [&[&str]; 3] =
        [&["check", "rules", "--lint=all", "--lint-fatal"], &["test", "rules"], &["check", "config"]];
    for (words_of, files) in lint.into_iter().zip([vec![path(RULES)], files, vec![config]]) {
        let mut promtool = tool("promtool", "prometheus").await;
        promtool.args(words_of).args(&files);
        let ended = said(promtool).await;
        assert!(ended.status.success(), "{words_of:?}: {}", words(&ended));
        assert!(words(&ended).contains("SUCCESS"), "{words_of:?}: {}", words(&ended));
    }
}
