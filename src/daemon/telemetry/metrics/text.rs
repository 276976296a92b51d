//! Prometheus' text format, written in parts: the text of a large fleet is too long to be held in memory.

use std::fmt::{Display, Write as _};
use std::io::{Result, Write};

use wxtokend_core::reference::metrics::Metric;

/// A part is written out once it is this long.
const PART: usize = 64 * 1024;

/// The part of the text in progress, and its destination.
pub(super) struct Exposition<'a> {
    part: String,
    out: &'a mut dyn Write,
}

impl<'a> Exposition<'a> {
    pub(super) fn to(out: &'a mut dyn Write) -> Self {
        // Leaves room for the line that fills the part.
        Self { part: String::with_capacity(PART + 1024), out }
    }

    /// Appends text that consists of whole families.
    pub(super) fn families(&mut self, text: &str) -> Result<()> {
        self.part.push_str(text);
        self.flush_from(PART)
    }

    /// Begins the samples of `metric`.
    pub(super) fn family(&mut self, metric: &Metric) -> Result<()> {
        let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
        // Writing to a string cannot fail.
        let _ = write!(self.part, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.flush_from(PART)
    }

    /// Appends one sample of `metric`, whose family must have been begun.
    ///
    /// # Errors
    /// When the text can no longer be written.
    pub(super) fn sample(
        &mut self,
        metric: &Metric,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> Result<()> {
        self.part.push_str(metric.name);
        let mut separator = '{';
        for (label, value) in labels {
            self.part.push(separator);
            self.part.push_str(label);
            self.part.push_str("=\"");
            self.label_value(value);
            self.part.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.part.push('}');
        }
        let _ = writeln!(self.part, " {value}");
        self.flush_from(PART)
    }

    /// Writes out the rest.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush_from(0)
    }

    fn flush_from(&mut self, at_least: usize) -> Result<()> {
        if self.part.len() >= at_least {
            self.out.write_all(self.part.as_bytes())?;
            self.part.clear();
        }
        Ok(())
    }

    fn label_value(&mut self, value: &str) {
        if !value.contains(['\\', '"', '\n']) {
            return self.part.push_str(value);
        }
        for c in value.chars() {
            match c {
                '\\' => self.part.push_str("\\\\"),
                '"' => self.part.push_str("\\\""),
                '\n' => self.part.push_str("\\n"),
                other => self.part.push(other),
            }
        }
    }
}

/// Converts milliseconds to Prometheus' seconds.
#[expect(clippy::cast_precision_loss, reason = "53 bits of milliseconds are 285,000 years")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
