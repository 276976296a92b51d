//! Answers that were set for business calls, in place of WeChat's own.

use std::sync::Arc;

use super::{Arrival, World};
use crate::call::Call;
use crate::canned::CannedAnswer;
use crate::wire::{Request, Wire};

impl World {
    /// Sets the answer for a path, in place of an earlier one for the same path. Of those that fit a call the
    /// newest counts. Only business calls are answered by it, and paths that WeChat does not have: what becomes
    /// of a token is never made up.
    pub fn put_answer(&mut self, answer: CannedAnswer) {
        self.canned.retain(|earlier| earlier.path != answer.path);
        self.canned.push(Arc::new(answer));
    }

    /// Removes all answers that were set.
    pub fn clear_answers(&mut self) {
        self.canned.clear();
    }

    /// Returns the answers that were set, oldest first.
    #[must_use]
    pub fn answers(&self) -> &[Arc<CannedAnswer>] {
        &self.canned
    }

    /// Returns the answer that was set for a request, if there is one.
    #[must_use]
    pub fn answer_set_for(&self, request: &Request) -> Option<&Arc<CannedAnswer>> {
        let is_business = Call::of(&request.path).is_none_or(|call| call == Call::Business);
        let mut newest_first = self.canned.iter().rev();
        newest_first.find(|answer| is_business && request.is_at(&answer.path))
    }

    /// What a request gets when nothing goes wrong: WeChat's answer, or the one that was set.
    pub(super) fn true_reaction(&mut self, arrival: &Arrival<'_>) -> Wire {
        let Some(canned) = self.answer_set_for(arrival.request).cloned() else {
            return Wire::Answer(self.true_answer(arrival));
        };
        if !canned.unauthenticated
            && let Err(refusal) = self.business(arrival.request, arrival.now)
        {
            return Wire::Answer(self.answer_for(arrival, Err(refusal)));
        }
        Wire::Canned(canned)
    }
}
