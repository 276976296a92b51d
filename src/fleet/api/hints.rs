//! Takes asks of SDKs as hints that a token may be dead.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use wxtokend_core::token::Token;
use wxtokend_core::token::state::{HintSource, SourceId};

use super::handle::Fleet;

/// Who asks for a token in place of WeChat. The same values are one source of hints.
#[derive(Hash)]
pub(crate) struct Asker<'a> {
    /// The client's name; `None` where no key is needed.
    pub(crate) client: Option<&'a str>,
    /// The address it asks from, where there is one.
    pub(crate) address: Option<IpAddr>,
    /// What it says it is: several programs may share a key and a machine.
    pub(crate) user_agent: &'a [u8],
}

impl Fleet {
    /// Notes that an SDK that takes us for WeChat gets `token`.
    ///
    /// One that has kept the same token for less than half of what it was promised has no reason to ask again,
    /// unless its calls are refused.
    pub(crate) fn note_ask(&self, appid: &str, asker: &Asker<'_>, token: &Token) {
        let Ok(cell) = self.cell(appid) else { return };
        let mut hasher = DefaultHasher::new();
        asker.hash(&mut hasher);
        let (from, now) = (SourceId(hasher.finish()), self.now());
        let asks_again = cell.hint_sources().asks_again(from, token.version(), token.expires_in(), now);
        if asks_again {
            cell.hint(HintSource::Ask, from, now);
        }
    }
}
