//! Invariants of one account, checked from outside: by what its readers got, what WeChat knows, and which
//! calls the program sent.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use wxtokend_core::account::{Account, Appid, Endpoint, RefreshAhead};
use wxtokend_core::token::schedule::FORCED_A_DAY;
use wxtokend_core::token::{HeldToken, Token};
use wxtokend_sandbox::World;

use super::fault_rates::{DAY, HOUR, MINUTE, SECOND};
use super::ticket_checker::TicketChecker;

/// The invariant checker of one account. Instants are true ones, in milliseconds.
pub(super) struct AccountChecker {
    pub(super) appid: Appid,
    /// Never targeted itself: it must not be affected by what happens to others.
    pub(super) undisturbed: bool,
    /// The account as in the file, or as it would be if it had not been removed.
    pub(super) account: Arc<Account>,
    pub(super) configured: bool,
    /// The share of its calls that fail.
    pub(super) fault_rate: f64,
    /// The one fault that all failing calls get, if it is always the same.
    pub(super) only_fault: Option<usize>,
    /// A client that keeps rejecting its tokens.
    pub(super) rejecter: Option<Rejecter>,
    calls: VecDeque<i64>,
    forced: VecDeque<i64>,
    /// Earlier budgets, each with the instant until which it was in force.
    budgets: VecDeque<(i64, u32)>,
    pub(super) in_flight: u32,
    pub(super) checking: u32,
    seen: Option<(u64, String)>,
    current: Option<Current>,
    /// Earlier tokens that clients may still keep.
    older: Vec<Kept>,
    /// Tokens that an outsider has ended, which the program cannot know.
    killed: HashSet<String>,
    /// The token that a check found dead, and when the program learned that.
    refused_value: Option<(String, i64)>,
    /// When the served token was last reported.
    pub(super) reported_at: i64,
    /// Whether it has been reported since the last check.
    pub(super) is_reported: bool,
    /// When the program first learned that it is dead.
    refused_at: i64,
    /// When the program last asked `stable_token` in normal mode.
    asked_at: i64,
    /// The token that a check found alive, and when the program learned that.
    honoured: Option<(String, i64)>,
    /// Until when an operator may make it force.
    pub(super) may_force_until: i64,
    /// Until when it may have no token.
    pub(super) may_lack_until: i64,
    /// Until when it may call although its token is young and alive.
    pub(super) may_call_until: i64,
    /// Until when the wall clock is slewed, which may make a promise too long by a twelfth.
    pub(super) slewed_until: i64,
    /// The disk has lost what readers have seen.
    has_lost_state: bool,
    /// Until when a call may be under way whose record the disk has lost: the program cannot know that it
    /// ends a token that arrives before it.
    may_be_ended_until: i64,
    /// The machine came back with a wrong clock: the expiry of the stored token cannot be known.
    time_is_lost: bool,
    pub(super) on_disk: u64,
    pub(super) tickets: TicketChecker,
    /// Until when the tickets are not checked: the disk has lost their records, or no clock shows how old
    /// they are.
    pub(super) tickets_excused_until: i64,
    /// Whether the last token call was answered with an errcode.
    pub(super) was_refused: bool,
    /// When a token call last ended.
    pub(super) last_call_ended_at: i64,
    /// Whether the last read found a token.
    pub(super) served: bool,
}

/// A client that rejects tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rejecter {
    pub(super) style: usize,
    pub(super) left: u32,
}

/// What readers currently get.
struct Current {
    held: Arc<HeldToken>,
    dies_at: i64,
    ends_at: i64,
    killed: bool,
    refused_since: i64,
    kept: Kept,
}

struct Kept {
    value: String,
    until: i64,
    /// The promise was withdrawn legitimately: by an operator who forces, or a client that is believed.
    excused: bool,
}

/// What the check of a read depends on in addition to its checker.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) now: i64,
    /// Until when any account may have no token.
    pub(super) may_lack_until: i64,
    pub(super) disk_is_well: bool,
}

impl AccountChecker {
    pub(super) fn new(account: Arc<Account>, undisturbed: bool) -> Self {
        Self {
            appid: account.appid.clone(),
            undisturbed,
            account,
            configured: true,
            fault_rate: 0.0,
            only_fault: None,
            rejecter: None,
            calls: VecDeque::new(),
            forced: VecDeque::new(),
            budgets: VecDeque::new(),
            in_flight: 0,
            checking: 0,
            seen: None,
            current: None,
            older: Vec::new(),
            killed: HashSet::new(),
            refused_value: None,
            reported_at: i64::MIN / 2,
            is_reported: false,
            refused_at: i64::MIN,
            asked_at: i64::MIN,
            honoured: None,
            may_force_until: 0,
            may_lack_until: 0,
            may_call_until: 0,
            slewed_until: 0,
            has_lost_state: false,
            may_be_ended_until: 0,
            time_is_lost: false,
            on_disk: 0,
            tickets: TicketChecker::default(),
            tickets_excused_until: 0,
            was_refused: false,
            last_call_ended_at: i64::MIN / 2,
            served: false,
        }
    }

    /// Checks a read that returned `token`.
    pub(super) fn look(
        &mut self,
        token: Option<&Token>,
        world: &World,
        context: Context,
    ) -> Result<(), String> {
        self.served = token.is_some();
        let Some(token) = token else { return self.check_missing(context) };
        if !self.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.held, token.held())) {
            self.observe_new(token, world, context)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if context.now >= current.dies_at && !current.killed && !self.has_lost_state {
            return Err(format!(
                "I1: served version {} {} ms after its death",
                token.version(),
                context.now - current.dies_at
            ));
        }
        if context.now > current.refused_since {
            return Err(format!("I1: served version {}, which a check has found dead", token.version()));
        }
        // Without reports and forced refreshes, `expires_in` is as firm as `max_age`.
        let promise = if self.undisturbed { token.expires_in() } else { token.max_age() };
        current.kept.excused |= context.now <= self.slewed_until;
        let kept_until = context.now + i64::try_from(promise.as_millis()).unwrap();
        current.kept.until = current.kept.until.max(kept_until);
        if kept_until > current.dies_at && !current.killed && !current.kept.excused && !self.has_lost_state {
            return Err(format!(
                "I1: the promise of {promise:?} for version {} ends {} ms after its death",
                token.version(),
                kept_until - current.dies_at
            ));
        }
        Ok(())
    }

    fn check_missing(&mut self, context: Context) -> Result<(), String> {
        let excused = context.now <= context.may_lack_until.max(self.may_lack_until);
        if self.undisturbed && self.configured && !excused && context.disk_is_well {
            return Err("I6: no token, though nothing has happened to this account".to_owned());
        }
        Ok(())
    }

    /// Records a token that was not seen before, or whose state has changed.
    fn observe_new(&mut self, token: &Token, world: &World, context: Context) -> Result<(), String> {
        let (value, version) = (token.access_token().to_owned(), token.version());
        let truth = world.token_truth(&value);
        let millis = |at: std::time::Duration| i64::try_from(at.as_millis()).unwrap();
        let dies_at = truth.map_or(0, |truth| millis(truth.dies_at));
        let ends_at = truth.map_or(0, |truth| millis(truth.expires_at));
        match &self.seen {
            Some((seen, _)) if version < *seen && !self.has_lost_state => {
                return Err(format!("I5: version {version} after version {seen}"));
            }
            Some((seen, before)) if version == *seen && value != *before && !self.has_lost_state => {
                return Err(format!("I5: version {version} has two values"));
            }
            Some((seen, _)) if version > *seen => {
                self.has_lost_state &= context.now <= self.may_be_ended_until;
                // Earlier reports were about the previous token.
                self.reported_at = i64::MIN / 2;
            }
            _ => {}
        }
        if context.disk_is_well && version > self.on_disk {
            return Err(format!("I5: version {version} is served, on disk is {}", self.on_disk));
        }
        if std::mem::take(&mut self.time_is_lost) {
            self.killed.insert(value.clone());
        }
        let mut kept = Kept { value: value.clone(), until: context.now, excused: self.has_lost_state };
        if let Some(before) = self.current.take() {
            if before.kept.value == value {
                kept = before.kept;
            } else if before.kept.until > context.now {
                self.older.push(before.kept);
            }
        }
        if let Some(at) = self.older.iter().position(|older| older.value == value) {
            kept = self.older.swap_remove(at);
        }
        let refused_value = self.refused_value.as_ref().filter(|(dead, _)| *dead == value);
        self.current = Some(Current {
            held: Arc::clone(token.held()),
            dies_at,
            ends_at,
            killed: self.killed.contains(&value),
            refused_since: refused_value.map_or(i64::MAX, |(_, at)| *at),
            kept,
        });
        self.seen = Some((version, value));
        Ok(())
    }

    /// Checks, after a change at WeChat, that the tokens that clients keep stay alive.
    pub(super) fn world_changed(&mut self, world: &World, now: i64) -> Result<(), String> {
        let dies_at = |value: &str| {
            world.token_truth(value).map_or(0, |truth| i64::try_from(truth.dies_at.as_millis()).unwrap())
        };
        if let Some(current) = &mut self.current {
            current.dies_at = dies_at(&current.kept.value);
        }
        let current = self.current.as_ref().map(|current| &current.kept);
        for kept in self.older.iter().chain(current) {
            let short_by = kept.until - dies_at(&kept.value);
            let excused = kept.excused || self.killed.contains(&kept.value) || self.has_lost_state;
            if kept.until > now && short_by > 0 && !excused {
                return Err(format!(
                    "I1: a copy kept as long as was promised outlives its token by {short_by} ms"
                ));
            }
        }
        self.older.retain(|kept| kept.until > now);
        Ok(())
    }

    /// Records that an outsider ended the tokens of one line, or of both; of none if `line` is `None`.
    pub(super) fn outsider_ended(
        &mut self,
        world: &World,
        values: &[String],
        line: Option<Option<Endpoint>>,
    ) {
        let is_hit = |value: &&String| {
            let endpoint = world.token_truth(value).map(|truth| truth.endpoint);
            line.is_some_and(|line| line.is_none() || line == endpoint)
        };
        for value in values.iter().filter(is_hit) {
            // Even if it would end soon: our next mint makes it the token before the last.
            self.killed.insert(value.clone());
            if let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value) {
                current.killed = true;
            }
        }
    }

    /// Excuses that tokens which clients keep may end: that was requested, or no clock can be relied on.
    pub(super) fn excuse_promises(&mut self) {
        self.older.iter_mut().for_each(|kept| kept.excused = true);
        if let Some(current) = &mut self.current {
            current.kept.excused = true;
        }
    }

    /// On `token` a lost answer leaves the old token trusted for the overlap. After that it is not served
    /// until a conclusive check, whose answer may get lost as well.
    pub(super) fn is_in_doubt(&mut self, now: i64) {
        self.may_lack_until = self.may_lack_until.max(now + 12 * MINUTE);
        self.may_call_until = self.may_call_until.max(now + 12 * MINUTE);
    }

    /// The program can no longer know when the stored token expires.
    pub(super) fn lose_time(&mut self, now: i64) {
        self.excuse_promises();
        self.time_is_lost = true;
        // The same holds for the schedule.
        self.may_lack_until = self.may_lack_until.max(now + 2 * HOUR);
        self.may_call_until = self.may_call_until.max(now + 3 * HOUR);
        self.current = None;
    }

    /// WeChat has shown the program how late it is, before the program served what is stored.
    pub(super) fn recover_time(&mut self) {
        self.time_is_lost = false;
    }

    /// Records that the program has learned that WeChat refuses `value`.
    pub(super) fn note_refused(&mut self, value: &str, now: i64) {
        if self.refused_value.as_ref().is_none_or(|(before, _)| before != value) {
            self.refused_at = now;
        }
        // If the token was not reported, the program checks it once more, a second later.
        let was_reported = now - self.reported_at < MINUTE;
        let effective_at = if was_reported { now } else { now + 15 * SECOND };
        self.refused_value = Some((value.to_owned(), effective_at));
        if let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value) {
            current.refused_since = current.refused_since.min(effective_at);
        }
        // The replacement may come right after the last one.
        self.excuse_promises();
    }

    /// Records that the program has learned that WeChat honours `value`, whatever it learned a second ago.
    pub(super) fn note_honoured(&mut self, value: &str, now: i64) {
        if self.refused_value.take_if(|(dead, effective_at)| dead == value && now < *effective_at).is_some()
            && let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value)
        {
            current.refused_since = i64::MAX;
        }
        self.honoured = Some((value.to_owned(), now));
    }

    /// From now on the program need not know which tokens are alive.
    pub(super) fn forget_checks(&mut self) {
        self.honoured = None;
    }

    /// Records that `value` is about to be checked.
    pub(super) fn note_check_sent(&mut self, value: &str, now: i64) -> Result<(), String> {
        self.checking += 1;
        if self.checking > 1 {
            return Err("I2: two checks in flight".to_owned());
        }
        // A served token is checked because it was rejected: one check serves all rejections.
        let cooldown = i64::try_from(self.account.settings.rejection_cooldown.as_millis()).unwrap();
        let is_reported = std::mem::take(&mut self.is_reported);
        match &self.honoured {
            Some((honoured, at))
                if self.served && honoured == value && now - at < cooldown && is_reported =>
            {
                Err(format!("I4: checked again {} ms after it was found well", now - at))
            }
            _ => Ok(()),
        }
    }

    /// A crashed actor has not yet taken in what the program learned.
    pub(super) fn excuse_until(&mut self, until: i64) {
        self.forget_checks();
        if let Some((_, at)) = &mut self.refused_value {
            *at = (*at).max(until);
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.refused_since != i64::MAX) {
            current.refused_since = current.refused_since.max(until);
        }
    }

    /// Records the death of the process: what it learned just before may be neither taken in nor on disk.
    pub(super) fn process_died(&mut self, now: i64) {
        self.forget_checks();
        if self.refused_value.take_if(|(_, effective_at)| now < *effective_at + 2 * SECOND).is_some()
            && let Some(current) = &mut self.current
        {
            current.refused_since = i64::MAX;
        }
    }

    /// Records the death of the process while the disk failed. `last_arrival` is when its last call arrives,
    /// if one is still in transit.
    pub(super) fn forget(&mut self, last_arrival: Option<i64>) {
        self.has_lost_state = true;
        self.may_be_ended_until = last_arrival.unwrap_or(0);
        self.refused_value = None;
        if let Some(current) = &mut self.current {
            current.refused_since = i64::MAX;
        }
        self.calls.clear();
        self.forced.clear();
        self.excuse_promises();
    }

    /// Changes the account's settings.
    pub(super) fn set_account(&mut self, account: Arc<Account>, now: i64) {
        self.budgets.push_back((now, self.account.settings.daily_budget));
        // Until the change is applied, clients are believed or not as before.
        self.may_call_until = self.may_call_until.max(now + MINUTE);
        if account.secret != self.account.secret
            || account.settings.endpoint != self.account.settings.endpoint
        {
            self.may_call_until = self.may_call_until.max(now + 10 * MINUTE);
            // Tried at once, which may be right after the last mint.
            self.excuse_promises();
        }
        self.account = account;
        self.forget_checks();
    }

    /// Checks a token call that is about to be sent; tolerates `slack` calls beyond the budget.
    pub(super) fn note_call_sent(
        &mut self,
        endpoint: Endpoint,
        force: bool,
        slack: usize,
        now: i64,
    ) -> Result<(), String> {
        self.in_flight += 1;
        if self.in_flight > 1 {
            return Err("I2: two token calls in flight".to_owned());
        }
        self.calls.push_back(now);
        while self.calls.front().is_some_and(|at| *at <= now - DAY) {
            self.calls.pop_front();
        }
        while self.budgets.front().is_some_and(|(until, _)| *until <= now - DAY) {
            self.budgets.pop_front();
        }
        let earlier = self.budgets.iter().map(|(_, budget)| *budget);
        let budget = earlier.chain([self.account.settings.daily_budget]).max().unwrap_or_default();
        if self.calls.len() > budget as usize + slack {
            return Err(format!("I3: {} calls in 24 h, the budget is {budget}", self.calls.len()));
        }
        if force {
            self.check_forced_call(slack, now)?;
        } else {
            if endpoint == Endpoint::StableToken {
                self.asked_at = now;
            }
            self.check_call_is_needed(endpoint, now)?;
        }
        if !self.account.settings.verify_rejections {
            // A client that is believed may have asked for it, right after the last one.
            self.excuse_promises();
        }
        Ok(())
    }

    fn check_forced_call(&mut self, slack: usize, now: i64) -> Result<(), String> {
        self.excuse_promises();
        if self.asked_at < self.refused_at && now > self.may_force_until && !self.has_lost_state {
            return Err("I4: forced without having asked in normal mode".to_owned());
        }
        self.forced.retain(|at| *at > now - DAY);
        // Counted from the program's decision; the disk takes its time before the call is sent.
        let spaced = slack > 0 || self.forced.back().is_none_or(|last| now - last >= 29 * SECOND);
        self.forced.push_back(now);
        if self.forced.len() > FORCED_A_DAY + slack {
            return Err(format!("I4: {} forced calls in 24 h", self.forced.len()));
        }
        if spaced { Ok(()) } else { Err("I4: two forced calls within 30 s".to_owned()) }
    }

    /// Checks that the call is needed: one for an account whose token is young, alive and not reported is a
    /// waste.
    fn check_call_is_needed(&self, endpoint: Endpoint, now: i64) -> Result<(), String> {
        let Some(current) = self.current.as_ref().filter(|_| self.served) else { return Ok(()) };
        let well = !current.killed && now < current.dies_at && current.refused_since == i64::MAX;
        let window = match (endpoint, self.account.settings.refresh_ahead) {
            (Endpoint::StableToken, _) => 5 * MINUTE,
            // The refresh instant varies by a third either way.
            (Endpoint::Token, RefreshAhead::Share(share)) => (share * 4.0 / 3.0 * 2.0 * HOUR as f64) as i64,
            (Endpoint::Token, RefreshAhead::Fixed(time)) => time.as_millis() as i64 * 4 / 3,
        };
        let same_line = current.held.endpoint == endpoint;
        let young = current.ends_at - now > window + MINUTE;
        if well
            && young
            && same_line
            && now > self.may_call_until
            && !self.has_lost_state
            && !self.was_refused
        {
            return Err(format!(
                "I4: a needless call, {} s before the end",
                (current.ends_at - now) / SECOND
            ));
        }
        Ok(())
    }

    /// Returns how many token calls were sent within the last 24 h.
    pub(super) fn calls_in_a_day(&mut self, now: i64) -> usize {
        self.calls.retain(|at| *at > now - DAY);
        self.calls.len()
    }

    /// Returns the largest budget in force within the last 24 h.
    pub(super) fn budget_of_a_day(&self, now: i64) -> usize {
        let earlier = self.budgets.iter().filter(|(until, _)| *until > now - DAY).map(|(_, budget)| *budget);
        earlier.chain([self.account.settings.daily_budget]).max().unwrap_or_default() as usize
    }

    /// Records that a forced call reached no one who could have obeyed it.
    pub(super) fn note_force_ineffective(&mut self) {
        self.forced.pop_back();
    }

    /// Records that no byte of a call was sent after all.
    pub(super) fn unsent(&mut self, force: bool) {
        self.calls.pop_back();
        if force {
            self.forced.pop_back();
        }
    }

    /// Returns the token that readers got last.
    pub(super) fn current_value(&self) -> Option<String> {
        self.current.as_ref().map(|current| current.kept.value.clone())
    }

    /// Whether WeChat refuses the token that readers got last, without the program knowing.
    pub(super) fn is_dead_in_secret(&self, now: i64) -> bool {
        self.current.as_ref().is_some_and(|current| now >= current.dies_at)
    }
}
