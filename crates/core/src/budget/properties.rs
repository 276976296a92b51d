//! Property: whatever happens in whatever order, no 24 h window holds more calls than the budget.

use proptest::prelude::*;

use super::*;
use crate::account::{Account, Endpoint};
use crate::fault::Fault;
use crate::token::schedule::{Draw, Rules};
use crate::token::state::AccountState;
use crate::token::transition::FetchEnd;

const START_MS: i64 = 5_000_000;
const CHECK_BUDGET: u32 = 40;

/// Something that happens to an account and its budget.
#[derive(Debug, Clone)]
enum Event {
    Wait {
        ms: i64,
    },
    /// Calls that are sent, as many of these as the budget allows.
    Calls(u8),
    /// Calls of which no byte is sent; the budget may change while one is under way.
    Unsent {
        calls: u8,
        reload: Option<u32>,
    },
    /// Client requests, as many of these as their bucket allows.
    Requests(u8),
    /// Checks that nobody asked for, as many of these as their budget allows.
    Checks(u8),
    Reload(u32),
    /// A crash: only what is on disk remains.
    Crash,
    /// The machine reboots after being down for a while.
    Reboot {
        down_ms: i64,
    },
    /// From now on, the wall clock is off by this much.
    WallOff {
        ms: i64,
    },
    /// The account is removed from the file and added again.
    Leave,
}

fn budget() -> impl Strategy<Value = u32> {
    prop_oneof![4_u32..12, 4_u32..80]
}

fn event() -> impl Strategy<Value = Event> {
    let wait = prop_oneof![0_i64..2_000, 0_i64..3_600_000, 0_i64..30_000_000];
    prop_oneof![
        4 => wait.prop_map(|ms| Event::Wait { ms }),
        4 => (1_u8..30).prop_map(Event::Calls),
        2 => (1_u8..30, prop::option::of(budget())).prop_map(|(calls, reload)| Event::Unsent { calls, reload }),
        1 => (1_u8..12).prop_map(Event::Requests),
        2 => (1_u8..60).prop_map(Event::Checks),
        1 => budget().prop_map(Event::Reload),
        1 => Just(Event::Crash),
        1 => (0_i64..40_000_000).prop_map(|down_ms| Event::Reboot { down_ms }),
        1 => prop_oneof![Just(0), -90_000_000_i64..90_000_000].prop_map(|ms| Event::WallOff { ms }),
        1 => Just(Event::Leave),
    ]
}

/// An account, and what an auditor who knows the true time has seen of it.
struct Audit {
    account: Account,
    state: AccountState,
    /// The true time.
    t: i64,
    booted_at: i64,
    wall_off: i64,
    /// How far off the wall clock was when each bucket was last charged.
    main_off: i64,
    request_off: i64,
    check_off: i64,
    calls: Vec<i64>,
    requests: Vec<i64>,
    checks: Vec<i64>,
    /// Each budget, and since when it was in force.
    budgets: Vec<(i64, u32)>,
}

impl Audit {
    fn new(daily_budget: u32) -> Self {
        let account =
            Account::example(Endpoint::StableToken).with(|settings| settings.daily_budget = daily_budget);
        Self {
            account,
            state: AccountState::default(),
            t: START_MS,
            booted_at: 0,
            wall_off: 0,
            main_off: 0,
            request_off: 0,
            check_off: 0,
            calls: Vec::new(),
            requests: Vec::new(),
            checks: Vec::new(),
            budgets: vec![(0, daily_budget)],
        }
    }

    fn now(&self) -> Moment {
        Moment { wall_ms: 1_790_000_000_000 + self.t + self.wall_off, boot_ms: self.t - self.booted_at }
    }

    fn reload(&mut self, daily_budget: u32) {
        let new = self.account.clone().with(|settings| settings.daily_budget = daily_budget);
        self.state.reconfigured(&self.account, &new, self.now());
        self.account = new;
        self.budgets.push((self.t, daily_budget));
    }

    fn reread(&mut self) {
        self.state = serde_json::from_str(&serde_json::to_string(&self.state).unwrap()).unwrap();
    }

    fn begin(&mut self) -> bool {
        let begun = self.state.begin_fetch(&self.account, false, self.now()).is_ok();
        if begun {
            self.main_off = self.wall_off;
        }
        begun
    }

    fn end(&mut self, sent: bool) {
        let end = FetchEnd {
            force: false,
            sent_at: sent.then(|| self.now()),
            may_have_minted: false,
            result: Err(Fault::host("no connection")),
        };
        let now = self.now();
        self.state.end_fetch(end, &self.account, Rules::EXAMPLE, now, Draw::alone(0.5));
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Wait { ms } => self.t += ms,
            Event::Calls(calls) => {
                for _ in 0..calls {
                    if self.begin() {
                        self.calls.push(self.t);
                        self.end(true);
                    }
                }
            }
            Event::Unsent { calls, reload } => {
                let before = self.account.settings.daily_budget;
                for _ in 0..calls {
                    if self.begin() {
                        reload.into_iter().for_each(|budget| self.reload(budget));
                        self.end(false);
                        self.reload(before);
                    }
                }
            }
            Event::Requests(requests) => {
                let (budget, now) = (self.account.settings.daily_budget, self.now());
                for _ in 0..requests {
                    if self.state.ledger.charge(Bucket::ClientRequests, budget, now).is_ok() {
                        self.request_off = self.wall_off;
                        self.requests.push(self.t);
                    }
                }
            }
            Event::Checks(checks) => {
                for _ in 0..checks {
                    if self.state.ledger.charge(Bucket::Checks, CHECK_BUDGET, self.now()).is_ok() {
                        self.check_off = self.wall_off;
                        self.checks.push(self.t);
                    }
                }
            }
            Event::Reload(budget) => self.reload(budget),
            Event::Crash => self.reread(),
            // A wall clock that has jumped since the last charge connects the two boots wrongly, and nothing
            // could detect it.
            Event::Reboot { .. }
                if [self.main_off, self.request_off, self.check_off] != [self.wall_off; 3] => {}
            Event::Reboot { down_ms } => {
                self.reread();
                self.t += down_ms;
                self.booted_at = self.t - 40_000;
                self.state = std::mem::take(&mut self.state).rebased(self.now());
            }
            Event::WallOff { ms } => self.wall_off = ms,
            Event::Leave => {
                self.state = self.state.tombstone();
                self.reread();
            }
        }
    }

    /// The largest budget in force within the last 24 hours.
    fn largest(&self) -> u32 {
        let from = self.t - WINDOW.as_millis() as i64;
        let before = self.budgets.iter().rev().find(|(since, _)| *since <= from);
        let within = self.budgets.iter().filter(|(since, _)| *since > from);
        before.into_iter().chain(within).map(|(_, budget)| *budget).max().unwrap()
    }

    /// How many of `charges` fall within the last 24 hours.
    fn held(&self, charges: &[i64]) -> u32 {
        let from = self.t - WINDOW.as_millis() as i64;
        charges.iter().filter(|at| **at > from).count() as u32
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: calls, refunds, reloads, crashes, reboots, a wrong clock, removal and return.
    #[test]
    fn no_window_holds_more_calls_than_the_largest_budget_in_force_within_it(
        first in budget(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut audit = Audit::new(first);
        for event in &events {
            audit.happen(event);
            let (held, largest) = (audit.held(&audit.calls), audit.largest());
            prop_assert!(held <= largest, "{held} calls under a budget of {largest} after {event:?}");
            // Two a day is the least that a bucket can hold; for a budget below 8, a quarter would be less.
            let (held, quarter) = (audit.held(&audit.requests), (largest / 4).max(2));
            prop_assert!(held <= quarter, "{held} requests under a quarter of {quarter} after {event:?}");
            let held = audit.held(&audit.checks);
            prop_assert!(held <= CHECK_BUDGET, "{held} checks after {event:?}");
        }
    }

    /// Calls that sent nothing leave the budget as it was, even if it changed while they were under way.
    #[test]
    fn what_is_given_back_is_what_was_taken(
        first in budget(),
        events in prop::collection::vec(event(), 0..40),
        calls in 1_u8..20,
        reload in prop::option::of(budget()),
    ) {
        let mut audit = Audit::new(first);
        events.iter().for_each(|event| audit.happen(event));
        let remaining =
            |audit: &Audit| audit.state.ledger.remaining(Bucket::Calls, audit.account.settings.daily_budget, audit.now());
        let before = remaining(&audit);
        audit.happen(&Event::Unsent { calls, reload });
        prop_assert_eq!(remaining(&audit), before);
    }

    /// A budget that is left alone for a day is full again, whatever happened before.
    #[test]
    fn a_day_without_calls_makes_the_budget_whole(
        first in budget(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut audit = Audit::new(first);
        events.iter().for_each(|event| audit.happen(event));
        // A unit takes up to a millisecond longer than its share of the day to come back.
        audit.t += WINDOW.as_millis() as i64 + 1000;
        let (budget, now) = (audit.account.settings.daily_budget, audit.now());
        prop_assert_eq!(audit.state.ledger.remaining(Bucket::Calls, budget, now), burst(budget));
        let requests = audit.state.ledger.remaining(Bucket::ClientRequests, budget, now);
        prop_assert_eq!(requests, Bucket::ClientRequests.size(budget).get());
    }

    /// As many calls as an operator is shown can be made, and a refusal names the right instant.
    #[test]
    fn what_remains_can_be_called_and_the_next_call_when_it_is_said(
        first in budget(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut audit = Audit::new(first);
        events.iter().for_each(|event| audit.happen(event));
        let (budget, now) = (audit.account.settings.daily_budget, audit.now());
        let mut ledger = audit.state.ledger;
        for _ in 0..ledger.remaining(Bucket::Calls, budget, now) {
            prop_assert!(ledger.charge(Bucket::Calls, budget, now).is_ok());
        }
        let free_at = ledger.charge(Bucket::Calls, budget, now).unwrap_err();
        prop_assert!(free_at.until(now) > Duration::ZERO && free_at.until(now) <= WINDOW);
        prop_assert!(ledger.charge(Bucket::Calls, budget, free_at - Duration::from_millis(1)).is_err());
        prop_assert!(ledger.charge(Bucket::Calls, budget, free_at).is_ok());
    }
}
