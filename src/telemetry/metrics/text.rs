//! Prometheus' text format, written into one string.

use std::fmt::{Display, Write as _};

/// The text as far as it is written.
pub(super) struct Text(String);

impl Text {
    /// Continues `beginning`, with room for `more` bytes.
    pub(super) fn after(mut beginning: String, more: usize) -> Self {
        beginning.reserve(more);
        Self(beginning)
    }

    /// Begins the samples of one name; `help` has one line and no backslash.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            self.0.push(before);
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.label_value(value);
            self.0.push('"');
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn label_value(&mut self, value: &str) {
        if !value.contains(['\\', '"', '\n']) {
            return self.0.push_str(value);
        }
        for c in value.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

impl From<Text> for String {
    fn from(Text(text): Text) -> Self {
        text
    }
}

/// Milliseconds as the seconds that Prometheus counts in.
#[expect(clippy::cast_precision_loss, reason = "53 bits of milliseconds are 285,000 years")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
