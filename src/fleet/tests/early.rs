//! Refreshes that are brought forward.

use wxtokend_core::account::Retry;
use wxtokend_sandbox::Counters;

use super::*;

/// WeChat's least: its `stable_token` never states less.
const LEAST: Duration = Duration::from_secs(300);

/// A client asks every `every` through `lives` lifetimes of 2 h; one that takes us for WeChat says so.
/// Returns the longest time for which less than the least was promised, and the numbers of calls and mints.
async fn lived(lab: &Lab, every: Duration, is_reported: bool, lives: u32) -> (Duration, Counters) {
    let (mut low_since, mut longest) = (None, Duration::ZERO);
    let end = Instant::now() + 7200 * SECOND * lives;
    while Instant::now() < end {
        let token = lab.token().await;
        lab.assert_alive(&token);
        if is_reported {
            lab.fleet.bring_refresh_forward(APPID);
        }
        match token.expires_in() < LEAST {
            true => longest = longest.max(low_since.get_or_insert_with(Instant::now).elapsed()),
            false => low_since = None,
        }
        sleep(every).await;
    }
    (longest, lab.counters())
}

#[tokio::test(start_paused = true)]
async fn an_sdk_that_calls_us_as_wechat_gets_a_short_promise_for_a_moment_only_and_at_no_further_mint() {
    for (lot, usual) in [(0.0, 6), (0.5, 55), (0.99, 103)] {
        let lots: &'static [f64] = Box::leak(Box::new([lot]));
        let accounts = || vec![account(APPID, Endpoint::StableToken)];
        let every = Duration::from_millis(250);
        let lab = Lab::drawing(lots, accounts(), |_| {}).await;
        let (before, scheduled) = lived(&lab, every, false, 3).await;
        lab.fleet.shutdown().await;
        assert!(before >= usual * SECOND, "{before:?}: what the early refresh is for");
        let lab = Lab::drawing(lots, accounts(), |_| {}).await;
        let (after, counters) = lived(&lab, every, true, 3).await;
        assert!(after <= 3 * SECOND, "drawn {lot}: {before:?} without, {after:?}");
        assert_eq!(counters.stable_token_mints, scheduled.stable_token_mints, "{counters:?}");
        assert_eq!(counters.stable_token_calls, counters.stable_token_mints, "none was wasted: {counters:?}");
        assert_eq!(counters.forced_mints, 0);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_calls_of_stable_token_bring_one_refresh_forward_and_none_before_wechat_mints() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    for seconds in [0, 3600, 3290] {
        sleep(seconds * SECOND).await;
        lab.fleet.bring_refresh_forward(APPID);
        sleep(SECOND).await;
        assert_eq!(lab.calls(), 1, "WeChat would hand out the same token");
    }
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 2_000 }));
    sleep(12 * SECOND).await;
    let old = lab.token().await;
    for _ in 0..200 {
        lab.fleet.bring_refresh_forward(APPID);
        assert_eq!(lab.token().await.version(), old.version(), "nobody waits for it");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(3 * SECOND).await;
    assert_eq!((lab.calls(), lab.mints()), (2, 2));
    assert_eq!(lab.token().await.version(), old.version() + 1);
    lab.fleet.shutdown().await;
}

/// As where `upstream.overlap` differs from WeChat's.
#[tokio::test(start_paused = true)]
async fn where_wechat_hands_out_the_same_token_it_is_asked_less_and_less_often() {
    let lab = Lab::tuned(vec![account(APPID, Endpoint::StableToken)], |upstream| {
        upstream.overlap = Duration::from_secs(1200);
    })
    .await;
    let (_, counters) = lived(&lab, SECOND, true, 3).await;
    assert!(counters.stable_token_calls <= 3 * 14, "{counters:?}");
    assert!((3..=4).contains(&counters.stable_token_mints), "{counters:?}");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_brought_forward_obeys_the_back_off_and_the_budget() {
    let mut poor = account(APPID, Endpoint::StableToken);
    poor.settings.daily_budget = 40;
    poor.settings.retry = Retry { initial: 2 * SECOND, max: 60 * SECOND };
    let lab = Lab::with(vec![poor]).await;
    lab.token().await;
    sleep(6000 * SECOND).await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(-1));
    sleep(900 * SECOND).await;
    let before = lab.calls();
    for second in 0..290 {
        lab.fleet.bring_refresh_forward(APPID);
        sleep(SECOND).await;
        let view = lab.view();
        assert!(view.budget.remaining > 0 || view.state != Phase::Fresh, "{second}");
    }
    let calls = lab.calls() - before;
    assert!((3..=20).contains(&calls), "{calls}: as many as without, its budget is 20 at once");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn on_the_classic_endpoint_nothing_is_brought_forward() {
    let lab = Lab::start(Endpoint::Token).await;
    let (_, with) = lived(&lab, 5 * SECOND, true, 2).await;
    lab.fleet.shutdown().await;
    let lab = Lab::start(Endpoint::Token).await;
    let (_, without) = lived(&lab, 5 * SECOND, false, 2).await;
    assert_eq!(with, without);
    lab.fleet.shutdown().await;
}
