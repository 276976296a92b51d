//! What must hold of one account, watched from outside: by what its readers were given, what WeChat knows, and
//! which calls the program has sent.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use wxtokend_core::account::{Account, Appid, Endpoint, RefreshAhead};
use wxtokend_core::token::schedule::FORCED_A_DAY;
use wxtokend_core::token::{HeldToken, Token};
use wxtokend_sandbox::World;

use super::fault_rates::{DAY, HOUR, MINUTE, SECOND};
use super::ticket_checker::TicketChecker;

/// The books on one account. Instants are true ones, in milliseconds.
pub(super) struct AccountChecker {
    pub(super) appid: Appid,
    /// Nothing ever happens to this one alone: it must not feel what happens to others.
    pub(super) calm: bool,
    /// As the file has it, or would have it if it were not taken out.
    pub(super) account: Arc<Account>,
    pub(super) configured: bool,
    /// The share of its calls that fail,
    pub(super) fault_rate: f64,
    /// and how, if always in the same way.
    pub(super) only_fault: Option<usize>,
    /// A client that rejects its tokens again and again.
    pub(super) rejecter: Option<Rejecter>,
    calls: VecDeque<i64>,
    forced: VecDeque<i64>,
    /// Budgets that were in force until then.
    budgets: VecDeque<(i64, u32)>,
    pub(super) in_flight: u32,
    pub(super) checking: u32,
    seen: Option<(u64, String)>,
    current: Option<Current>,
    /// Earlier tokens that clients may still keep.
    older: Vec<Kept>,
    /// Tokens that somebody else has ended, which the program cannot know.
    killed: HashSet<String>,
    /// The token that a check has found dead, and when the program was told.
    refused_value: Option<(String, i64)>,
    /// When somebody last reported the token that readers were given.
    pub(super) reported_at: i64,
    /// Whether somebody has done so since the last check.
    pub(super) is_reported: bool,
    /// When the program was first told so,
    refused_at: i64,
    /// and when it last asked `stable_token` in normal mode.
    asked_at: i64,
    /// The token that a check has found well, and when the program was told.
    honoured: Option<(String, i64)>,
    /// Until when an operator may have it force.
    pub(super) may_force_until: i64,
    /// Until when it may lack a token.
    pub(super) may_lack_until: i64,
    /// Until when it may call though its token is young and well.
    pub(super) may_call_until: i64,
    /// Until when the wall clock is slewed, by which a promise may be too long by a twelfth.
    pub(super) slewed_until: i64,
    /// The disk has lost what readers were told.
    amnesia: bool,
    /// Until when a call may be under way of which the disk has lost that it was made: nobody can know that it ends a
    /// token that comes before it.
    may_be_ended_until: i64,
    /// The machine came back with a clock that errs: when the token that it has stored ends cannot be known.
    time_is_lost: bool,
    pub(super) on_disk: u64,
    pub(super) tickets: TicketChecker,
    /// Until when nothing is asked of them: the disk has lost what it was told, or no clock tells how old they are.
    pub(super) tickets_excused_until: i64,
    /// Whether the last token call was answered by an errcode.
    pub(super) was_refused: bool,
    /// When a token call last ended.
    pub(super) told_at: i64,
    /// Whether the last look found a token.
    pub(super) served: bool,
}

/// One who rejects tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rejecter {
    pub(super) style: usize,
    pub(super) left: u32,
}

/// What readers are given now.
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
    /// The promise was withdrawn by somebody who may: an operator who forces, a client that is believed.
    excused: bool,
}

/// What a look at an account depends on besides its checker.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) now: i64,
    /// Until when any account may lack a token.
    pub(super) may_lack_until: i64,
    pub(super) disk_is_well: bool,
}

impl AccountChecker {
    pub(super) fn new(account: Arc<Account>, calm: bool) -> Self {
        Self {
            appid: account.appid.clone(),
            calm,
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
            amnesia: false,
            may_be_ended_until: 0,
            time_is_lost: false,
            on_disk: 0,
            tickets: TicketChecker::default(),
            tickets_excused_until: 0,
            was_refused: false,
            told_at: i64::MIN / 2,
            served: false,
        }
    }

    /// A reader was given `token`.
    pub(super) fn look(
        &mut self,
        token: Option<&Token>,
        world: &World,
        scene: Context,
    ) -> Result<(), String> {
        self.served = token.is_some();
        let Some(token) = token else { return self.lacks(scene) };
        if !self.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.held, token.held())) {
            self.take_up(token, world, scene)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if scene.now >= current.dies_at && !current.killed && !self.amnesia {
            return Err(format!(
                "I1: served version {} {} ms after its death",
                token.version(),
                scene.now - current.dies_at
            ));
        }
        if scene.now > current.refused_since {
            return Err(format!("I1: served version {}, which a check has found dead", token.version()));
        }
        // Where nobody complains of the token and nobody forces, `expires_in` is as firm as `max_age`.
        let promise = if self.calm { token.expires_in() } else { token.max_age() };
        current.kept.excused |= scene.now <= self.slewed_until;
        let kept_until = scene.now + i64::try_from(promise.as_millis()).unwrap();
        current.kept.until = current.kept.until.max(kept_until);
        if kept_until > current.dies_at && !current.killed && !current.kept.excused && !self.amnesia {
            return Err(format!(
                "I1: the promise of {promise:?} for version {} ends {} ms after its death",
                token.version(),
                kept_until - current.dies_at
            ));
        }
        Ok(())
    }

    fn lacks(&mut self, scene: Context) -> Result<(), String> {
        let excused = scene.now <= scene.may_lack_until.max(self.may_lack_until);
        if self.calm && self.configured && !excused && scene.disk_is_well {
            return Err("I6: no token, though nothing has happened to this account".to_owned());
        }
        Ok(())
    }

    /// A token that was not seen before, or is told of anew.
    fn take_up(&mut self, token: &Token, world: &World, scene: Context) -> Result<(), String> {
        let (value, version) = (token.access_token().to_owned(), token.version());
        let truth = world.token_truth(&value);
        let told = |at: std::time::Duration| i64::try_from(at.as_millis()).unwrap();
        let dies_at = truth.map_or(0, |truth| told(truth.dies_at));
        let ends_at = truth.map_or(0, |truth| told(truth.expires_at));
        match &self.seen {
            Some((seen, _)) if version < *seen && !self.amnesia => {
                return Err(format!("I5: version {version} after version {seen}"));
            }
            Some((seen, before)) if version == *seen && value != *before && !self.amnesia => {
                return Err(format!("I5: version {version} has two values"));
            }
            Some((seen, _)) if version > *seen => {
                self.amnesia &= scene.now <= self.may_be_ended_until;
                // The reports so far were of the one before.
                self.reported_at = i64::MIN / 2;
            }
            _ => {}
        }
        if scene.disk_is_well && version > self.on_disk {
            return Err(format!("I5: version {version} is served, on disk is {}", self.on_disk));
        }
        if std::mem::take(&mut self.time_is_lost) {
            self.killed.insert(value.clone());
        }
        let mut kept = Kept { value: value.clone(), until: scene.now, excused: self.amnesia };
        if let Some(before) = self.current.take() {
            if before.kept.value == value {
                kept = before.kept;
            } else if before.kept.until > scene.now {
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

    /// WeChat has done something about the account's tokens: what clients keep must live on.
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
            let excused = kept.excused || self.killed.contains(&kept.value) || self.amnesia;
            if kept.until > now && short_by > 0 && !excused {
                return Err(format!(
                    "I1: a copy kept as long as was promised outlives its token by {short_by} ms"
                ));
            }
        }
        self.older.retain(|kept| kept.until > now);
        Ok(())
    }

    /// Somebody else has ended the tokens of one line, or of both; or none, where `line` is `None`.
    pub(super) fn outsider_came(&mut self, world: &World, values: &[String], line: Option<Option<Endpoint>>) {
        let hit = |value: &&String| {
            let endpoint = world.token_truth(value).map(|truth| truth.endpoint);
            line.is_some_and(|line| line.is_none() || line == endpoint)
        };
        for value in values.iter().filter(hit) {
            // Even where it would end soon: our next mint makes it the token before the last.
            self.killed.insert(value.clone());
            if let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value) {
                current.killed = true;
            }
        }
    }

    /// What clients keep may end: somebody has asked for it, or no clock can be relied on.
    pub(super) fn excuse_promises(&mut self) {
        self.older.iter_mut().for_each(|kept| kept.excused = true);
        if let Some(current) = &mut self.current {
            current.kept.excused = true;
        }
    }

    /// On `token` a call whose answer is lost leaves the old token trusted for the overlap, then nobody's until a check
    /// tells, which may get lost, too.
    pub(super) fn is_in_doubt(&mut self, now: i64) {
        self.may_lack_until = self.may_lack_until.max(now + 12 * MINUTE);
        self.may_call_until = self.may_call_until.max(now + 12 * MINUTE);
    }

    /// When the token that is stored ends cannot be known to the program.
    pub(super) fn lose_the_time(&mut self, now: i64) {
        self.excuse_promises();
        self.time_is_lost = true;
        // So is what was to happen when.
        self.may_lack_until = self.may_lack_until.max(now + 2 * HOUR);
        self.may_call_until = self.may_call_until.max(now + 3 * HOUR);
        self.current = None;
    }

    /// WeChat has told the program how late it is, before that served what is stored.
    pub(super) fn find_the_time(&mut self) {
        self.time_is_lost = false;
    }

    /// The program is told that WeChat refuses `value`.
    pub(super) fn note_refused(&mut self, value: &str, now: i64) {
        if self.refused_value.as_ref().is_none_or(|(before, _)| before != value) {
            self.refused_at = now;
        }
        // What nobody has complained of is looked at once more, a second later.
        let complained_of = now - self.reported_at < MINUTE;
        let takes_in = if complained_of { now } else { now + 15 * SECOND };
        self.refused_value = Some((value.to_owned(), takes_in));
        if let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value) {
            current.refused_since = current.refused_since.min(takes_in);
        }
        // The replacement may come right after the last one.
        self.excuse_promises();
    }

    /// The program is told that WeChat honours `value`, whatever it was told a second ago.
    pub(super) fn vouch(&mut self, value: &str, now: i64) {
        if self.refused_value.take_if(|(dead, takes_in)| dead == value && now < *takes_in).is_some()
            && let Some(current) = self.current.as_mut().filter(|current| current.kept.value == *value)
        {
            current.refused_since = i64::MAX;
        }
        self.honoured = Some((value.to_owned(), now));
    }

    /// The program need not know any more which tokens are well.
    pub(super) fn forget_checks(&mut self) {
        self.honoured = None;
    }

    /// `value` is about to be checked.
    pub(super) fn checks(&mut self, value: &str, now: i64) -> Result<(), String> {
        self.checking += 1;
        if self.checking > 1 {
            return Err("I2: two checks in flight".to_owned());
        }
        // A token that is served is checked because somebody has rejected it: one check is for all who do.
        let cooldown = i64::try_from(self.account.rejection_cooldown.as_millis()).unwrap();
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

    /// An actor that has crashed has not taken in yet what the program was told.
    pub(super) fn excuse_until(&mut self, until: i64) {
        self.forget_checks();
        if let Some((_, at)) = &mut self.refused_value {
            *at = (*at).max(until);
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.refused_since != i64::MAX) {
            current.refused_since = current.refused_since.max(until);
        }
    }

    /// The process has died: what it was told a moment ago may be neither taken in nor on disk.
    pub(super) fn process_died(&mut self, now: i64) {
        self.forget_checks();
        if self.refused_value.take_if(|(_, takes_in)| now < *takes_in + 2 * SECOND).is_some()
            && let Some(current) = &mut self.current
        {
            current.refused_since = i64::MAX;
        }
    }

    /// The process has died while the disk did not take what it was given; its last call arrives then, if one is on its
    /// way still.
    pub(super) fn forget(&mut self, last_arrival: Option<i64>) {
        self.amnesia = true;
        self.may_be_ended_until = last_arrival.unwrap_or(0);
        self.refused_value = None;
        if let Some(current) = &mut self.current {
            current.refused_since = i64::MAX;
        }
        self.calls.clear();
        self.forced.clear();
        self.excuse_promises();
    }

    /// The operator sets another budget.
    pub(super) fn set_account(&mut self, account: Arc<Account>, now: i64) {
        self.budgets.push_back((now, self.account.daily_budget));
        // Until it is applied, clients are believed or not as before.
        self.may_call_until = self.may_call_until.max(now + MINUTE);
        if account.secret != self.account.secret || account.endpoint != self.account.endpoint {
            self.may_call_until = self.may_call_until.max(now + 10 * MINUTE);
            // Tried at once, which may be right after the last mint.
            self.excuse_promises();
        }
        self.account = account;
        self.forget_checks();
    }

    /// A token call is about to be sent; `slack` calls more than the budget are forgiven.
    pub(super) fn sends(
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
        let budget = earlier.chain([self.account.daily_budget]).max().unwrap_or_default();
        if self.calls.len() > budget as usize + slack {
            return Err(format!("I3: {} calls in 24 h, the budget is {budget}", self.calls.len()));
        }
        if force {
            self.forces(slack, now)?;
        } else {
            if endpoint == Endpoint::StableToken {
                self.asked_at = now;
            }
            self.needs_to_call(endpoint, now)?;
        }
        if !self.account.verify_rejections {
            // A client that is believed may have asked for it, right after the last one.
            self.excuse_promises();
        }
        Ok(())
    }

    fn forces(&mut self, slack: usize, now: i64) -> Result<(), String> {
        self.excuse_promises();
        if self.asked_at < self.refused_at && now > self.may_force_until && !self.amnesia {
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

    /// A call for an account whose token is young and well, and of which nobody has complained, is a waste.
    fn needs_to_call(&self, endpoint: Endpoint, now: i64) -> Result<(), String> {
        let Some(current) = self.current.as_ref().filter(|_| self.served) else { return Ok(()) };
        let well = !current.killed && now < current.dies_at && current.refused_since == i64::MAX;
        let window = match (endpoint, self.account.refresh_ahead) {
            (Endpoint::StableToken, _) => 5 * MINUTE,
            // The refresh instant is drawn a third more or less ahead.
            (Endpoint::Token, RefreshAhead::Share(share)) => (share * 4.0 / 3.0 * 2.0 * HOUR as f64) as i64,
            (Endpoint::Token, RefreshAhead::Fixed(time)) => time.as_millis() as i64 * 4 / 3,
        };
        let same_line = current.held.endpoint == endpoint;
        let young = current.ends_at - now > window + MINUTE;
        if well && young && same_line && now > self.may_call_until && !self.amnesia && !self.was_refused {
            return Err(format!(
                "I4: a needless call, {} s before the end",
                (current.ends_at - now) / SECOND
            ));
        }
        Ok(())
    }

    /// How many token calls were sent within the last 24 h.
    pub(super) fn calls_in_a_day(&mut self, now: i64) -> usize {
        self.calls.retain(|at| *at > now - DAY);
        self.calls.len()
    }

    /// The largest budget that was in force within the last 24 h.
    pub(super) fn budget_of_a_day(&self, now: i64) -> usize {
        let earlier = self.budgets.iter().filter(|(until, _)| *until > now - DAY).map(|(_, budget)| *budget);
        earlier.chain([self.account.daily_budget]).max().unwrap_or_default() as usize
    }

    /// A forced call came to nobody who could have obeyed it.
    pub(super) fn forced_nothing(&mut self) {
        self.forced.pop_back();
    }

    /// No byte of a call was sent after all.
    pub(super) fn unsent(&mut self, force: bool) {
        self.calls.pop_back();
        if force {
            self.forced.pop_back();
        }
    }

    /// The token that readers were given last.
    pub(super) fn current_value(&self) -> Option<String> {
        self.current.as_ref().map(|current| current.kept.value.clone())
    }

    /// Whether the token that readers were given last is one that WeChat refuses, without the program's knowledge.
    pub(super) fn is_dead_in_secret(&self, now: i64) -> bool {
        self.current.as_ref().is_some_and(|current| now >= current.dies_at)
    }
}
