//! EventKind another boot has stored and is not judged yet: see [`release`](super::release).

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use wxtokend_core::ticket::Credential;

use crate::store::Stored;

/// Which tokens and tickets are withheld. Their cells hold the rest of what is known until then, and their actors are yet
/// to be started.
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

    /// Whether its actor is started by the release.
    pub(crate) fn has(&self, of: &Credential) -> bool {
        self.all.contains(of)
    }

    /// EventKind all of it is of.
    pub(crate) fn all(&self) -> &BTreeSet<Credential> {
        &self.all
    }

    /// From now on nothing is withheld.
    pub(crate) fn release(&self) {
        self.released.cancel();
    }

    /// Returns when nothing is withheld any more.
    pub(crate) async fn until_released(&self) {
        self.released.cancelled().await;
    }
}
