//! Changed settings on their way to an actor. They stand in its cell until it takes them: a message is lost with an actor
//! that crashes before it has read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wxtokend_core::account::Account;

/// At most one change at a time.
#[derive(Default)]
pub(crate) struct WantedSettings(Mutex<Option<NewSettings>>);

/// What a reload has changed for an actor.
pub(crate) struct NewSettings {
    pub(crate) settings: Arc<Account>,
    /// The upstream is another one now, whose tokens and tickets those that are kept are not.
    pub(crate) forget: bool,
}

impl WantedSettings {
    /// Takes the place of a change that was not taken; what that wanted forgotten is forgotten still.
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
