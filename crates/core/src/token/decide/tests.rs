use std::sync::Arc;

use super::*;
use crate::budget::Bucket;
use crate::fault::Fault;
use crate::last_failure::LastFailure;
use crate::token::schedule::FORCED_A_DAY;
use crate::token::state::Doubt;

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const FORCE_AGAIN: Step = Step::Fetch { reason: Reason::RefusedAgain, force: true };

fn fetch(reason: Reason) -> Step {
    Step::Fetch { reason, force: false }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    START + s(seconds)
}

/// An account whose token came at [`START`] and lives 7200 s: on `token` it is due at 5400 s, on
/// `stable_token` at 6955.5 s.
fn holding(endpoint: Endpoint) -> (Account, AccountState) {
    let account = Account::example(endpoint);
    let token = Some(Arc::new(HeldToken::example(&account, START, s(7200))));
    (account, AccountState { version: 1, token, ..AccountState::default() })
}

fn edit(state: &mut AccountState, change: impl FnOnce(&mut HeldToken)) {
    change(Arc::make_mut(state.token.as_mut().unwrap()));
}

fn last_failure(retry_at: Moment, awaits_host: bool) -> Option<Box<LastFailure>> {
    let fault = Arc::new(Fault::host("down"));
    let (at, failures) = (START, 1);
    Some(Box::new(LastFailure {
        fault,
        at,
        failures,
        failures_since_recovery: 1,
        retry_at,
        awaits_host,
        parked: None,
    }))
}

fn doubt(until: u64, check_at: u64, checked: bool) -> Option<Doubt> {
    Some(Doubt { until: at(until), check_at: at(check_at), checked })
}

#[test]
fn without_a_token_one_is_fetched_at_once() {
    let account = Account::example(Endpoint::Token);
    assert_eq!(next_step(&AccountState::default(), &account, true, START), fetch(Reason::NoToken));
}

#[test]
fn without_a_token_a_failure_is_waited_out() {
    let account = Account::example(Endpoint::Token);
    let state = AccountState { last_failure: last_failure(at(30), false), ..AccountState::default() };
    assert_eq!(next_step(&state, &account, true, at(29)), Step::Wait(at(30)));
    assert_eq!(next_step(&state, &account, true, at(30)), fetch(Reason::Retry));
}

#[test]
fn a_good_token_is_left_alone_until_its_refresh_instant() {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        let (account, state) = holding(endpoint);
        let due = state.token.as_ref().unwrap().refresh_at;
        assert_eq!(next_step(&state, &account, true, START), Step::Wait(due));
        assert_eq!(next_step(&state, &account, true, due - Duration::from_millis(1)), Step::Wait(due));
        assert_eq!(next_step(&state, &account, true, due), fetch(Reason::Due));
    }
}

#[test]
fn a_refresh_comes_no_later_than_the_last_usable_instant() {
    let (account, mut state) = holding(Endpoint::Token);
    edit(&mut state, |token| token.refresh_at = token.expires_at);
    assert_eq!(next_step(&state, &account, true, START), Step::Wait(at(7199)));
    assert_eq!(next_step(&state, &account, true, at(7199)), fetch(Reason::NoToken));
}

#[test]
fn the_wall_clock_can_bring_a_refresh_forward_but_not_put_it_off() {
    let (account, state) = holding(Endpoint::Token);
    let jumped = |by_s: i64| Moment { wall_ms: at(100).wall_ms + by_s * 1000, ..at(100) };
    assert_eq!(next_step(&state, &account, true, jumped(5300)), fetch(Reason::Due));
    let Step::Wait(due) = next_step(&state, &account, true, jumped(-3600)) else { panic!("no wait") };
    assert_eq!(due.boot_ms, at(5400).boot_ms);
}

#[test]
fn a_token_of_the_other_endpoint_is_replaced_at_once() {
    for (held, configured) in
        [(Endpoint::StableToken, Endpoint::Token), (Endpoint::Token, Endpoint::StableToken)]
    {
        let (_, mut state) = holding(held);
        let account = Account::example(configured);
        assert_eq!(next_step(&state, &account, true, at(1)), fetch(Reason::EndpointChanged));
        state.last_failure = last_failure(at(60), false);
        assert_eq!(next_step(&state, &account, true, at(1)), Step::Wait(at(60)));
    }
}

#[test]
fn a_failed_refresh_is_tried_again_when_its_back_off_ends_even_past_the_end() {
    let (account, mut state) = holding(Endpoint::Token);
    state.last_failure = last_failure(at(5460), false);
    assert_eq!(next_step(&state, &account, true, at(5401)), Step::Wait(at(5460)));
    assert_eq!(next_step(&state, &account, true, at(5460)), fetch(Reason::Retry));
    state.last_failure = last_failure(at(9000), false);
    assert_eq!(next_step(&state, &account, true, at(7300)), Step::Wait(at(9000)));
}

#[test]
fn an_early_failure_does_not_bring_the_refresh_forward() {
    let (account, mut state) = holding(Endpoint::Token);
    state.last_failure = last_failure(at(60), false);
    assert_eq!(next_step(&state, &account, true, at(61)), Step::Wait(at(5400)));
}

#[test]
fn an_account_that_awaits_a_host_does_nothing_until_it_is_back() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.last_failure = last_failure(at(7000), true);
    assert_eq!(next_step(&state, &account, false, at(7100)), Step::AwaitHost);
    assert_eq!(next_step(&state, &account, false, at(99_000)), Step::AwaitHost, "not even when it has ended");
    assert_eq!(next_step(&state, &account, true, at(6990)), Step::Wait(at(7000)));
    state.host_is_back(at(6990));
    assert_eq!(next_step(&state, &account, true, at(6990)), fetch(Reason::Retry));
}

#[test]
fn an_account_whose_own_trouble_it_is_does_not_await_the_host() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.last_failure = last_failure(at(7000), false);
    assert_eq!(next_step(&state, &account, false, at(6990)), Step::Wait(at(7000)));
    state.host_is_back(at(6990));
    assert_eq!(next_step(&state, &account, true, at(6990)), Step::Wait(at(7000)));
}

#[test]
fn what_is_asked_for_comes_before_back_off_host_and_schedule() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.last_failure = last_failure(at(7000), true);
    for reason in Reason::ALL {
        for (want, step) in [
            (WantedCall::Check, Step::Check),
            (WantedCall::Fetch(reason), fetch(reason)),
            (WantedCall::Force(reason), Step::Fetch { reason, force: true }),
        ] {
            state.want = Some(want);
            assert_eq!(next_step(&state, &account, false, at(1)), step);
        }
    }
}

#[test]
fn a_token_that_ended_before_its_check_is_not_checked_any_more() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.want = Some(WantedCall::Check);
    assert_eq!(next_step(&state, &account, true, at(7198)), Step::Check);
    assert_eq!(next_step(&state, &account, true, at(7199)), fetch(Reason::NoToken));
    state.last_failure = last_failure(at(7300), false);
    assert_eq!(next_step(&state, &account, true, at(7199)), Step::Wait(at(7300)));
}

#[test]
fn a_refused_token_is_replaced_at_once_in_normal_mode() {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        let (account, mut state) = holding(endpoint);
        edit(&mut state, |token| token.validity = Validity::Refused);
        assert_eq!(next_step(&state, &account, true, at(1)), fetch(Reason::Refused));
        state.last_failure = last_failure(at(10), false);
        assert_eq!(next_step(&state, &account, true, at(1)), Step::Wait(at(10)));
    }
}

#[test]
fn a_token_refused_again_is_forced_away_as_soon_as_wechat_would_obey() {
    let (account, mut state) = holding(Endpoint::StableToken);
    edit(&mut state, |token| token.validity = Validity::RefusedAgain);
    assert_eq!(next_step(&state, &account, true, at(100)), FORCE_AGAIN);
    state.forced = vec![at(90)];
    assert_eq!(next_step(&state, &account, true, at(100)), Step::Wait(at(120)));
    assert_eq!(next_step(&state, &account, true, at(120)), FORCE_AGAIN);
}

#[test]
fn that_a_token_was_refused_again_says_more_than_that_a_call_failed() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.last_failure = last_failure(at(100), false);
    for (validity, reason, force) in
        [(Validity::Refused, Reason::Retry, false), (Validity::RefusedAgain, Reason::RefusedAgain, true)]
    {
        edit(&mut state, |token| token.validity = validity);
        assert_eq!(next_step(&state, &account, true, at(100)), Step::Fetch { reason, force });
    }
}

#[test]
fn a_token_refused_again_waits_for_its_window_where_forcing_comes_later() {
    let (account, mut state) = holding(Endpoint::StableToken);
    edit(&mut state, |token| token.validity = Validity::RefusedAgain);
    let window = state.token.as_ref().unwrap().refresh_at;
    state.forced = vec![START; FORCED_A_DAY];
    assert_eq!(next_step(&state, &account, true, at(100)), Step::Wait(window));
    assert_eq!(next_step(&state, &account, true, window), fetch(Reason::RefusedAgain));
    state.forced.clear();
    assert_eq!(next_step(&state, &account, true, window), FORCE_AGAIN, "at a tie what is sure to help");
}

#[test]
fn a_token_in_doubt_is_served_to_the_end_of_its_trust_before_anything_is_done() {
    let (account, mut state) = holding(Endpoint::Token);
    state.doubt = doubt(5700, 5706, false);
    assert_eq!(next_step(&state, &account, true, at(5410)), Step::Wait(at(5699)));
    state.last_failure = last_failure(at(5420), false);
    assert_eq!(next_step(&state, &account, true, at(5430)), Step::Wait(at(5699)), "no retry before that");
}

#[test]
fn a_token_in_doubt_is_checked_once_a_mint_would_have_shown() {
    let (account, mut state) = holding(Endpoint::Token);
    state.doubt = doubt(2700, 2736, false);
    assert_eq!(next_step(&state, &account, true, at(2699)), Step::Wait(at(2736)));
    assert_eq!(next_step(&state, &account, true, at(2736)), Step::Check);
    state.last_failure = last_failure(at(6000), false);
    assert_eq!(next_step(&state, &account, true, at(2736)), Step::Check, "a check is no token call");
    state.last_failure = last_failure(at(6000), true);
    assert_eq!(next_step(&state, &account, false, at(2736)), Step::AwaitHost);
}

#[test]
fn nobody_waits_for_the_check_of_a_token_whose_successor_is_due_or_that_came_after_the_lost_call() {
    let (account, state) = holding(Endpoint::Token);
    for (until, check_at) in [(5700, 5736), (300, 336)] {
        let mut state = AccountState { doubt: doubt(until, check_at, false), ..state.clone() };
        assert_eq!(next_step(&state, &account, true, at(until - 1)), fetch(Reason::InDoubt));
        // A check is better than nothing.
        state.last_failure = last_failure(at(check_at + 1), false);
        assert_eq!(next_step(&state, &account, true, at(until - 1)), Step::Wait(at(check_at)));
        assert_eq!(next_step(&state, &account, true, at(check_at)), Step::Check);
        state.last_failure = last_failure(at(check_at - 1), false);
        assert_eq!(next_step(&state, &account, true, at(until - 1)), Step::Wait(at(check_at - 1)));
    }
}

#[test]
fn an_audit_is_made_of_what_is_served_and_gives_way_to_what_is_due() {
    let (account, mut state) = holding(Endpoint::Token);
    state.audit_at = Some(at(2000));
    assert_eq!(next_step(&state, &account, true, at(1999)), Step::Wait(at(5400)));
    assert_eq!(next_step(&state, &account, true, at(2000)), Step::Check);
    assert_eq!(next_step(&state, &account, true, at(5400)), fetch(Reason::Due));
    state.last_failure = last_failure(at(5500), true);
    assert_eq!(next_step(&state, &account, false, at(5450)), Step::AwaitHost);
    edit(&mut state, |token| token.validity = Validity::Refused);
    state.last_failure = last_failure(at(5500), false);
    assert_eq!(
        next_step(&state, &account, true, at(5450)),
        Step::Wait(at(5500)),
        "there is nothing to audit"
    );
}

#[test]
fn what_parked_an_account_is_looked_at_again_before_its_token_needs_it() {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        let (account, mut state) = holding(endpoint);
        let parked = |retry_at| {
            let fault = Arc::new(Fault::from_errcode(40164, ""));
            last_failure(retry_at, false).map(|failure| Box::new(LastFailure { fault, ..*failure }))
        };
        state.last_failure = parked(at(900));
        assert_eq!(next_step(&state, &account, true, at(600)), Step::Wait(at(900)));
        assert_eq!(next_step(&state, &account, true, at(900)), fetch(Reason::Retry));
        // Two mints on `token` stay an overlap apart.
        state.last_failure = parked(at(100));
        let apart = if endpoint == Endpoint::Token { at(300) } else { at(100) };
        assert_eq!(next_step(&state, &account, true, at(50)), Step::Wait(apart));
        state.doubt = doubt(7198, 7230, false);
        assert_eq!(
            next_step(&state, &account, true, at(1000)),
            Step::Wait(at(7197)),
            "nothing is added to a doubt"
        );
    }
}

#[test]
fn while_all_hosts_count_as_down_an_account_that_risks_nothing_makes_a_trial() {
    let (account, mut state) = holding(Endpoint::StableToken);
    assert_eq!(trial_urgency(&state, &account, at(100)), None, "it needs no call");
    state.last_failure = last_failure(at(7000), true);
    assert_eq!(trial_urgency(&state, &account, at(6990)), None, "it has called a moment ago");
    assert_eq!(trial_urgency(&state, &account, at(7000)), Some(s(199)));
    for _ in 0..budget::burst(account.settings.daily_budget) * 3 / 4 {
        state.ledger.charge(Bucket::Calls, account.settings.daily_budget, at(7000)).unwrap();
    }
    assert_eq!(trial_urgency(&state, &account, at(7000)), None, "one must be left for when they are back");
    let small = account.with(|settings| settings.daily_budget = 4);
    let hungry = AccountState { last_failure: last_failure(at(7000), true), ..AccountState::default() };
    assert_eq!(trial_urgency(&hungry, &small, at(7000)), None);
    let (account, mut state) = holding(Endpoint::StableToken);
    state.last_failure = last_failure(at(7000), true);
    state.ignores_down_hosts = true;
    assert_eq!(trial_urgency(&state, &account, at(7000)), None, "it is about to");
    let (account, mut state) = holding(Endpoint::Token);
    state.last_failure = last_failure(at(5400), true);
    assert_eq!(
        trial_urgency(&state, &account, at(6000)),
        None,
        "a lost call would put a living token in doubt"
    );
    assert_eq!(trial_urgency(&state, &account, at(6900)), Some(s(299)), "for no longer than it lives anyway");
    assert_eq!(trial_urgency(&AccountState::default(), &account, at(0)), Some(Duration::ZERO));
    // A token that is not served until a check settles its doubt.
    let (account, mut state) = holding(Endpoint::Token);
    (state.doubt, state.last_failure) = (doubt(2700, 2736, false), last_failure(at(2600), true));
    assert_eq!(trial_urgency(&state, &account, at(2736)), Some(Duration::ZERO));
    state.ignores_down_hosts = true;
    assert_eq!(next_step(&state, &account, false, at(2736)), Step::Check);
}

#[test]
fn an_inconclusive_check_is_followed_by_a_mint() {
    let (account, mut state) = holding(Endpoint::Token);
    state.doubt = doubt(5700, 5706, true);
    assert_eq!(next_step(&state, &account, true, at(5699)), fetch(Reason::InDoubt));
    state.last_failure = last_failure(at(5720), false);
    assert_eq!(next_step(&state, &account, true, at(5706)), Step::Wait(at(5720)));
}

#[test]
fn a_doubted_token_that_ends_before_a_conclusive_check_is_replaced_at_once() {
    let (account, mut state) = holding(Endpoint::Token);
    state.doubt = doubt(7198, 7204, false);
    assert_eq!(next_step(&state, &account, true, at(7197)), fetch(Reason::InDoubt));
}

#[test]
fn on_stable_token_a_lost_forced_call_is_followed_by_a_normal_one() {
    let (account, mut state) = holding(Endpoint::StableToken);
    state.doubt = doubt(100, 406, false);
    assert_eq!(next_step(&state, &account, true, at(101)), fetch(Reason::InDoubt));
}
