//! Changed settings on their way to an actor.
//!
//! They stay in its cell until it takes them, since an actor that crashes before it has read a message loses
//! it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wxtokend_core::account::Account;

/// At most one change at a time.
#[derive(Default)]
pub(crate) struct WantedSettings(Mutex<Option<NewSettings>>);

/// What a reload has changed for an actor.
pub(crate) struct NewSettings {
    pub(crate) settings: Arc<Account>,
    /// The upstream has been replaced, so the credentials that are kept do not belong to it.
    pub(crate) forget: bool,
}

impl WantedSettings {
    /// Replaces a change that was not taken yet. If that one asked to forget, so does this one.
    pub(crate) fn put(&self, settings: Arc<Account>, forget: bool) {
        let mut kept = self.lock();
        let forget = forget || kept.as_ref().is_some_and(|earlier| earlier.forget);
        *kept = Some(NewSettings { settings, forget });
    }

    pub(crate) fn take(&self) -> Option<NewSettings> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<NewSettings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
