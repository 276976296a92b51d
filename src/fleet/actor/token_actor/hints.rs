//! Follows hints that the account's token may be dead.

use wxtokend_core::clock::Moment;
use wxtokend_core::token::hint::is_worth_a_check;
use wxtokend_core::token::state::{Hint, HintSource, HintVerdict};

use super::TokenActor;
use crate::fleet::cells::tally::count_hint;

impl TokenActor {
    /// Puts a check on the account's list, if the hint is worth one.
    pub(super) fn take_hint(&mut self, hint: Hint) {
        let now = self.shared.now();
        if hint.source == HintSource::Audit {
            self.state.note_audit(&self.account, now);
        }
        if is_worth_a_check(&self.state, &self.account, hint, now) {
            self.state.hint = Some(hint);
            self.advance();
        } else {
            self.settle_hint(hint, HintVerdict::Skipped, now);
            self.publish();
        }
    }

    /// Gives up the hint that waits for its check, since the hosts are down.
    pub(super) fn skip_hint(&mut self) {
        if let Some(hint) = self.state.hint.take() {
            self.settle_hint(hint, HintVerdict::Skipped, self.shared.now());
        }
        self.reconsider();
    }

    /// Records what became of a hint.
    pub(super) fn settle_hint(&self, hint: Hint, verdict: HintVerdict, now: Moment) {
        count_hint(hint.source, verdict);
        if hint.source != HintSource::Audit {
            self.cell.hint_sources().settle(hint.from, verdict, now);
        }
    }
}
