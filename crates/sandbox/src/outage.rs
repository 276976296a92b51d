//! An outage of the whole host.

/// An outage of the whole host: nothing reaches any account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Connections are refused; in JSON `refuse`.
    Refuse,
    /// No answers; in JSON `hang`.
    Hang,
    /// This HTTP status with an HTML page; in JSON e.g. `status:502`.
    Status(u16),
}

impl TryFrom<String> for Outage {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let status =
            |code: &str| code.parse().ok().filter(|code| (200..600).contains(code)).map(Self::Status);
        match text.as_str() {
            "refuse" => Some(Self::Refuse),
            "hang" => Some(Self::Hang),
            other => other.strip_prefix("status:").and_then(status),
        }
        .ok_or_else(|| format!("unknown outage {text:?}: refuse, hang, status:NNN or none"))
    }
}

impl From<Outage> for String {
    fn from(outage: Outage) -> Self {
        match outage {
            Outage::Refuse => "refuse".to_owned(),
            Outage::Hang => "hang".to_owned(),
            Outage::Status(code) => format!("status:{code}"),
        }
    }
}
