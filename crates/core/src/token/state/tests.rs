use proptest::prelude::*;

use super::*;
use crate::budget::Bucket;
use crate::fault::{Fault, FaultKind};
use crate::secret::Secret;
use crate::token::schedule::force_allowed_at;

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    START + s(seconds)
}

/// The same instant with the wall clock off by `by_s` seconds.
fn jumped(moment: Moment, by_s: i64) -> Moment {
    Moment { wall_ms: moment.wall_ms + by_s * 1000, ..moment }
}

/// An account whose token came at [`START`], lives 7200 s and is due in mid-window.
fn holding(endpoint: Endpoint) -> AccountState {
    let token = HeldToken::example(&Account::example(endpoint), START, s(7200));
    let next_at = Some(token.refresh_at);
    AccountState { version: 1, token: Some(Arc::new(token)), next_at, ..AccountState::default() }
}

fn expires_in(state: &AccountState, now: Moment) -> Duration {
    state.read(now).expect("a token to read").expires_in()
}

fn last_failure(kind: FaultKind) -> Option<Box<LastFailure>> {
    let fault = Arc::new(Fault { kind, ..Fault::host("down") });
    Some(Box::new(LastFailure {
        fault,
        at: START,
        failures: 3,
        failures_since_recovery: 3,
        retry_at: at(60),
        awaits_host: true,
        parked: None,
    }))
}

#[test]
fn a_token_is_usable_to_its_end_less_the_margin() {
    let state = holding(Endpoint::StableToken);
    assert_eq!(state.usable_for(START), s(7199));
    assert_eq!(state.usable_for(at(7198)), s(1));
    assert!(!state.is_usable(at(7199)) && state.read(at(7199)).is_none());
    assert!(!AccountState::default().is_usable(START) && AccountState::default().read(START).is_none());
}

#[test]
fn either_clock_can_end_a_token() {
    let state = holding(Endpoint::StableToken);
    assert_eq!(state.usable_for(jumped(START, 3600)), s(3599));
    assert_eq!(state.usable_for(jumped(START, 7200)), Duration::ZERO);
    assert_eq!(state.usable_for(jumped(at(7000), -7000)), s(199), "setting it back gives nothing");
}

#[test]
fn a_refused_token_appears_in_no_answer() {
    for validity in [Validity::Refused, Validity::RefusedAgain] {
        let mut state = holding(Endpoint::StableToken);
        Arc::make_mut(state.token.as_mut().unwrap()).validity = validity;
        assert!(!state.is_usable(START) && state.read(START).is_none());
    }
}

#[test]
fn doubt_and_intent_shorten_what_is_left_whichever_is_sooner() {
    let mut state = holding(Endpoint::Token);
    state.doubt = Some(Doubt { until: at(400), check_at: at(406), checked: false });
    assert_eq!(state.usable_for(at(100)), s(299));
    state.intent = Some(Intent { at: at(100), trusted_until: at(300) });
    assert_eq!(state.usable_for(at(100)), s(199));
    state.doubt = None;
    assert_eq!(state.usable_for(at(100)), s(199));
    assert_eq!(state.usable_for(jumped(at(100), 100)), s(99));
}

#[test]
fn on_stable_token_a_reader_is_promised_the_whole_remaining_life() {
    let mut state = holding(Endpoint::StableToken);
    assert_eq!(expires_in(&state, at(10)), s(7189));
    state.next_at = None;
    assert_eq!(expires_in(&state, at(10)), s(7189));
}

#[test]
fn on_token_a_reader_is_promised_the_grace_after_the_next_call() {
    let state = holding(Endpoint::Token);
    assert_eq!(expires_in(&state, at(400)), s(5400 - 400 + 240));
    assert_eq!(expires_in(&state, at(5400)), s(240), "due now");
    assert_eq!(expires_in(&state, at(5500)), s(240), "overdue, as while it waits for its turn");
}

#[test]
fn a_promise_counts_down_while_the_call_is_under_way() {
    let mut state = holding(Endpoint::Token);
    state.intent = Some(Intent { at: at(5400), trusted_until: at(5700) });
    state.activity = Activity::Fetching;
    assert_eq!(expires_in(&state, at(5400)), s(240));
    assert_eq!(expires_in(&state, at(5404)), s(236));
    // The call hangs: the token is still served, but with no promise.
    assert_eq!(expires_in(&state, at(5690)), Duration::ZERO);
}

#[test]
fn a_promise_counts_on_no_wait_for_a_host_or_a_retry() {
    let mut state = holding(Endpoint::Token);
    state.next_at = None;
    assert_eq!(expires_in(&state, at(5500)), s(240), "the host may be back at any time");
    state.next_at = Some(at(6500));
    assert_eq!(expires_in(&state, at(5500)), s(299), "a restart forgets the wait for a retry");
    state.next_at = Some(at(5530));
    assert_eq!(expires_in(&state, at(5500)), s(270));
    state.next_at = Some(at(6500));
    assert_eq!(expires_in(&state, at(5000)), s(640), "what is left until the refresh, and the grace");
}

#[test]
fn a_promise_never_exceeds_what_is_usable() {
    let mut state = holding(Endpoint::Token);
    state.next_at = None;
    assert_eq!(expires_in(&state, at(7100)), s(99));
    state.doubt = Some(Doubt { until: at(500), check_at: at(506), checked: false });
    assert_eq!(expires_in(&state, at(400)), s(99));
}

#[test]
fn a_wall_clock_past_the_next_call_leaves_the_grace() {
    let state = holding(Endpoint::Token);
    assert_eq!(expires_in(&state, jumped(START, 6000)), s(240));
}

#[test]
fn a_copy_is_kept_for_the_grace_at_most() {
    let state = holding(Endpoint::StableToken);
    assert_eq!(state.read(START).unwrap().max_age(), s(240));
    assert_eq!(state.read(at(7100)).unwrap().max_age(), s(99));
}

#[test]
fn the_phase_follows_from_token_trouble_and_activity() {
    use FaultKind::{Parked, Throttled, Transient, UnknownOutcome};
    let table = [
        // usable, fault, busy, attempts ended, phase
        (false, None, false, 0, Phase::Starting),
        (false, None, true, 0, Phase::Starting),
        (false, None, false, 1, Phase::Unavailable),
        (false, Some(Transient), false, 1, Phase::Unavailable),
        (false, Some(Transient), true, 1, Phase::Unavailable),
        (false, Some(Throttled), false, 1, Phase::Unavailable),
        (false, Some(UnknownOutcome), false, 1, Phase::Unavailable),
        (false, Some(Parked), false, 1, Phase::Parked),
        (false, Some(Parked), true, 1, Phase::Parked),
        (true, None, false, 0, Phase::Fresh),
        (true, None, false, 9, Phase::Fresh),
        (true, None, true, 9, Phase::Refreshing),
        (true, Some(Transient), false, 9, Phase::Degraded),
        (true, Some(Throttled), false, 9, Phase::Degraded),
        (true, Some(UnknownOutcome), false, 9, Phase::Degraded),
        (true, Some(Transient), true, 9, Phase::Refreshing),
        (true, Some(Parked), false, 9, Phase::Parked),
        (true, Some(Parked), true, 9, Phase::Parked),
    ];
    for (usable, fault, busy, attempts_ended, phase) in table {
        let state = AccountState {
            last_failure: fault.and_then(last_failure),
            activity: if busy { Activity::Fetching } else { Activity::Idle },
            attempts_ended,
            ..holding(Endpoint::StableToken)
        };
        let now = if usable { START } else { at(7200) };
        assert_eq!(state.phase(now), phase, "{usable} {fault:?} {busy} {attempts_ended}");
    }
}

#[test]
fn every_phase_has_its_name_in_the_api() {
    for phase in Phase::ALL {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
    }
    assert_eq!(
        Phase::ALL.map(Phase::as_str).join(" "),
        "starting fresh refreshing degraded unavailable parked"
    );
}

#[test]
fn only_the_newest_value_is_current() {
    let state = holding(Endpoint::StableToken);
    assert!(state.is_current(&Secret::new("access-token-1")));
    assert!(!state.is_current(&Secret::new("access-token-0")));
    assert!(!AccountState::default().is_current(&Secret::new("")));
}

#[test]
fn a_host_that_is_back_is_asked_at_once_by_those_who_await_it() {
    let mut state =
        AccountState { last_failure: last_failure(FaultKind::Transient), ..holding(Endpoint::Token) };
    state.host_is_back(at(7));
    assert_eq!(state.last_failure.as_deref().unwrap().retry_at, at(7));
    assert_eq!(state.failures(), 3, "the failures are not forgotten");
    state.last_failure =
        last_failure(FaultKind::Throttled).map(|it| Box::new(LastFailure { awaits_host: false, ..*it }));
    state.host_is_back(at(8));
    assert_eq!(state.last_failure.as_deref().unwrap().retry_at, at(60));
}

#[test]
fn a_changed_secret_or_endpoint_is_tried_at_once_and_a_budget_when_it_was_the_trouble() {
    let old = Account::example(Endpoint::StableToken);
    let secret = Account { secret: Secret::new("another"), ..old.clone() };
    let tried = |reason| Some(WantedCall::Fetch(reason));
    for (new, want) in [
        (old.clone(), None),
        (secret, tried(Reason::SecretChanged)),
        (Account::example(Endpoint::Token), tried(Reason::EndpointChanged)),
        (old.clone().with(|settings| settings.daily_budget = 9000), None),
    ] {
        let mut state =
            AccountState { last_failure: last_failure(FaultKind::Parked), ..holding(Endpoint::StableToken) };
        state.reconfigured(&old, &new, at(5));
        assert_eq!(state.want, want);
        assert_eq!(state.last_failure.as_deref().unwrap().retry_at, at(60));
    }
    let starved = LastFailure {
        fault: Arc::new(Fault::budget_exhausted(4, s(9999))),
        ..*last_failure(FaultKind::Throttled).unwrap()
    };
    let mut state = AccountState { last_failure: Some(Box::new(starved)), ..holding(Endpoint::StableToken) };
    state.reconfigured(&old, &old.clone().with(|settings| settings.daily_budget = 9000), at(5));
    assert_eq!(state.last_failure.unwrap().retry_at, at(5));
}

#[test]
fn what_is_persisted_comes_back_and_what_belongs_to_the_process_does_not() {
    let mut state = holding(Endpoint::Token);
    state.doubt = Some(Doubt { until: at(400), check_at: at(406), checked: true });
    state.intent = Some(Intent { at: at(100), trusted_until: at(400) });
    state.forced = vec![at(1), at(2)];
    state.ledger.charge(Bucket::Calls, 2000, START).unwrap();
    (state.last_failure, state.want) = (last_failure(FaultKind::Parked), Some(WantedCall::Check));
    (state.activity, state.attempts_ended) = (Activity::Checking, 7);
    let back: AccountState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!((back.version, &back.token, back.doubt), (state.version, &state.token, state.doubt));
    assert_eq!((back.intent, back.ledger, &back.forced), (state.intent, state.ledger, &state.forced));
    assert_eq!(
        (back.last_failure, back.want, back.serving, back.activity),
        (None, None, None, Activity::Idle)
    );
    assert_eq!((back.attempts_ended, back.next_at), (0, None));
}

/// After a reboot: the boot-time clock starts over.
fn another_boot(seconds: i64) -> Moment {
    Moment { wall_ms: START.wall_ms + seconds * 1000, boot_ms: 40_000 }
}

#[test]
fn another_boot_goes_on_where_the_wall_clock_says() {
    let mut state = holding(Endpoint::Token);
    state.doubt = Some(Doubt { until: at(1000), check_at: at(1006), checked: false });
    state.intent = Some(Intent { at: at(690), trusted_until: at(990) });
    state.forced = vec![at(100), at(200)];
    state.ledger.charge(Bucket::Calls, 4, START).unwrap();
    let now = another_boot(700);
    let state = state.rebased(now);
    let token = state.token.as_ref().unwrap();
    assert_eq!(token.issued_at.elapsed(now), s(700));
    assert_eq!((token.expires_at.until(now), token.refresh_at.until(now)), (s(6500), s(4700)));
    let (doubt, intent) = (state.doubt.unwrap(), state.intent.unwrap());
    assert_eq!((doubt.until.until(now), doubt.check_at.until(now)), (s(300), s(306)));
    assert_eq!((intent.at.elapsed(now), intent.trusted_until.until(now)), (s(10), s(290)));
    assert_eq!(state.usable_for(now), s(289));
    assert_eq!(state.forced.iter().map(|at| at.elapsed(now)).collect::<Vec<_>>(), [s(600), s(500)]);
    assert_eq!(state.ledger.remaining(Bucket::Calls, 4, now), 1);
}

#[test]
fn a_token_from_the_future_is_dropped_its_version_kept() {
    let mut state = holding(Endpoint::StableToken);
    state.forced = vec![at(100)];
    let now = another_boot(-1);
    let state = state.rebased(now);
    assert!(state.token.is_none() && state.version == 1);
    assert_eq!(force_allowed_at(&state.forced, now), now + s(30), "not in a year");
    assert!(holding(Endpoint::StableToken).rebased(another_boot(0)).is_usable(another_boot(0)));
}

proptest! {
    #[test]
    fn no_jump_of_the_wall_clock_prolongs_a_tokens_life(
        now_s in 0_u64..9000,
        jump_s in -100_000_i64..100_000,
        doubt_s in prop::option::of(0_u64..8000),
        intent_s in prop::option::of(0_u64..8000),
        next_s in prop::option::of(0_u64..9000),
        is_token in any::<bool>(),
    ) {
        let endpoint = if is_token { Endpoint::Token } else { Endpoint::StableToken };
        let mut state = holding(endpoint);
        state.doubt = doubt_s.map(|end| Doubt { until: at(end), check_at: at(end), checked: false });
        state.intent = intent_s.map(|end| Intent { at: at(end.min(now_s)), trusted_until: at(end) });
        state.next_at = next_s.map(at);
        let (steady, now) = (state.usable_for(at(now_s)), jumped(at(now_s), jump_s));
        let usable_for = state.usable_for(now);
        prop_assert!(usable_for <= steady);
        let read = state.read(now);
        prop_assert_eq!(read.is_some(), !usable_for.is_zero());
        if let Some(token) = read {
            prop_assert!(token.expires_in() <= usable_for);
            prop_assert!(token.max_age() <= s(240));
            if state.intent.is_none() {
                prop_assert!(token.expires_in() >= usable_for.min(s(240)), "a usable token without a promise");
            }
        }
    }

    #[test]
    fn a_reboot_neither_prolongs_a_life_nor_shortens_it(now_s in 0_u64..9000, boot_ms in 0_i64..1_000_000) {
        let state = holding(Endpoint::StableToken);
        let now = Moment { wall_ms: at(now_s).wall_ms, boot_ms };
        prop_assert_eq!(state.clone().rebased(now).usable_for(now), state.usable_for(at(now_s)));
    }
}

#[test]
fn what_needs_a_person_stays_through_a_failure_that_says_nothing_of_it() {
    let account = Account::example(Endpoint::StableToken);
    let after = |earlier: Option<&LastFailure>, fault: Fault, second: u64| {
        LastFailure::after(earlier, fault, &account, s(7000), &Ledger::default(), at(second), 0.5)
    };
    let not_listed = after(None, Fault::from_errcode(40164, "invalid ip"), 1);
    assert_eq!((not_listed.is_parked(), not_listed.obstacle()), (true, None));
    for (fault, stays) in [
        (Fault::host("down"), true),
        (Fault::unknown_outcome(FaultScope::Host, "timed out"), true),
        (Fault::unknown_outcome(FaultScope::Account, "unreadable"), true),
        (Fault::unreadable("a gateway's page"), true),
        (Fault::budget_exhausted(4, s(60)), true),
        (Fault::internal("a panic"), true),
        (Fault::from_errcode(-1, "system error"), true),
        (Fault::bad_token_for_ticket(40001), true),
        (Fault::from_errcode(45009, "quota"), false),
        (Fault::from_errcode(45011, "too often"), false),
    ] {
        let later = after(Some(&not_listed), fault.clone(), 2);
        assert_eq!(later.is_parked(), stays, "{fault:?}");
        assert_eq!((&*later.fault, later.failures), (&fault, 2), "the call is told as it ended");
        let (cause, obstacle) =
            if stays { ((&*not_listed.fault, at(1)), Some(&fault)) } else { ((&fault, at(2)), None) };
        assert_eq!((later.cause(), later.obstacle()), (cause, obstacle));
        // The same after several of them; another refusal takes its place.
        let latest = after(Some(&later), Fault::host("down"), 3);
        assert_eq!(latest.is_parked(), stays);
        let banned = after(Some(&latest), Fault::from_errcode(48004, "banned"), 4);
        assert_eq!(
            (banned.cause().0.errcode, banned.cause().1, banned.obstacle()),
            (Some(48004), at(4), None)
        );
    }
}

#[test]
fn what_was_said_of_another_secret_or_endpoint_does_not_stay() {
    let old = Account::example(Endpoint::StableToken);
    let after = |state: &AccountState, fault: Fault| {
        LastFailure::after(state.last_failure.as_deref(), fault, &old, s(7000), &state.ledger, at(9), 0.5)
    };
    for (new, stays) in [
        (Account { name: "renamed".to_owned(), ..old.clone() }, true),
        (Account { secret: Secret::new("another"), ..old.clone() }, false),
        (Account::example(Endpoint::Token), false),
    ] {
        let mut state = holding(Endpoint::StableToken);
        state.last_failure = Some(Box::new(after(&state, Fault::from_errcode(40125, "invalid appsecret"))));
        state.reconfigured(&old, &new, at(5));
        assert_eq!(state.phase(at(5)), Phase::Parked, "until the next call");
        state.last_failure = Some(Box::new(after(&state, Fault::host("down"))));
        assert_eq!(state.phase(at(9)) == Phase::Parked, stays);
    }
}

#[test]
fn after_an_outage_the_back_off_starts_over_and_the_count_of_failures_does_not() {
    let account = Account::example(Endpoint::StableToken);
    let fail = |earlier: Option<&LastFailure>| {
        let fault = Fault::host("down");
        LastFailure::after(earlier, fault, &account, Duration::ZERO, &Ledger::default(), START, 1.0)
    };
    let mut last_failure = fail(None);
    for _ in 0..8 {
        last_failure = fail(Some(&last_failure));
    }
    assert_eq!((last_failure.failures, last_failure.retry_at), (9, at(60)));
    last_failure.host_is_back(at(5));
    assert_eq!((last_failure.failures, last_failure.retry_at), (9, at(5)));
    let next = fail(Some(&last_failure));
    assert_eq!((next.failures, next.retry_at), (10, at(4)), "as after a first failure");
}
