//! A row of the tables of settings.

/// A key of `accounts.yaml`.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key itself.
    pub key: &'static str,
    /// What values it takes, in words.
    pub kind: &'static str,
    /// What it is if it is left out.
    pub default: DefaultValue,
    /// What it is for: lines of text, with code in backticks.
    pub doc: &'static str,
}

/// What a key is if it is left out.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// This value, as the file would have it.
    Literal(&'static str),
    /// What these words say.
    Described(&'static str),
}
