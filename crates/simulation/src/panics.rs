//! Panics that the simulation injects.

use std::sync::Once;

/// Message of an injected panic, which is not printed.
pub(super) const PANIC: &str = "a panic of the simulation's";

/// Silences injected panics: only others are printed.
pub(super) fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.payload_as_str().is_some_and(|text| text == PANIC || text == "asked to");
            if !ours {
                before(info);
            }
        }));
    });
}
