//! Properties that hold for an account in any state.

use proptest::prelude::*;

use super::*;
use crate::fault::Fault;
use crate::secret::Secret;
use crate::token::decide::{Step, next_step};
use crate::token::schedule::{Draw, Rules};
use crate::token::transition::{Answer, FetchEnd, Fetched};

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 500_000_000 };

fn at(ms: i64) -> Moment {
    Moment { wall_ms: START.wall_ms + ms, boot_ms: START.boot_ms + ms }
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    prop_oneof![Just(Endpoint::StableToken), Just(Endpoint::Token)]
}

fn any_token(endpoint: Endpoint) -> impl Strategy<Value = HeldToken> {
    // `token` hands out no token twice.
    let again = if endpoint == Endpoint::Token { Validity::Refused } else { Validity::RefusedAgain };
    let validity = prop_oneof![6 => Just(Validity::Good), 1 => Just(Validity::Refused), 1 => Just(again)];
    let lifetime = prop_oneof![Just(7_200_000_u64), 1_u64..20_000, 1_u64..8_000_000];
    (validity, lifetime).prop_map(move |(validity, lifetime_ms)| HeldToken {
        validity,
        ..HeldToken::example(&Account::example(endpoint), START, Duration::from_millis(lifetime_ms))
    })
}

fn any_trouble() -> impl Strategy<Value = LastFailure> {
    let faults = vec![
        Fault::host("x"),
        Fault::unknown_outcome(FaultScope::Account, "x"),
        Fault::from_errcode(-1, ""),
        Fault::from_errcode(45009, ""),
        Fault::from_errcode(40164, ""),
        Fault::budget_exhausted(4, Duration::from_secs(9)),
    ];
    (prop::sample::select(faults), 0_i64..8_000_000, 1_u32..50).prop_map(|(fault, retry_ms, failures)| {
        LastFailure {
            awaits_host: fault.scope == FaultScope::Host,
            parked: None,
            fault: Arc::new(fault),
            at: START,
            failures,
            failures_since_recovery: failures,
            retry_at: at(retry_ms),
        }
    })
}

/// An account's state at some instant, reachable or not, and the account.
fn any_state() -> impl Strategy<Value = (AccountState, Account)> {
    let instant = || -1_000_i64..9_000_000;
    any_endpoint().prop_flat_map(move |endpoint| {
        let busy = [Activity::Queued, Activity::AwaitingSlot, Activity::Fetching, Activity::Checking];
        let activity = prop_oneof![Just(Activity::Idle), prop::sample::select(busy.to_vec())];
        let parts = (
            prop::option::weighted(0.9, any_token(endpoint)),
            prop::option::weighted(0.3, (instant(), instant(), any::<bool>())),
            prop::option::weighted(0.3, (instant(), instant())),
            prop::option::of(any_trouble()),
            activity,
            0_u64..3,
            prop::option::of(instant()),
        );
        parts.prop_map(move |(token, doubt, intent, last_failure, activity, attempts_ended, next_at)| {
            let version = u64::from(token.is_some());
            let doubt = doubt.filter(|_| token.is_some() && endpoint == Endpoint::Token);
            let intent = intent.filter(|_| token.is_some());
            let state = AccountState {
                version,
                token: token.map(Arc::new),
                doubt: doubt.map(|(until, check_at, checked)| Doubt {
                    until: at(until),
                    check_at: at(check_at),
                    checked,
                }),
                intent: intent.map(|(from, until)| Intent { at: at(from), trusted_until: at(until) }),
                last_failure: last_failure.map(Box::new),
                activity,
                attempts_ended,
                next_at: next_at.map(at),
                ..AccountState::default()
            };
            (state, Account::example(endpoint))
        })
    })
}

/// Some instant, on a wall clock that may be wrong.
fn any_now() -> impl Strategy<Value = Moment> {
    let off = prop_oneof![3 => Just(0_i64), 1 => -10_000_000_i64..10_000_000];
    (0_i64..9_000_000, off).prop_map(|(ms, off)| Moment { wall_ms: at(ms).wall_ms + off, ..at(ms) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_an_account_looks_like_agrees_with_what_a_reader_gets(
        (state, _) in any_state(),
        now in any_now(),
    ) {
        let (phase, readable) = (state.phase(now), state.read(now).is_some());
        prop_assert_eq!(readable, state.is_usable(now));
        let parked = state.last_failure.as_deref().is_some_and(|failure| failure.is_parked());
        prop_assert_eq!(phase == Phase::Parked, parked);
        match phase {
            Phase::Fresh => prop_assert!(readable && state.last_failure.is_none() && !state.activity.is_busy()),
            Phase::Refreshing => prop_assert!(readable && state.activity.is_busy()),
            Phase::Degraded => prop_assert!(readable && state.last_failure.is_some() && !state.activity.is_busy()),
            Phase::Starting => prop_assert!(!readable && state.attempts_ended == 0),
            Phase::Unavailable => prop_assert!(!readable),
            Phase::Parked => {}
        }
    }

    #[test]
    fn no_reader_is_promised_more_than_the_token_the_doubt_and_the_call_under_way_allow(
        (state, _) in any_state(),
        now in any_now(),
    ) {
        let Some(token) = state.read(now) else { return Ok(()) };
        let held = state.token.clone().unwrap();
        prop_assert_eq!(held.validity, Validity::Good);
        // By each clock, the margin before each end.
        let margin_ms = held.margin().as_millis() as i64;
        let expires_in_ms = token.expires_in().as_millis() as i64;
        let ends =
            [Some(held.expires_at), state.doubt.map(|it| it.until), state.intent.map(|it| it.trusted_until)];
        for end in ends.into_iter().flatten() {
            prop_assert!(expires_in_ms <= end.boot_ms - now.boot_ms - margin_ms);
            prop_assert!(expires_in_ms <= end.wall_ms - now.wall_ms - margin_ms);
        }
        prop_assert!(token.max_age() <= token.expires_in() && token.max_age() <= held.grace());
        if held.endpoint == Endpoint::Token {
            // The call that is under way, or the next one, ends the token an overlap later.
            let own = state.intent.map(|intent| intent.at).or(state.next_at).map_or(Duration::ZERO, |at| at.until(now));
            prop_assert!(token.expires_in() <= own + held.grace());
        }
    }

    #[test]
    fn time_alone_gives_no_reader_back_what_was_taken_away(
        (state, _) in any_state(),
        now in any_now(),
        later_ms in 0_u64..9_000_000,
    ) {
        let later = now + Duration::from_millis(later_ms);
        prop_assert!(state.usable_for(later) <= state.usable_for(now));
        let passed = state.usable_for(now).saturating_sub(Duration::from_millis(later_ms));
        prop_assert_eq!(state.usable_for(later), passed, "and takes no more than its own time");
    }

    #[test]
    fn the_next_step_is_in_time_for_what_is_served_and_possible_at_all(
        (mut state, account) in any_state(),
        now in any_now(),
        host_up in any::<bool>(),
        hinted in any::<bool>(),
    ) {
        state.hint = hinted.then_some(Hint { source: HintSource::Ask, from: SourceId(1), version: 1 });
        let usable_for = state.usable_for(now);
        let step = next_step(&state, &account, host_up, now);
        match step {
            Step::Wait(at) | Step::FollowHint(at) => {
                prop_assert!(!at.has_come(now), "a wait for what has come");
                prop_assert!(step == Step::Wait(at) || hinted && !usable_for.is_zero());
                let dead = state.token.as_ref().is_some_and(|token| token.validity != Validity::Good);
                if state.last_failure.is_none() && !dead {
                    let check_at = state.doubt.map_or(Duration::ZERO, |doubt| doubt.check_at.until(now));
                    prop_assert!(at.until(now) <= usable_for.max(check_at), "waits beyond the end of service");
                }
            }
            Step::AwaitHost => {
                prop_assert!(!host_up && state.last_failure.as_deref().is_some_and(|failure| failure.awaits_host));
            }
            Step::Check => prop_assert!(state.token.is_some() && state.doubt.is_some() && usable_for.is_zero()),
            Step::Fetch { force, .. } => {
                prop_assert!(!force || account.settings.endpoint == Endpoint::StableToken);
                let retry_at = state.last_failure.as_deref().map(|failure| failure.retry_at);
                prop_assert!(retry_at.is_none_or(|at| at.has_come(now)), "called before its retry is due");
            }
        }
    }

    #[test]
    fn the_end_of_a_call_is_followed_by_a_wait_and_never_brings_a_version_back(
        (mut state, account) in any_state(),
        now in any_now(),
        brings in prop_oneof![Just(None), Just(Some("access-token-1")), Just(Some("access-token-2"))],
        fault in any_trouble(),
        lives_s in prop_oneof![1_u64..5, 1_u64..7200, Just(7200_u64)],
        may_have_minted in any::<bool>(),
        took_ms in 0_u64..5_000,
        jitter in 0.0..1.0,
    ) {
        (state.activity, state.intent) = (Activity::Idle, None);
        let before = state.clone();
        state.begin_fetch(&account, false, now).unwrap();
        let result = match brings {
            Some(value) => Ok(Answer { value: Secret::new(value), expires_in: Duration::from_secs(lives_s) }),
            None => Err(Fault::clone(&fault.fault)),
        };
        let may_have_minted = may_have_minted && result.is_err();
        let ended_at = now + Duration::from_millis(took_ms);
        let end = FetchEnd { force: false, sent_at: Some(now), may_have_minted, result };
        let fetched = state.end_fetch(end, &account, Rules::EXAMPLE, ended_at, Draw::alone(jitter));
        prop_assert_eq!(state.intent, None);
        match fetched {
            Fetched::New => prop_assert!(state.version > before.version),
            Fetched::Same | Fetched::Failed => prop_assert_eq!(state.version, before.version),
        }
        let refused = before.token.as_ref().is_some_and(|token| token.validity != Validity::Good);
        if refused && fetched != Fetched::New {
            prop_assert!(state.read(ended_at).is_none(), "what a check refused is served again");
        }
        if may_have_minted && account.settings.endpoint == Endpoint::Token {
            let trusted = before.token.as_ref().map_or(Duration::ZERO, |token| token.overlap);
            prop_assert!(state.usable_for(now) <= trusted, "trusted beyond the overlap");
        }
        let again = next_step(&state, &account, true, ended_at);
        let forces = matches!(again, Step::Fetch { force: true, .. });
        let checks = again == Step::Check;
        // Only a dead token that came back is followed at once, by force; a check costs no token call.
        let at_once = !matches!(again, Step::Wait(_)) && ended_at.until(now) < account.settings.retry.initial;
        prop_assert!(!at_once || forces && refused || checks, "{again:?} at once");
    }
}
