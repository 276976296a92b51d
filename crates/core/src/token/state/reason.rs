//! Why a token call is made.

use serde::{Serialize, Serializer};

/// Why a token call is made, as the log, the span around the call, events and histories tell it.
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
    /// The settings name another endpoint than the token's.
    EndpointChanged,
    /// The AppSecret has changed.
    SecretChanged,
    /// The hosts are those of another WeChat.
    UpstreamChanged,
    /// An operator asked for it.
    Operator,
    /// A client whose reports are believed unchecked said that the token is dead.
    Reported,
    /// A client said that the token is dead, and the check told nothing.
    Unverified,
    /// All hosts count as down, and this call tries whether they are.
    Trial,
}

impl Reason {
    /// All of them.
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

    /// Its name in lines and events.
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

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
