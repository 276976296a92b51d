//! The tables of docs/metrics.md. What stands around them is written by hand.

use wxtokend_core::reference::metrics::{Group, Metric, TABLE, Unit};

use super::splice::exchange;
use crate::run::Outcome;

/// docs/metrics.md with the table below each heading renewed.
pub(super) fn document(old: &str) -> Outcome<String> {
    let mut text = old.to_owned();
    for Group { title, metrics } in TABLE {
        let heading = format!("\n## {title}\n");
        let section = text.find(&heading).ok_or_else(|| format!("there is no heading {title:?}"))?;
        let rows: Vec<_> = metrics.iter().map(row_of).collect();
        let renewed = exchange(&text[section..], "\n|---|---|---|---|\n", "\n\n", &rows.join("\n"))?;
        text.replace_range(section.., &renewed);
    }
    Ok(text)
}

fn row_of(Metric { name, kind, unit, labels, help }: &Metric) -> String {
    let unit = match unit {
        Unit::Number => "",
        Unit::Seconds => ", seconds",
        Unit::UnixTime => ", Unix time",
        Unit::Bytes => ", bytes",
        Unit::Ratio => ", 0 to 1",
    };
    let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {}{unit} | {} | {help} |", kind.as_str(), labels.join(", "))
}
