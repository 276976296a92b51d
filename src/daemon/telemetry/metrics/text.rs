//! Prometheus' text format, passed on part by part: of a large fleet it is too long to be held.

use std::fmt::{Display, Write as _};
use std::io::{Result, Write};

/// A part is passed on when it is as long as this.
const PART: usize = 64 * 1024;

/// The part of the text that is being written, and where it goes.
pub(super) struct Exposition<'a> {
    part: String,
    out: &'a mut dyn Write,
}

impl<'a> Exposition<'a> {
    pub(super) fn to(out: &'a mut dyn Write) -> Self {
        // With room for the line that fills it.
        Self { part: String::with_capacity(PART + 1024), out }
    }

    /// Exposition that is written already, as whole families.
    pub(super) fn families(&mut self, text: &str) -> Result<()> {
        self.part.push_str(text);
        self.pass_on(PART)
    }

    /// Begins the samples of one name; `help` has one line and no backslash.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) -> Result<()> {
        // Writing to a string does not fail.
        let _ = write!(self.part, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.pass_on(PART)
    }

    /// # Errors
    /// When nobody takes the text any more.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) -> Result<()> {
        self.part.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            self.part.push(before);
            self.part.push_str(label);
            self.part.push_str("=\"");
            self.label_value(value);
            self.part.push('"');
            before = ',';
        }
        if before == ',' {
            self.part.push('}');
        }
        let _ = writeln!(self.part, " {value}");
        self.pass_on(PART)
    }

    /// Passes on what is left.
    pub(super) fn end(mut self) -> Result<()> {
        self.pass_on(0)
    }

    fn pass_on(&mut self, at_least: usize) -> Result<()> {
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

/// Milliseconds as the seconds that Prometheus counts in.
#[expect(clippy::cast_precision_loss, reason = "53 bits of milliseconds are 285,000 years")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
