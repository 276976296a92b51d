//! A hint that a token may be dead, although nobody has reported it.

use std::fmt;

/// Declares an enum of labels, in the order of the metric's series.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$of])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics, log lines and events.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

labels! {
    /// What makes us suspect that a token is dead.
    HintSource {
        /// A client of the WeChat-shaped endpoints asked again, long before the end of what it was promised.
        Ask = "ask",
        /// A key that we had published to a Redis was deleted or overwritten before its end.
        Drift = "drift",
        /// Nothing: the token is in use, and has not been checked for a while.
        Audit = "audit",
    }
}

labels! {
    /// What became of a hint.
    HintVerdict {
        /// WeChat refuses the token.
        Dead = "dead",
        /// WeChat honours it.
        Alive = "alive",
        /// The check was inconclusive.
        Unknown = "unknown",
        /// It was not followed: its source was wrong before, the token was checked a moment ago or is being
        /// replaced, or the budget for checks is spent.
        Skipped = "skipped",
    }
}

/// Who gave a hint: a number that is the same for the same client, or for the same Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(pub u64);

/// One hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// What kind of hint it is.
    pub source: HintSource,
    /// Who gave it.
    pub from: SourceId,
    /// The token that it is about.
    pub version: u64,
}
