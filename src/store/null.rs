//! A store that keeps nothing, for fleets that need not survive their process.

use std::path::Path;

use super::{Backend, Batch, Contents, StoreError, Writing};

/// Accepts every write and forgets it: as long as the fleet runs, its own memory has everything.
pub(crate) struct NullBackend;

impl Backend for NullBackend {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn load(&self) -> Result<Contents, StoreError> {
        Ok(Contents::default())
    }

    fn write(&self, _: Batch) -> Writing {
        Box::pin(async { Ok(()) })
    }
}
