//! Properties of refresh instants and waits, for any account, lifetime, fault and jitter.

use proptest::prelude::*;

use super::*;
use crate::account::Retry;
use crate::fault::FaultScope;
use crate::token::decide::{Step, next_step};
use crate::token::margin;
use crate::token::state::AccountState;
use crate::token::transition::FetchEnd;

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
/// The precision that a [`Moment`] cuts off.
const MS: Duration = Duration::from_millis(1);

fn any_account() -> impl Strategy<Value = Account> {
    let ahead = prop_oneof![
        (0.001..=0.5).prop_map(RefreshAhead::Share),
        (1_u64..100_000_000).prop_map(|ms| RefreshAhead::Fixed(Duration::from_millis(ms))),
    ];
    let endpoint = prop_oneof![Just(Endpoint::StableToken), Just(Endpoint::Token)];
    let budget = prop_oneof![4_u32..40, 4_u32..5000];
    // The file does not allow `initial` above `max`.
    (endpoint, ahead, 1_u64..120_000, 0_u64..120_000, budget).prop_map(
        |(endpoint, refresh_ahead, initial, more, daily_budget)| {
            Account::example(endpoint).with(|settings| {
                settings.refresh_ahead = refresh_ahead;
                settings.daily_budget = daily_budget;
                settings.retry = Retry {
                    initial: Duration::from_millis(initial),
                    max: Duration::from_millis(initial + more),
                };
            })
        },
    )
}

fn any_lifetime() -> impl Strategy<Value = Duration> {
    prop_oneof![0_u64..10_000, 0_u64..8_000_000, 0_u64..100_000_000_000].prop_map(Duration::from_millis)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![Just(300_000_u64), 1_u64..2_000, 1_u64..4_000_000]
        .prop_map(|ms| Rules { overlap: Duration::from_millis(ms), ..Rules::EXAMPLE })
}

/// How long before expiry the successor is fetched, at the latest and at the earliest.
fn window(account: &Account, lifetime: Duration, overlap: Duration) -> (Duration, Duration) {
    match account.settings.endpoint {
        Endpoint::Token => {
            let ahead = match account.settings.refresh_ahead {
                RefreshAhead::Share(share) => lifetime.mul_f64(share),
                RefreshAhead::Fixed(time) => time.min(lifetime / 2),
            };
            (ahead * 2 / 3, ahead * 4 / 3)
        }
        Endpoint::StableToken => (overlap.mul_f64(0.65), overlap.mul_f64(0.98)),
    }
}

/// Faults of every kind, with every kind of wait.
fn any_fault() -> impl Strategy<Value = Fault> {
    let codes = [
        -1, 45011, 45009, 40001, 40125, 40013, 40002, 47001, 40164, 40243, 48001, 50002, 61024, 89501, 89507,
        89506, 99_999, 12_345,
    ];
    prop_oneof![
        prop::sample::select(codes.to_vec()).prop_map(|code| Fault::from_errcode(code, "")),
        prop::sample::select(vec![
            Fault::host("x"),
            Fault::unknown_outcome(FaultScope::Host, "x"),
            Fault::unknown_outcome(FaultScope::Account, "x"),
            Fault::unreadable("x"),
            Fault::precondition_failed(),
            Fault::internal("x"),
            Fault::host("x").not_before(Some(Duration::from_secs(45))),
            Fault::unreadable("x").not_before(Some(Duration::from_secs(600))),
        ]),
    ]
}

/// The shortest and the longest wait in the fault table, before anything lengthens or shortens it.
fn wait_bounds(fault: &Fault, account: &Account) -> (Duration, Duration) {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let exactly = |time| (time, time);
    if let Wait::NotBefore(pause) = fault.wait {
        return (pause, pause.max(account.settings.retry.max) + account.settings.retry.initial);
    }
    match fault.errcode {
        Some(45011) => exactly(minutes(1)),
        Some(45009 | 89507) => exactly(minutes(60)),
        Some(89506) => exactly(minutes(24 * 60)),
        Some(99_999 | 12_345) => {
            (account.settings.retry.initial, minutes(10).max(account.settings.retry.initial))
        }
        Some(-1) => (account.settings.retry.initial, account.settings.retry.max),
        // Sooner as a live token nears its end.
        Some(_) => (account.settings.retry.initial.min(minutes(5)), minutes(5)),
        None if fault.kind == FaultKind::Parked => {
            (account.settings.retry.initial.min(minutes(5)), minutes(5))
        }
        None => (account.settings.retry.initial, account.settings.retry.max),
    }
}

/// A ledger with `spent` units of the burst gone.
fn ledger(account: &Account, spent: u32) -> Ledger {
    let mut ledger = Ledger::default();
    for _ in 0..spent.min(budget::burst(account.settings.daily_budget)) {
        ledger.charge(Bucket::Calls, account.settings.daily_budget, START).unwrap();
    }
    ledger
}

proptest! {
    #[test]
    fn a_refresh_lies_within_its_window_unless_that_lies_behind_or_too_near(
        account in any_account(),
        lifetime in any_lifetime(),
        rules in any_rules(),
        jitter in 0.0..1.0,
    ) {
        let overlap = overlap_of(lifetime, rules);
        let ahead = (START + lifetime).until(refresh_at(&account, START, lifetime, overlap, false, jitter));
        let (latest, earliest) = window(&account, lifetime, overlap);
        // Neither immediate nor past expiry.
        let longest = lifetime.saturating_sub(account.settings.retry.initial);
        prop_assert!(ahead + 2 * MS >= latest.min(longest), "{ahead:?} ahead, {latest:?} at the latest");
        prop_assert!(ahead <= earliest.min(longest) + 2 * MS, "{ahead:?} ahead, {earliest:?} at the earliest");
    }

    #[test]
    fn a_refresh_is_neither_past_expiry_nor_sooner_than_the_shortest_retry(
        account in any_account(),
        lifetime in any_lifetime(),
        rules in any_rules(),
        in_herd in any::<bool>(),
        jitter in 0.0..1.0,
    ) {
        let overlap = overlap_of(lifetime, rules);
        let drawn = refresh_at(&account, START, lifetime, overlap, in_herd, jitter);
        let expires_at = START + lifetime;
        prop_assert!(drawn.boot_ms <= expires_at.boot_ms);
        prop_assert!(drawn.boot_ms >= (START + account.settings.retry.initial).min(expires_at).boot_ms);
        // The same draw on both clocks.
        prop_assert_eq!(drawn.wall_ms - START.wall_ms, drawn.boot_ms - START.boot_ms);
        // Two scheduled mints are further apart than the first one's overlap.
        prop_assert!(drawn.until(START) + MS >= overlap);
        if account.settings.endpoint == Endpoint::StableToken {
            prop_assert!(drawn.boot_ms >= (expires_at - overlap).boot_ms, "asked before the window opens");
        }
    }

    #[test]
    fn at_wechats_numbers_a_refresh_on_token_leaves_at_least_twenty_minutes(
        jitter in 0.0..1.0,
        sent_ms in 0_i64..100_000_000_000,
    ) {
        let account = Account::example(Endpoint::Token);
        let sent_at = Moment { wall_ms: START.wall_ms + sent_ms, boot_ms: sent_ms };
        let (lifetime, overlap) = (Duration::from_secs(7200), Duration::from_secs(300));
        let ahead = (sent_at + lifetime).until(refresh_at(&account, sent_at, lifetime, overlap, false, jitter));
        prop_assert!((20 * 60..=40 * 60).contains(&ahead.as_secs()), "{ahead:?}");
    }

    #[test]
    fn a_refresh_comes_before_the_token_is_taken_out_of_service_where_it_can(
        account in any_account(),
        lifetime in any_lifetime(),
        rules in any_rules(),
        in_herd in any::<bool>(),
        jitter in 0.0..1.0,
    ) {
        let overlap = overlap_of(lifetime, rules);
        let ahead = (START + lifetime).until(refresh_at(&account, START, lifetime, overlap, in_herd, jitter));
        let (latest, _) = window(&account, lifetime, overlap);
        let margin = margin(overlap);
        let asked_for_that_late = latest < margin;
        let no_time = lifetime < account.settings.retry.initial + margin;
        prop_assert!(ahead + 2 * MS >= margin || asked_for_that_late || no_time, "{ahead:?} before the end");
    }

    #[test]
    fn a_higher_jitter_moves_a_refresh_one_way_only(
        account in any_account(),
        lifetime in any_lifetime(),
        rules in any_rules(),
        in_herd in any::<bool>(),
        jitters in (0.0..1.0, 0.0..1.0),
    ) {
        let overlap = overlap_of(lifetime, rules);
        let (low, high) = (f64::min(jitters.0, jitters.1), f64::max(jitters.0, jitters.1));
        let drawn = |jitter| refresh_at(&account, START, lifetime, overlap, in_herd, jitter).boot_ms;
        match account.settings.endpoint {
            Endpoint::Token => prop_assert!(drawn(high) <= drawn(low)),
            Endpoint::StableToken => prop_assert!(drawn(high) >= drawn(low)),
        }
    }

    #[test]
    fn with_budget_left_every_fault_is_waited_out_as_its_table_says(
        account in any_account(),
        fault in any_fault(),
        failures in 1_u32..100,
        usable_ms in prop_oneof![Just(0_u64), 0_u64..8_000_000],
        jitter in 0.0..1.0,
    ) {
        let usable_for = Duration::from_millis(usable_ms);
        let wait = wait_after(&fault, failures, &account, usable_for, &Ledger::default(), START, jitter);
        let (least, most) = wait_bounds(&fault, &account);
        prop_assert!(wait >= least && wait <= most, "{wait:?}, not {least:?} to {most:?}: {fault:?}");
        prop_assert!(wait > Duration::ZERO, "a loop without delay");
        if usable_ms > 0 && matches!(fault.wait, Wait::BackOff | Wait::Every(_) | Wait::UpTo(_)) {
            // Several tries fit into what is left of the token.
            prop_assert!(wait <= (usable_for / 4).max(account.settings.retry.initial));
        }
        if fault.wait == Wait::BackOff || matches!(fault.wait, Wait::UpTo(_)) {
            let ceiling = account.settings.retry.initial.saturating_mul(2_u32.saturating_pow(failures));
            prop_assert!(wait <= ceiling.max(account.settings.retry.initial), "{wait:?} after {failures} failures");
        }
    }

    #[test]
    fn where_the_budget_is_scarce_no_wait_but_a_quotas_is_shorter_than_one_call_takes_to_come_back(
        account in any_account(),
        fault in any_fault(),
        failures in 1_u32..100,
        usable_ms in 0_u64..8_000_000,
        spent in 0_u32..2500,
        jitter in 0.0..1.0,
    ) {
        let usable_for = Duration::from_millis(usable_ms);
        let ledger = ledger(&account, spent);
        let wait = wait_after(&fault, failures, &account, usable_for, &ledger, START, jitter);
        let rich = wait_after(&fault, failures, &account, usable_for, &Ledger::default(), START, jitter);
        let remaining = ledger.remaining(Bucket::Calls, account.settings.daily_budget, START);
        let scarce = 4 * remaining < budget::burst(account.settings.daily_budget);
        let interval = budget::interval(account.settings.daily_budget);
        let expected = if scarce && fault.kind != FaultKind::Throttled { rich.max(interval) } else { rich };
        prop_assert_eq!(wait, expected);
    }

    #[test]
    fn more_failures_never_shorten_a_wait(
        account in any_account(),
        fault in any_fault(),
        failures in 1_u32..60,
        jitter in 0.0..1.0,
    ) {
        let wait = |failures| {
            wait_after(&fault, failures, &account, Duration::ZERO, &Ledger::default(), START, jitter)
        };
        prop_assert!(wait(failures) <= wait(failures + 1));
    }
}

/// The calls of an account for which everything fails for `hours`, in milliseconds, by the decisions alone.
fn calls_in_an_outage(account: &Account, faults: &[Fault], hours: i64, jitters: &[f64]) -> (Vec<i64>, u32) {
    let (mut state, mut calls, mut refused) = (AccountState::default(), Vec::new(), 0);
    let mut now = START;
    let end = START + Duration::from_secs(3600 * hours.unsigned_abs());
    for turn in 0.. {
        let (fault, jitter) = (&faults[turn % faults.len()], jitters[turn % jitters.len()]);
        match next_step(&state, account, true, now) {
            Step::Wait(at) => now = at,
            Step::Fetch { force, .. } => match state.begin_fetch(account, force, now) {
                Ok(()) => {
                    calls.push(now.boot_ms);
                    let end = FetchEnd {
                        force,
                        sent_at: Some(now),
                        may_have_minted: false,
                        result: Err(fault.clone()),
                    };
                    state.end_fetch(end, account, Rules::EXAMPLE, now, Draw::alone(jitter));
                }
                Err(free_at) => {
                    refused += 1;
                    let fault = Fault::budget_exhausted(account.settings.daily_budget, free_at.until(now));
                    state.refuse_fetch(fault, account, now, jitter);
                }
            },
            step => panic!("{step:?} without a token"),
        }
        assert!(turn < 1_000_000, "a loop without delay");
        if end.has_come(now) {
            break;
        }
    }
    (calls, refused)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_outage_of_any_length_stays_within_the_budget_and_always_leaves_a_call_for_its_end(
        account in any_account(),
        faults in prop::collection::vec(any_fault(), 1..4),
        hours in 1_i64..72,
        jitters in prop::collection::vec(0.0..1.0, 1..20),
    ) {
        let (calls, refused) = calls_in_an_outage(&account, &faults, hours, &jitters);
        prop_assert!(!calls.is_empty());
        let day = DAY.as_millis() as i64;
        for (index, last) in calls.iter().enumerate() {
            let held = index + 1 - calls.partition_point(|at| *at <= last - day);
            prop_assert!(held <= account.settings.daily_budget as usize, "{held} of {}", account.settings.daily_budget);
        }
        let shortest = faults.iter().map(|fault| wait_bounds(fault, &account).0).min().unwrap().as_millis() as i64;
        prop_assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= shortest));
        // A quota says itself when it is free. Everything else is tried no faster than the budget comes back
        // once it is scarce, so there is always a call left for the moment at which the failures end.
        if faults.iter().all(|fault| fault.kind != FaultKind::Throttled) {
            prop_assert_eq!(refused, 0, "the budget ran dry");
            let longest = faults.iter().map(|fault| wait_bounds(fault, &account).1).max().unwrap();
            let longest = longest.max(budget::interval(account.settings.daily_budget)).as_millis() as i64;
            prop_assert!(calls.windows(2).all(|pair| pair[1] - pair[0] <= longest));
        }
    }
}
