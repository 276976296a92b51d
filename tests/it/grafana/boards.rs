//! The dashboards as data: rules that no published type expresses.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::read;

pub(super) const BOARDS: [&str; 2] = ["fleet", "account"];

/// A dashboard.
pub(super) struct Board {
    pub(super) name: &'static str,
    pub(super) json: Value,
}

/// An expression and its place.
pub(super) struct Expression {
    pub(super) place: String,
    pub(super) expr: String,
    pub(super) use_: Use,
}

/// How Grafana uses an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Shows the current value.
    Now,
    /// Shows the past.
    Lately,
    /// Marks instants.
    Marks,
    /// Fills a variable.
    Variable,
}

impl Board {
    pub(super) fn all() -> Vec<Self> {
        let board = |name| Self {
            name,
            json: serde_json::from_str(&read(&format!("dashboards/{name}.json"))).unwrap(),
        };
        BOARDS.map(board).into()
    }

    /// Panels with content; rows only separate them.
    pub(super) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
    }

    pub(super) fn variables(&self) -> &Vec<Value> {
        self.json["templating"]["list"].as_array().unwrap()
    }

    /// Annotations that are not built in.
    pub(super) fn annotations(&self) -> impl Iterator<Item = &Value> {
        self.json["annotations"]["list"].as_array().unwrap().iter().filter(|one| one["builtIn"] != 1)
    }

    pub(super) fn expressions(&self) -> Vec<Expression> {
        let place = |value: &Value, key: &str| format!("{}: {}", self.name, value[key].as_str().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut all = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().unwrap() {
                let use_ = if target["instant"] == true { Use::Now } else { Use::Lately };
                all.push(Expression { place: place(panel, "title"), expr: text(&target["expr"]), use_ });
            }
        }
        for note in self.annotations() {
            let expr = text(&note["target"]["expr"]);
            all.push(Expression { place: place(note, "name"), expr, use_: Use::Marks });
        }
        for variable in self.variables().iter().filter(|variable| variable["type"] == "query") {
            let expr = text(&variable["query"]["query"]);
            all.push(Expression { place: place(variable, "name"), expr, use_: Use::Variable });
        }
        all
    }
}

/// Collects all objects within `value`.
fn objects<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| objects(one, found)),
        Value::Object(all) => {
            found.push(value);
            all.values().for_each(|one| objects(one, found));
        }
        _ => {}
    }
}

#[test]
fn a_dashboard_is_written_in_canonical_form() {
    for Board { name, json } in Board::all() {
        let tidy = serde_json::to_string_pretty(&json).unwrap() + "\n";
        assert!(read(&format!("dashboards/{name}.json")) == tidy, "{name}.json: sort its keys (jq -S .)");
    }
}

#[test]
fn a_dashboard_can_be_imported_anywhere() {
    let mut uids = BTreeSet::new();
    for Board { name, json } in Board::all() {
        assert_eq!(json["id"], Value::Null, "{name}: an id belongs to one Grafana");
        assert!(json.get("__inputs").is_none() && json.get("__requires").is_none(), "{name}");
        assert!(uids.insert(json["uid"].as_str().unwrap().to_owned()), "{name}");
        assert_eq!(json["tags"], json!(["wxtokend"]), "the dashboards find each other by it");
        let mut all = Vec::new();
        objects(&json, &mut all);
        let sources: BTreeMap<String, usize> = all.iter().filter_map(|object| object.get("datasource")).fold(
            BTreeMap::new(),
            |mut found, source| {
                *found.entry(source["uid"].as_str().unwrap().to_owned()).or_default() += 1;
                found
            },
        );
        let ours = ["${datasource}", "-- Grafana --"];
        assert!(sources.keys().all(|uid| ours.contains(&uid.as_str())), "{name}: {sources:?}");
        assert_eq!(sources["-- Grafana --"], 1, "only Grafana's own annotations");
    }
    let first = &Board::all()[0].json["templating"]["list"][0];
    assert_eq!((&first["name"], &first["type"]), (&json!("datasource"), &json!("datasource")));
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_from_where_on_it_is_bad() {
    for board in Board::all() {
        let mut ids = BTreeSet::new();
        let all = board.json["panels"].as_array().unwrap();
        assert!(all.iter().all(|panel| ids.insert(panel["id"].as_u64().unwrap())), "{}: ids", board.name);
        for panel in board.panels() {
            let (title, defaults) = (&panel["title"], &panel["fieldConfig"]["defaults"]);
            assert!(panel["description"].as_str().unwrap().len() > 10, "{title}: description");
            assert!(
                UNITS.contains(&defaults["unit"].as_str().unwrap()),
                "{title}: unit {}",
                defaults["unit"]
            );
            let steps = defaults["thresholds"]["steps"].as_array().unwrap();
            assert!(steps[0]["value"].is_null(), "{title}: the first threshold has no value");
            let values: Vec<_> = steps.iter().skip(1).map(|step| step["value"].as_f64().unwrap()).collect();
            assert!(values.is_sorted(), "{title}: {values:?}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        }
    }
}

/// Grafana's IDs of the units that the dashboards use.
const UNITS: [&str; 8] = ["bytes", "cpm", "dateTimeFromNow", "none", "percentunit", "reqps", "s", "short"];

#[test]
fn every_table_of_faults_has_a_column_of_advice() {
    let boards = Board::all();
    let tables = boards.iter().flat_map(Board::panels).filter(|panel| panel["type"] == "table");
    let shows_faults = |panel: &&Value| panel["targets"].to_string().contains("errcode");
    let faults: Vec<_> = tables.filter(shows_faults).collect();
    assert!(!faults.is_empty());
    for panel in faults {
        let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
        let advises = overrides.iter().any(|over| over["matcher"]["options"] == "advice");
        assert!(advises, "{}", panel["title"]);
    }
}

#[test]
fn panels_stand_side_by_side_without_gaps() {
    for board in Board::all() {
        let mut cells = BTreeMap::new();
        for panel in board.json["panels"].as_array().unwrap() {
            let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in grid("x")..grid("x") + grid("w") {
                for y in grid("y")..grid("y") + grid("h") {
                    let other = cells.insert((x, y), panel["title"].clone());
                    assert!(x < 24 && other.is_none(), "{}: {} on {other:?}", board.name, panel["title"]);
                }
            }
        }
        let height = cells.keys().map(|(_, y)| y + 1).max().unwrap();
        assert_eq!(cells.len() as u64, 24 * height, "{}: a hole between panels", board.name);
    }
}

#[test]
fn a_dashboard_draws_no_line_for_each_account() {
    let fleet = &Board::all()[0];
    for Expression { place, expr, .. } in fleet.expressions() {
        let bounded = ["topk(", "bottomk("].iter().any(|few| expr.starts_with(few));
        let by_account = expr.contains("by (appid") || expr.contains("wxtokend_account_info");
        assert!(bounded || !by_account, "{place}: {expr}");
        let of_accounts = [
            "token_age",
            "token_expiry",
            "budget_",
            "refreshes_",
            "refresh_failures",
            "rejections_",
            "ticket_",
        ];
        let aggregated =
            ["sum", "min(", "max(", "quantile(", "60 * sum by"].iter().any(|way| expr.starts_with(way));
        let concerns = of_accounts.iter().any(|name| expr.contains(&format!("wxtokend_{name}")));
        assert!(bounded || aggregated || !concerns, "{place}: {expr}");
    }
}
