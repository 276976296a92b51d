use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Moment;
use crate::token::HeldToken;
use crate::token::state::{Doubt, Intent, Rejections};

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const BOTH: [Endpoint; 2] = [Endpoint::StableToken, Endpoint::Token];

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

fn current() -> Secret {
    Secret::new("access-token-1")
}

fn units(state: &AccountState, account: &Account, now: Moment) -> u32 {
    state.ledger.remaining(Bucket::ClientRequests, account.settings.daily_budget, now)
}

#[test]
fn a_rejection_of_another_token_is_superseded_and_costs_nothing() {
    let (account, mut state) = holding(Endpoint::StableToken);
    let old = Secret::new("access-token-0");
    assert_eq!(decide_rejection(&mut state, &account, &old, START), RequestDecision::Superseded);
    assert_eq!((state.want, units(&state, &account, START)), (None, 250));
    let nothing = decide_rejection(&mut AccountState::default(), &account, &old, START);
    assert_eq!(nothing, RequestDecision::Superseded);
}

#[test]
fn a_rejection_of_the_current_token_has_it_checked_for_one_unit() {
    for endpoint in BOTH {
        let (account, mut state) = holding(endpoint);
        assert_eq!(decide_rejection(&mut state, &account, &current(), START), RequestDecision::Accepted);
        assert_eq!((state.want, units(&state, &account, START)), (Some(WantedCall::Check), 249));
        assert_eq!(state.rejections, Rejections::default(), "nothing is decided yet");
        assert!(state.is_usable(START), "and it is served meanwhile");
    }
}

#[test]
fn a_believed_rejection_goes_straight_to_the_replacement() {
    for endpoint in BOTH {
        let (account, mut state) = holding(endpoint);
        let account = account.with(|settings| settings.verify_rejections = false);
        assert_eq!(decide_rejection(&mut state, &account, &current(), START), RequestDecision::Accepted);
        assert_eq!(state.want, Some(WantedCall::Fetch(Reason::Reported)));
        assert_eq!(state.rejections.refused_in_a_row, 1);
    }
}

#[test]
fn a_rejection_of_a_token_that_is_being_checked_or_replaced_waits_for_that() {
    for (want, activity) in [
        (Some(WantedCall::Check), Activity::Idle),
        (Some(WantedCall::Fetch(Reason::Operator)), Activity::Idle),
        (None, Activity::Queued),
        (None, Activity::AwaitingSlot),
        (None, Activity::Checking),
        (None, Activity::Fetching),
    ] {
        let (account, mut state) = holding(Endpoint::StableToken);
        (state.want, state.activity) = (want, activity);
        assert_eq!(
            decide_rejection(&mut state, &account, &current(), START),
            RequestDecision::WaitForCurrent
        );
        assert_eq!((state.want, units(&state, &account, START)), (want, 250));
    }
}

#[test]
fn a_rejection_of_a_dead_token_waits_for_its_replacement_in_spite_of_the_cool_down() {
    for validity in [Validity::Refused, Validity::RefusedAgain] {
        let (account, mut state) = holding(Endpoint::StableToken);
        Arc::make_mut(state.token.as_mut().unwrap()).validity = validity;
        state.rejections.cool_until = Some(at(100));
        assert_eq!(
            decide_rejection(&mut state, &account, &current(), START),
            RequestDecision::WaitForCurrent
        );
    }
    let (account, mut state) = holding(Endpoint::Token);
    assert_eq!(decide_rejection(&mut state, &account, &current(), at(7199)), RequestDecision::WaitForCurrent);
    state.intent = Some(Intent { at: at(1), trusted_until: at(1) });
    assert_eq!(decide_rejection(&mut state, &account, &current(), at(1)), RequestDecision::WaitForCurrent);
}

#[test]
fn during_the_cool_down_the_last_verdict_answers() {
    for (verdict, decision) in [
        (Some(Verdict::Honoured), RequestDecision::StillValid),
        (Some(Verdict::Inconclusive), RequestDecision::Limited),
        (None, RequestDecision::Limited),
    ] {
        let (account, mut state) = holding(Endpoint::StableToken);
        state.rejections = Rejections { cool_until: Some(at(5)), refused_in_a_row: 0, verdict };
        assert_eq!(decide_rejection(&mut state, &account, &current(), at(4)), decision);
        assert_eq!((state.want, units(&state, &account, at(4))), (None, 250));
        assert_eq!(decide_rejection(&mut state, &account, &current(), at(5)), RequestDecision::Accepted);
    }
}

#[test]
fn rejections_end_with_their_bucket_and_leave_the_scheduled_calls_theirs() {
    let (account, mut state) = holding(Endpoint::StableToken);
    let account = account.with(|settings| settings.daily_budget = 8);
    assert_eq!(decide_rejection(&mut state, &account, &current(), START), RequestDecision::Accepted);
    state.want = None;
    assert_eq!(decide_rejection(&mut state, &account, &current(), at(60)), RequestDecision::Limited);
    assert_eq!(decide_refresh(&mut state, &account, false, at(60)), RequestDecision::Limited);
    assert_eq!(state.want, None);
    assert_eq!(state.ledger.remaining(Bucket::Calls, 8, START), 4);
}

#[test]
fn the_cool_down_doubles_with_each_token_refused_up_to_ten_minutes() {
    let account = Account::example(Endpoint::StableToken);
    let mut rejections = Rejections::default();
    let mut cooldowns = Vec::new();
    for _ in 0..9 {
        rejections = rejections.refused().replaced(&account, START);
        assert_eq!(rejections.verdict, None);
        cooldowns.push(rejections.cool_until.unwrap().until(START).as_secs());
    }
    assert_eq!(cooldowns, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    let ages = Rejections { refused_in_a_row: u32::MAX, ..rejections }.refused().replaced(&account, START);
    assert_eq!(ages.cool_until, Some(at(600)));
}

#[test]
fn a_cool_down_configured_longer_than_ten_minutes_stays_as_it_is() {
    let account =
        Account::example(Endpoint::StableToken).with(|settings| settings.rejection_cooldown = s(3600));
    let thrice = Rejections { refused_in_a_row: 3, ..Rejections::default() };
    assert_eq!(thrice.replaced(&account, START).cool_until, Some(at(3600)));
}

#[test]
fn a_token_that_is_honoured_ends_the_doubling_and_one_that_may_be_dead_does_not() {
    let account = Account::example(Endpoint::StableToken);
    let thrice = Rejections { refused_in_a_row: 3, ..Rejections::default() };
    let honoured = thrice.checked(Verdict::Honoured, &account, START);
    assert_eq!((honoured.refused_in_a_row, honoured.cool_until), (0, Some(at(5))));
    let unsure = thrice.checked(Verdict::Inconclusive, &account, START);
    assert_eq!((unsure.refused_in_a_row, unsure.verdict), (3, Some(Verdict::Inconclusive)));
}

#[test]
fn an_operators_refresh_draws_one_unit_and_is_put_on_the_list() {
    let (account, mut state) = holding(Endpoint::StableToken);
    assert_eq!(decide_refresh(&mut state, &account, false, at(1)), RequestDecision::Accepted);
    assert_eq!(state.want, Some(WantedCall::Fetch(Reason::Operator)));
    state.want = None;
    assert_eq!(decide_refresh(&mut state, &account, true, at(1)), RequestDecision::Accepted);
    assert_eq!(state.want, Some(WantedCall::Force(Reason::Operator)));
    assert_eq!(units(&state, &account, at(1)), 248);
}

#[test]
fn a_refresh_joins_the_call_that_is_under_way_or_on_the_list() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.activity = Activity::Fetching;
    assert_eq!(decide_refresh(&mut state, &account, false, START), RequestDecision::WaitForCurrent);
    state.serving = Some(WantedCall::Force(Reason::Operator));
    assert_eq!(decide_refresh(&mut state, &account, true, START), RequestDecision::WaitForCurrent);
    state.serving = None;
    state.activity = Activity::Queued;
    state.want = Some(WantedCall::Fetch(Reason::Reported));
    assert_eq!(decide_refresh(&mut state, &account, false, START), RequestDecision::WaitForCurrent);
    assert_eq!(state.want, Some(WantedCall::Fetch(Reason::Reported)), "a replacement stays one");
    assert_eq!(decide_refresh(&mut state, &account, true, START), RequestDecision::Accepted);
    assert_eq!(decide_refresh(&mut state, &account, false, START), RequestDecision::WaitForCurrent);
    assert_eq!(state.want, Some(WantedCall::Force(Reason::Operator)), "a forced one stays one");
    assert_eq!(units(&state, &account, START), 249);
}

#[test]
fn a_wish_to_force_follows_a_normal_call_that_is_under_way() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.activity = Activity::Fetching;
    assert_eq!(decide_refresh(&mut state, &account, true, START), RequestDecision::Accepted);
    assert_eq!(state.want, Some(WantedCall::Force(Reason::Operator)));
}

#[test]
fn a_refresh_takes_the_place_of_a_check() {
    let (account, mut state) = holding(Endpoint::StableToken);
    (state.want, state.activity) = (Some(WantedCall::Check), Activity::Checking);
    assert_eq!(decide_refresh(&mut state, &account, false, START), RequestDecision::Accepted);
    assert_eq!(state.want, Some(WantedCall::Fetch(Reason::Operator)));
}

#[test]
fn a_forced_refresh_keeps_wechats_spacing() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.forced = vec![START];
    assert_eq!(decide_refresh(&mut state, &account, true, at(29)), RequestDecision::Limited);
    assert_eq!(units(&state, &account, at(29)), 250);
    assert_eq!(decide_refresh(&mut state, &account, true, at(30)), RequestDecision::Accepted);
}

#[test]
fn on_token_force_means_nothing_and_mints_stay_an_overlap_apart() {
    let (account, mut state) = holding(Endpoint::Token);
    for force in [false, true] {
        assert_eq!(decide_refresh(&mut state, &account, force, at(299)), RequestDecision::Limited);
        assert_eq!(decide_refresh(&mut state, &account, force, at(300)), RequestDecision::Accepted);
        assert_eq!(state.want.take(), Some(WantedCall::Fetch(Reason::Operator)));
    }
    state.doubt = Some(Doubt { until: at(1300), check_at: at(1306), checked: false });
    assert_eq!(decide_refresh(&mut state, &account, false, at(1298)), RequestDecision::Limited);
    assert_eq!(
        decide_refresh(&mut state, &account, false, at(1299)),
        RequestDecision::Accepted,
        "served to nobody"
    );
}

#[test]
fn on_token_a_refresh_needs_no_spacing_from_what_is_dead() {
    let (account, mut state) = holding(Endpoint::Token);
    Arc::make_mut(state.token.as_mut().unwrap()).validity = Validity::Refused;
    assert_eq!(decide_refresh(&mut state, &account, false, at(1)), RequestDecision::Accepted);
    let mut empty = AccountState::default();
    assert_eq!(decide_refresh(&mut empty, &account, false, at(1)), RequestDecision::Accepted);
}
