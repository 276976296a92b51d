//! The kinds of tickets, and which of them are kept for an account.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a ticket signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketKind {
    /// Pages, for the JS-SDK.
    Jsapi,
    /// Card coupons.
    WxCard,
}

/// Error for a name that is not a kind of ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a ticket is jsapi or wx_card")]
pub struct InvalidTicketKind;

impl TicketKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Jsapi, Self::WxCard];

    /// The kind's name in WeChat's API, in `accounts.yaml`, in our API and in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsapi => "jsapi",
            Self::WxCard => "wx_card",
        }
    }
}

/// The kinds of tickets that are kept for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TicketKinds([bool; TicketKind::ALL.len()]);

impl TicketKinds {
    /// Iterates over the kinds that are kept.
    pub fn iter(self) -> impl Iterator<Item = TicketKind> {
        TicketKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Whether `kind` is kept.
    #[must_use]
    pub fn has(self, kind: TicketKind) -> bool {
        self.0[kind as usize]
    }
}

impl FromIterator<TicketKind> for TicketKinds {
    fn from_iter<I: IntoIterator<Item = TicketKind>>(kinds: I) -> Self {
        let mut kept = Self::default();
        kinds.into_iter().for_each(|kind| kept.0[kind as usize] = true);
        kept
    }
}

impl FromStr for TicketKind {
    type Err = InvalidTicketKind;
    fn from_str(name: &str) -> Result<Self, InvalidTicketKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(InvalidTicketKind)
    }
}
