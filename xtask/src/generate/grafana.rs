//! The advice in Prometheus' rules and in Grafana's dashboards.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use wxtokend_core::fault::table::{TABLE, UNKNOWN};
use wxtokend_core::fault::{Fault, FaultKind, FaultScope, TOKEN_REFUSED};

use super::faults::quoted;
use super::splice::exchange;
use crate::run::Outcome;

/// Kind, errcode and advice of each fault as the metrics label it; `other` is any errcode that the table does not have.
fn advice() -> Vec<[String; 3]> {
    let row = |fault: Fault| [fault.kind.as_str().to_owned(), fault.errcode_label(), fault.advice];
    let without_code = [
        Fault::host(""),
        Fault::unknown_outcome(FaultScope::Account, ""),
        Fault::budget_exhausted(1, Duration::ZERO),
        Fault::precondition_failed(),
    ];
    let codes = TABLE.iter().flat_map(|group| group.rows).flat_map(|row| row.errcodes);
    let coded = codes.map(|code| Fault::from_errcode(*code, ""));
    let refused = TOKEN_REFUSED.map(Fault::bad_token_for_ticket);
    let mut rows: Vec<_> = without_code.into_iter().chain(coded).chain(refused).map(row).collect();
    rows.push([FaultKind::Parked.as_str().to_owned(), "other".to_owned(), UNKNOWN.advice.en.to_owned()]);
    rows
}

/// The rules with their advice renewed.
pub(super) fn rules(old: &str) -> Outcome<String> {
    let mut records = String::new();
    for [kind, errcode, advice] in advice() {
        let (errcode, advice) = (quoted(&errcode), quoted(&advice));
        // Writing to a string does not fail.
        let _ = write!(
            records,
            "      - record: errcode:wxtokend_advice:info\n        expr: vector(1)\n        labels: {{ kind: {kind}, errcode: {errcode}, advice: {advice} }}\n"
        );
    }
    exchange(old, "  - name: wxtokend_advice\n    rules:\n", "  - name: wxtokend\n", &records)
}

/// A dashboard with its advice renewed, wherever a column shows it.
pub(super) fn dashboard(old: &str) -> Outcome<String> {
    let mut board: Value = serde_json::from_str(old)?;
    renew(&mut board)?;
    Ok(serde_json::to_string_pretty(&board)? + "\n")
}

fn renew(place: &mut Value) -> Outcome<()> {
    if place["matcher"]["options"] == "advice" && place["properties"].is_array() {
        let properties = place["properties"].as_array_mut().into_iter().flatten();
        for property in properties.filter(|property| property["id"] == "mappings") {
            let mappings = &mut property["value"];
            // No fault: its text is the panel's own.
            let nothing = mappings[0]["options"]["none/none"]["text"].clone();
            mappings[0]["options"] = Value::Object(texts(&nothing));
            mappings[1]["options"]["result"]["text"] = json!(UNKNOWN.advice.en);
        }
        return Ok(());
    }
    match place {
        Value::Array(places) => places.iter_mut().try_for_each(renew),
        Value::Object(places) => places.values_mut().try_for_each(renew),
        _ => Ok(()),
    }
}

/// `parked/40001` and the like, each with its advice.
fn texts(nothing: &Value) -> Map<String, Value> {
    let known = advice().into_iter().filter(|[_, errcode, _]| errcode != "other");
    let texts = known.map(|[kind, errcode, advice]| (format!("{kind}/{errcode}"), json!(advice)));
    let texts = texts.chain([("none/none".to_owned(), nothing.clone())]);
    texts.enumerate().map(|(index, (key, text))| (key, json!({ "index": index, "text": text }))).collect()
}
