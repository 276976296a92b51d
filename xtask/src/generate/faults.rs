//! The fault table, as the README, docs/faults.md and the page have it.

use std::fmt::Write as _;
use std::time::Duration;

use wxtokend_core::fault::advice::{self, Advice};
use wxtokend_core::fault::table::{FaultGroup, TABLE, Text};
use wxtokend_core::fault::{Fault, FaultKind, FaultScope, Wait};

use super::splice::exchange;
use crate::run::Outcome;

/// How a language writes the cells of a table.
pub(super) struct Words {
    of: fn(Text) -> &'static str,
    comma: &'static str,
    host: &'static str,
    seconds: &'static str,
    minutes: &'static str,
    hours: &'static str,
    to: &'static str,
}

pub(super) const ENGLISH: Words = Words {
    of: |text| text.en,
    comma: ", ",
    host: " (host)",
    seconds: " s",
    minutes: " min",
    hours: " h",
    to: " to ",
};

pub(super) const CHINESE: Words = Words {
    of: |text| text.zh,
    comma: "；",
    host: "（主机）",
    seconds: " 秒",
    minutes: " 分钟",
    hours: " 小时",
    to: "到 ",
};

impl Words {
    /// A wait with the defaults of `retry`.
    fn wait(&self, wait: Wait) -> String {
        let Self { seconds, minutes, hours, to, .. } = self;
        let unit = |time: u64| match time {
            60..3600 => format!("{}{minutes}", time / 60),
            3600.. => format!("{}{hours}", time / 3600),
            _ => format!("{time}{seconds}"),
        };
        match wait {
            Wait::BackOff => format!("2{seconds}{to}60{seconds}"),
            Wait::UpTo(time) => format!("2{seconds}{to}{}", unit(time.as_secs())),
            Wait::For(time) | Wait::Every(time) | Wait::NotBefore(time) => unit(time.as_secs()),
        }
    }
}

/// A README with its fault table renewed.
pub(super) fn readme(old: &str, words: &Words) -> Outcome<String> {
    let (head, line) = ("| errcode | ", "\n|---|---|---|---|\n");
    let rows: String = TABLE.iter().map(|group| row_of(group, words)).collect();
    let table = old.find(head).ok_or("there is no fault table")?;
    let renewed = exchange(&old[table..], line, "\n\n", rows.trim_end())?;
    Ok(format!("{}{renewed}", &old[..table]))
}

fn row_of(group: &FaultGroup, words: &Words) -> String {
    let (mut codes, mut waits) = (Vec::new(), Vec::new());
    // `89507 / 89506` and `1 h / 24 h`: codes with the same wait stand together.
    for row in group.rows {
        let wait = words.wait(row.wait);
        let index = waits.iter().position(|known| *known == wait).unwrap_or_else(|| {
            waits.push(wait);
            codes.push(Vec::new());
            waits.len() - 1
        });
        codes[index].extend(row.errcodes);
        codes[index].sort_by_key(|code: &i64| code.abs());
    }
    let codes = codes.iter().map(|codes| listed(codes)).collect::<Vec<_>>().join(" / ");
    let others = group.others.map(|others| (words.of)(others.text));
    let causes = [Some(codes.as_str()).filter(|codes| !codes.is_empty()), others];
    let causes = causes.into_iter().flatten().collect::<Vec<_>>().join(words.comma);
    let host = if group.scope == FaultScope::Host { words.host } else { "" };
    let retried = group.retried.map_or_else(|| waits.join(" / "), |text| (words.of)(text).to_owned());
    format!("| {causes} | {}{host} | {retried} | {} |\n", group.kind, (words.of)(group.summary))
}

fn listed(codes: &[i64]) -> String {
    codes.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// A row of docs/faults.md.
struct Row {
    cause: String,
    kind: FaultKind,
    scope: FaultScope,
    retried: String,
    /// What to do, in English.
    advice: String,
}

/// Failures that the README does not have, as the program classifies them.
fn further() -> [(&'static str, Fault); 5] {
    [
        ("40164 or 61004 whose message names no address", Fault::from_errcode(40164, "")),
        ("`stable_token` hands out again the token that WeChat refused", Fault::dead_token_issued()),
        ("a ticket call gets 40001, 40014 or 42001", Fault::bad_token_for_ticket(40001)),
        (
            "a ticket call gets 40001, 40014 or 42001 again, and WeChat honours the token",
            Fault::ticket_not_allowed(40001),
        ),
        ("the program itself fails over a call or its answer", Fault::internal("")),
    ]
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for group in TABLE {
        let retried = |wait| group.retried.map_or_else(|| ENGLISH.wait(wait), |text| text.en.to_owned());
        let mut add = |cause: String, wait: Wait, advice: Advice| {
            let (kind, scope, retried) = (group.kind, group.scope, retried(wait));
            rows.push(Row { cause, kind, scope, retried, advice: advice.en.to_owned() });
        };
        for row in group.rows.iter().filter(|row| !row.errcodes.is_empty()) {
            add(listed(row.errcodes), row.wait, row.advice);
        }
        if let Some(others) = group.others {
            let cause = others.text.en.trim_start_matches("none: ").to_owned();
            add(cause, group.rows.first().map_or(Wait::BackOff, |row| row.wait), others.advice);
        }
    }
    rows.extend(further().map(|(cause, Fault { kind, scope, wait, advice, .. })| {
        let retried =
            if wait == Wait::For(Duration::ZERO) { "at once".to_owned() } else { ENGLISH.wait(wait) };
        Row { cause: cause.to_owned(), kind, scope, retried, advice }
    }));
    rows
}

/// docs/faults.md.
pub(super) fn document() -> String {
    let mut text = "# Faults

What each of WeChat's errcodes, and each failure without one, means for an account, when the call is repeated, and what to do.
Generated by `cargo xtask gen` from `table.rs` (rows), `kind.rs` (waits) and `advice.rs` (texts) in `crates/core/src/fault/`; the last rows are
failures that the table does not have, as `crates/core/src/fault.rs` classifies them.

| errcode or failure | kind | affects | asked again after | what to do |
|---|---|---|---|---|
"
    .to_owned();
    let rows = rows();
    for Row { cause, kind, scope, retried, advice } in &rows {
        let affects = match scope {
            FaultScope::Host => "every account, by its host",
            FaultScope::Account | FaultScope::Budget => "the account",
        };
        let id = advice::ALL.iter().find(|known| known.en == *advice).map_or("", |known| known.id);
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {cause} | {kind} | {affects} | {retried} | [{id}](#{id}) |");
    }
    text += "\n## What to do\n\nEvery sentence that the program may give as advice, by a name that does not change, and when it is given.\n";
    for Advice { id, en, zh } in advice::ALL {
        let causes: Vec<_> =
            rows.iter().filter(|row| row.advice == *en).map(|row| row.cause.as_str()).collect();
        let _ = write!(text, "\n### {id}\n\nGiven for: {}.\n\n{en}\n\n{zh}\n", causes.join("; "));
    }
    text
}

/// advice.js.
pub(super) fn page() -> String {
    let mut text =
        "// The program's advice in Chinese, by its English words. Generated by `cargo xtask gen` from
// crates/core/src/fault/advice.rs.

export const ADVICE = {
"
        .to_owned();
    for Advice { en, zh, .. } in advice::ALL {
        let _ = writeln!(text, "  {}:\n    {},", quoted(en), quoted(zh));
    }
    text + "};\n"
}

/// A string of JavaScript and of YAML.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_advice_is_given_for_something_and_each_failure_has_advice_of_the_list() {
        let rows = rows();
        for row in &rows {
            assert!(
                advice::ALL.iter().any(|advice| advice.en == row.advice),
                "{}: {}",
                row.cause,
                row.advice
            );
        }
        for advice in advice::ALL {
            assert!(rows.iter().any(|row| row.advice == advice.en), "{} is given for nothing", advice.id);
        }
    }
}
