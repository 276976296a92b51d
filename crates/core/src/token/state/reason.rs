//! Why a token call is made.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why a token call is made, as shown in the log, the call's span, events and histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is no token that may be served.
    NoToken,
    /// The token's refresh instant has come.
    Due,
    /// The last call failed, and its back-off is over.
    Retry,
    /// WeChat was found to refuse the token.
    Refused,
    /// WeChat has handed out the refused token again.
    RefusedAgain,
    /// A lost call may have minted, which ends the token.
    InDoubt,
    /// The settings name an endpoint other than the token's.
    EndpointChanged,
    /// The AppSecret has changed.
    SecretChanged,
    /// The hosts belong to another WeChat.
    UpstreamChanged,
    /// An operator requested it.
    Operator,
    /// A client whose reports are believed without a check reported the token as dead.
    Reported,
    /// A client reported the token as dead, and the check was inconclusive.
    Unverified,
    /// All hosts count as down, and this call tries whether they are.
    Trial,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::NoToken,
        Self::Due,
        Self::Retry,
        Self::Refused,
        Self::RefusedAgain,
        Self::InDoubt,
        Self::EndpointChanged,
        Self::SecretChanged,
        Self::UpstreamChanged,
        Self::Operator,
        Self::Reported,
        Self::Unverified,
        Self::Trial,
    ];

    /// The reason's name in log lines and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Due => "due",
            Self::Retry => "retry",
            Self::Refused => "refused",
            Self::RefusedAgain => "refused_again",
            Self::InDoubt => "in_doubt",
            Self::EndpointChanged => "endpoint_changed",
            Self::SecretChanged => "secret_changed",
            Self::UpstreamChanged => "upstream_changed",
            Self::Operator => "operator",
            Self::Reported => "reported",
            Self::Unverified => "unverified",
            Self::Trial => "trial",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
