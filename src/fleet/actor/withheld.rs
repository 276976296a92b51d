//! What another boot has stored and is not judged yet; see [`release`](super::old_boot_records::release).

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use wxtokend_core::ticket::Credential;

use crate::store::Stored;

/// The tokens and tickets that are withheld. Until the release their cells hold the rest of what is known,
/// and their actors are not started.
pub(crate) struct Withheld {
    all: BTreeSet<Credential>,
    released: CancellationToken,
}

impl Withheld {
    pub(crate) fn new(stored: &Stored) -> Self {
        let released = CancellationToken::new();
        if stored.is_empty() {
            released.cancel();
        }
        Self { all: stored.credentials().collect(), released }
    }

    /// Whether the release starts its actor.
    pub(crate) fn has(&self, of: &Credential) -> bool {
        self.all.contains(of)
    }

    /// The credentials that are withheld.
    pub(crate) fn all(&self) -> &BTreeSet<Credential> {
        &self.all
    }

    /// Ends the withholding.
    pub(crate) fn release(&self) {
        self.released.cancel();
    }

    /// Returns when nothing is withheld any more.
    pub(crate) async fn until_released(&self) {
        self.released.cancelled().await;
    }
}
