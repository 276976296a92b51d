use super::*;
use crate::fault::FaultScope;

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn busy() -> Fault {
    Fault::from_errcode(-1, "system error")
}

/// The wait of an account with a full bucket and no token.
fn wait(fault: &Fault, failures: u32, jitter: f64) -> Duration {
    let account = Account::example(Endpoint::StableToken);
    wait_after(fault, failures, &account, Duration::ZERO, &Ledger::default(), START, jitter)
}

#[test]
fn the_overlap_is_at_most_a_quarter_of_the_lifetime() {
    for (lifetime, overlap) in [(7200, 300), (1200, 300), (400, 100), (0, 0)] {
        assert_eq!(overlap_of(s(lifetime), Rules::EXAMPLE), s(overlap));
    }
}

#[test]
fn on_token_the_refresh_leaves_a_quarter_of_the_life_a_third_either_way() {
    let account = Account::example(Endpoint::Token);
    let drawn = |jitter| refresh_at(&account, START, s(7200), s(300), false, jitter);
    assert_eq!(drawn(0.0), START + s(6000));
    assert_eq!(drawn(0.5), START + s(5400));
    assert_eq!(drawn(1.0), START + s(4800));
}

#[test]
fn a_thundering_herd_draws_from_the_whole_time_after_the_overlap() {
    let account = Account::example(Endpoint::Token);
    let drawn = |jitter| refresh_at(&account, START, s(7200), s(300), true, jitter);
    assert_eq!(drawn(0.0), START + s(6000));
    assert_eq!(drawn(0.5), START + s(3150));
    assert_eq!(drawn(1.0), START + s(300));
    // Where WeChat would hand out the same token again, nothing is gained.
    let account = Account::example(Endpoint::StableToken);
    assert_eq!(refresh_at(&account, START, s(7200), s(300), true, 1.0), START + s(7005));
}

#[test]
fn a_fixed_time_ahead_is_never_more_than_half_of_the_life() {
    let ahead = RefreshAhead::Fixed(s(1800));
    let account = Account::example(Endpoint::Token).with(|settings| settings.refresh_ahead = ahead);
    assert_eq!(refresh_at(&account, START, s(7200), s(300), false, 0.5), START + s(5400));
    assert_eq!(refresh_at(&account, START, s(600), s(150), false, 0.5), START + s(300));
}

#[test]
fn on_stable_token_the_refresh_falls_into_the_first_third_of_the_window() {
    let account = Account::example(Endpoint::StableToken);
    let drawn = |jitter| refresh_at(&account, START, s(7200), s(300), false, jitter);
    assert_eq!(drawn(0.0), START + s(6906));
    assert_eq!(drawn(1.0), START + s(7005));
}

#[test]
fn with_little_life_left_the_refresh_waits_for_the_shortest_retry_or_the_end() {
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        let account = Account::example(endpoint);
        assert_eq!(refresh_at(&account, START, s(2), s(2), false, 0.99), START + s(2));
        assert_eq!(refresh_at(&account, START, s(1), s(1), false, 0.0), START + s(1));
        assert_eq!(refresh_at(&account, START, Duration::ZERO, Duration::ZERO, false, 0.5), START);
    }
    // The window is already over.
    let account = Account::example(Endpoint::StableToken);
    assert_eq!(refresh_at(&account, START, s(100), s(300), false, 0.5), START + s(2));
}

#[test]
fn a_quota_a_park_and_a_dead_repeat_wait_exactly_as_long_as_they_say() {
    for (fault, seconds) in [
        (Fault::from_errcode(45009, ""), 3600),
        (Fault::from_errcode(45011, ""), 60),
        (Fault::from_errcode(40164, ""), 300),
        (Fault::from_errcode(89506, ""), 86_400),
        (Fault::dead_token_issued(), 0),
        (Fault::budget_exhausted(10, s(77)), 77),
    ] {
        for (failures, jitter) in [(1, 0.0), (50, 0.99)] {
            assert_eq!(wait(&fault, failures, jitter), s(seconds), "{fault:?}");
        }
    }
}

#[test]
fn back_off_doubles_its_ceiling_from_initial_to_max() {
    for (failures, ceiling) in [(1, 4), (2, 8), (3, 16), (4, 32), (5, 60), (6, 60), (u32::MAX, 60)] {
        assert_eq!(wait(&busy(), failures, 0.0), s(2));
        assert_eq!(wait(&busy(), failures, 1.0), s(ceiling), "{failures} failures");
    }
}

#[test]
fn an_unknown_errcode_backs_off_up_to_ten_minutes() {
    assert_eq!(wait(&Fault::from_errcode(99_999, ""), 3, 1.0), s(16));
    assert_eq!(wait(&Fault::from_errcode(99_999, ""), 40, 1.0), s(600));
}

#[test]
fn several_tries_fit_into_what_is_left_of_the_token() {
    let account = Account::example(Endpoint::StableToken);
    let near = |usable_s| wait_after(&busy(), 30, &account, s(usable_s), &Ledger::default(), START, 1.0);
    assert_eq!(near(7000), s(60));
    assert_eq!(near(120), s(30));
    assert_eq!(near(5), s(2), "never sooner than the shortest wait");
    assert_eq!(near(0), s(60), "what has ended is no deadline");
    // A refusal may concern only one of several addresses, or pass.
    let parked = Fault::from_errcode(40164, "");
    let near = |usable_s| wait_after(&parked, 1, &account, s(usable_s), &Ledger::default(), START, 1.0);
    assert_eq!([near(7000), near(1200), near(120), near(5), near(0)], [300, 300, 30, 2, 300].map(s));
}

#[test]
fn the_last_quarter_of_the_burst_is_spent_no_faster_than_it_comes_back() {
    let account = Account::example(Endpoint::StableToken).with(|settings| settings.daily_budget = 200);
    let mut ledger = Ledger::default();
    let waits = |ledger: &Ledger| wait_after(&busy(), 1, &account, s(30), ledger, START, 0.0);
    for _ in 0..75 {
        ledger.charge(Bucket::Calls, 200, START).unwrap();
    }
    assert_eq!(waits(&ledger), s(2), "25 of 100 left");
    ledger.charge(Bucket::Calls, 200, START).unwrap();
    assert_eq!(waits(&ledger), s(864), "24 left: one call in 864 s");
    assert_eq!(wait_after(&Fault::dead_token_issued(), 1, &account, s(30), &ledger, START, 0.0), s(0));
}

#[test]
fn the_smallest_budget_keeps_its_only_calls_for_when_they_come_back() {
    let account = Account::example(Endpoint::StableToken).with(|settings| settings.daily_budget = 4);
    let mut ledger = Ledger::default();
    let mut waits = Vec::new();
    for _ in 0..2 {
        ledger.charge(Bucket::Calls, 4, START).unwrap();
        waits.push(wait_after(&busy(), 1, &account, Duration::ZERO, &ledger, START, 0.0));
    }
    assert_eq!(waits, [s(2), s(12 * 3600)]);
}

#[test]
fn a_host_and_a_lost_answer_back_off_like_any_transient_fault() {
    for fault in [
        Fault::host("refused"),
        Fault::unreadable("html"),
        Fault::unknown_outcome(FaultScope::Host, "cut"),
        Fault::internal("x"),
    ] {
        assert_eq!((wait(&fault, 2, 0.0), wait(&fault, 2, 1.0)), (s(2), s(8)));
    }
}

#[test]
fn a_force_is_allowed_at_once_then_after_30_s() {
    assert_eq!(force_allowed_at(&[], START), START);
    assert_eq!(force_allowed_at(&[START], START), START + s(30));
    assert_eq!(force_allowed_at(&[START], START + s(29)), START + s(30));
    assert_eq!(force_allowed_at(&[START], START + s(31)), START + s(31));
}

#[test]
fn the_twenty_first_force_waits_for_the_first_to_be_a_day_old() {
    let forced: Vec<Moment> = (0..20).map(|i| START + s(100 * i)).collect();
    let now = START + s(5000);
    assert_eq!(force_allowed_at(&forced[..19], now), now);
    assert_eq!(force_allowed_at(&forced, now), START + DAY);
    assert_eq!(force_allowed_at(&forced, START + DAY), START + DAY);
    let more: Vec<Moment> = (0..25).map(|i| START + s(100 * i)).collect();
    assert_eq!(force_allowed_at(&more, now), START + s(500) + DAY, "the twentieth from the end counts");
}

#[test]
fn a_pause_that_was_asked_for_is_kept_even_near_the_tokens_end_and_ends_early_only_with_the_hosts_recovery() {
    let fault = Fault::host("HTTP 503").not_before(Some(s(40)));
    assert_eq!(wait(&fault, 1, 0.0), s(40));
    assert_eq!(wait(&fault, 1, 0.5), s(41), "apart from the others");
    assert!(wait(&fault, 9, 1.0) >= s(60), "a longer back-off stays");
    let account = Account::example(Endpoint::StableToken);
    assert_eq!(wait_after(&fault, 1, &account, s(20), &Ledger::default(), START, 0.0), s(40));
    let last_failure =
        crate::last_failure::LastFailure::after(None, fault, &account, s(20), &Ledger::default(), START, 0.0);
    assert!(last_failure.awaits_host);
}
