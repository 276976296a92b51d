use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::budget::WINDOW;
use crate::fault::Fault;
use crate::secret::Secret;
use crate::token::decide::{Step, next_step};
use crate::token::rejection::{RequestDecision, decide_rejection};
use crate::token::state::{HintSource, Reason, SourceId, Verdict, WantedCall};
use crate::token::{HeldToken, Validity};

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const BOTH: [Endpoint; 2] = [Endpoint::StableToken, Endpoint::Token];
const USED: Option<Duration> = Some(Duration::ZERO);
const ASK: Hint = Hint { source: HintSource::Ask, from: SourceId(1), version: 1 };

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    START + s(seconds)
}

fn holding(endpoint: Endpoint) -> (Account, AccountState) {
    let account = Account::example(endpoint);
    let token = Some(Arc::new(HeldToken::example(&account, START, s(7200))));
    (account, AccountState { version: 1, token, ..AccountState::default() })
}

fn quota() -> CheckEnd {
    CheckEnd::Inconclusive(Fault { errcode: Some(45009), ..Fault::host("reach max api daily quota limit") })
}

/// Follows a hint to the end of its check.
fn follow(state: &mut AccountState, account: &Account, end: &CheckEnd, now: Moment) {
    state.hint = Some(ASK);
    assert!(state.begin_hinted_check(account, now));
    state.end_check(end, account, now);
}

#[test]
fn a_token_in_use_on_token_is_audited_once_it_was_not_looked_at_for_the_interval() {
    let (account, state) = holding(Endpoint::Token);
    for (unused_for, now, due) in [
        (Some(0), 299, false),
        (Some(0), 300, true),
        (Some(899), 1800, true),
        (Some(900), 1800, false),
        (None, 300, false),
    ] {
        let found = needs_audit(&state, &account, unused_for.map(s), at(now));
        assert_eq!(found, due, "unused for {unused_for:?} at {now}");
    }
    let off = account.with(|settings| settings.audit = Duration::ZERO);
    assert!(!needs_audit(&state, &off, USED, at(300)));
    let (stable, state) = holding(Endpoint::StableToken);
    assert!(!needs_audit(&state, &stable, USED, at(300)), "nobody else ends a stable token");
}

#[test]
fn a_check_that_finds_the_token_alive_is_a_look_whoever_asked_for_it() {
    for asked_for in [true, false] {
        let (account, mut state) = holding(Endpoint::Token);
        if asked_for {
            state.want = Some(WantedCall::Check);
            state.end_check(&CheckEnd::Honoured, &account, at(200));
        } else {
            follow(&mut state, &account, &CheckEnd::Honoured, at(200));
        }
        assert!(!needs_audit(&state, &account, USED, at(499)));
        assert!(needs_audit(&state, &account, USED, at(500)));
    }
}

#[test]
fn an_attempt_at_an_audit_waits_a_minute_and_the_days_quota_an_hour() {
    let (account, mut state) = holding(Endpoint::Token);
    state.note_audit(&account, at(300));
    assert!(!needs_audit(&state, &account, USED, at(359)));
    assert!(needs_audit(&state, &account, USED, at(360)));
    follow(&mut state, &account, &quota(), at(360));
    assert!(!needs_audit(&state, &account, USED, at(3959)));
    assert!(needs_audit(&state, &account, USED, at(3960)));
    assert!(is_worth_a_check(&state, &account, ASK, at(1000)), "hints go on");
}

#[test]
fn a_hint_is_worth_a_check_only_where_a_report_of_the_token_would_be() {
    let (account, state) = holding(Endpoint::Token);
    assert!(is_worth_a_check(&state, &account, ASK, at(1)));
    let not = |change: fn(&mut AccountState), why: &str| {
        let mut state = state.clone();
        change(&mut state);
        assert!(!is_worth_a_check(&state, &account, ASK, at(1)), "{why}");
    };
    not(|state| state.version = 2, "it is about an older token");
    not(|state| state.want = Some(WantedCall::Check), "a report is about to be checked");
    not(|state| state.hint = Some(ASK), "another hint is");
    not(|state| state.activity = Activity::Fetching, "it is being replaced");
    not(|state| state.rejections.cool_until = Some(at(2)), "it was looked at a moment ago");
    not(|state| Arc::make_mut(state.token.as_mut().unwrap()).validity = Validity::Refused, "it is dead");
    not(|state| state.token = None, "there is none");
    let spend = |state: &mut AccountState| {
        while state.ledger.charge(Bucket::Checks, 400, at(1)).is_ok() {}
    };
    not(spend, "the budget for checks is spent");
}

#[test]
fn a_hint_leads_to_a_check_and_to_nothing_that_is_due() {
    let (account, mut state) = holding(Endpoint::Token);
    state.hint = Some(ASK);
    assert_eq!(next_step(&state, &account, true, at(1)), Step::FollowHint(at(5400)));
    let due = Step::Fetch { reason: Reason::Due, force: false };
    assert_eq!(next_step(&state, &account, true, at(5400)), due, "the refresh does not wait for it");
    state.want = Some(WantedCall::Check);
    assert_eq!(next_step(&state, &account, true, at(1)), Step::Check, "nor does a report");
}

#[test]
fn a_dead_token_is_replaced_and_one_that_is_alive_or_unclear_is_left_alone() {
    for endpoint in BOTH {
        let (account, mut state) = holding(endpoint);
        follow(&mut state, &account, &CheckEnd::Honoured, at(10));
        assert!(state.is_usable(at(10)) && state.want.is_none());
        for seconds in [20, 30, 40] {
            follow(&mut state, &account, &CheckEnd::Inconclusive(Fault::host("down")), at(seconds));
            assert!(state.is_usable(at(seconds)) && state.want.is_none(), "not after {seconds} either");
        }
        follow(&mut state, &account, &CheckEnd::Refused, at(50));
        assert!(!state.is_usable(at(50)));
        assert_eq!(state.next_at, Some(at(50)), "readers wait for the next");
        let mint = Step::Fetch { reason: Reason::Refused, force: false };
        assert_eq!(next_step(&state, &account, true, at(50)), mint);
    }
}

#[test]
fn an_unclear_check_after_a_hint_does_not_make_a_reports_check_the_second_unclear_one() {
    let (account, mut state) = holding(Endpoint::Token);
    let unclear = CheckEnd::Inconclusive(Fault::host("down"));
    follow(&mut state, &account, &unclear, at(10));
    assert_eq!(state.rejections.verdict, None);
    let current = Secret::new("access-token-1");
    let reported = |state: &mut AccountState, now| decide_rejection(state, &account, &current, now);
    assert_eq!(reported(&mut state, at(11)), RequestDecision::Limited);
    assert_eq!(reported(&mut state, at(15)), RequestDecision::Accepted);
    state.end_check(&unclear, &account, at(400));
    assert_eq!((state.want, state.rejections.verdict), (None, Some(Verdict::Inconclusive)));
}

#[test]
fn a_report_does_not_wait_for_a_hint_and_its_check_answers_both() {
    let (account, mut state) = holding(Endpoint::Token);
    state.hint = Some(ASK);
    let current = Secret::new("access-token-1");
    assert_eq!(decide_rejection(&mut state, &account, &current, at(1)), RequestDecision::Accepted);
    state.end_check(&CheckEnd::Honoured, &account, at(2));
    assert_eq!((state.hint, state.want), (None, None));
}

#[test]
fn a_check_after_a_hint_settles_no_doubt() {
    use crate::token::state::Doubt;
    let (account, mut state) = holding(Endpoint::Token);
    let doubt = Some(Doubt { until: at(900), check_at: at(10), checked: false });
    (state.doubt, state.audit_at) = (doubt, Some(at(10)));
    follow(&mut state, &account, &CheckEnd::Honoured, at(11));
    assert_eq!((state.doubt, state.audit_at), (doubt, Some(at(10))), "it may have been sent too early");
}

proptest! {
    /// However many hints there are, and whatever their checks find.
    #[test]
    fn no_24_hours_hold_more_checks_after_hints_than_their_budget(
        budget in 8_u32..60,
        steps in prop::collection::vec((0_u64..3_000_000, 0_u8..3), 1..400),
    ) {
        let (account, mut state) = holding(Endpoint::StableToken);
        let account = account.with(|settings| settings.check_budget = budget);
        let (mut now, mut checks) = (START, Vec::<Moment>::new());
        for (wait_ms, end) in steps {
            now = now + Duration::from_millis(wait_ms);
            state.token = Some(Arc::new(HeldToken::example(&account, now, s(7200))));
            if !is_worth_a_check(&state, &account, ASK, now) {
                continue;
            }
            state.hint = Some(ASK);
            prop_assert!(state.begin_hinted_check(&account, now), "it was worth a check");
            checks.push(now);
            let end = match end {
                0 => CheckEnd::Honoured,
                1 => CheckEnd::Refused,
                _ => CheckEnd::Inconclusive(Fault::host("down")),
            };
            state.end_check(&end, &account, now);
            let in_window = checks.iter().filter(|at| at.elapsed(now) < WINDOW).count();
            prop_assert!(in_window <= budget as usize, "{in_window} of {budget}");
        }
        prop_assert_eq!(state.ledger.remaining(Bucket::Calls, 2000, now), 1000, "no token call was charged");
    }
}
