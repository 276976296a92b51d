//! Clocks that are wrong.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::phase::Phase;
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::TicketKind::Jsapi;
use wxtokend_sandbox::{Call, Fault, FaultKind, Outage};

use super::lab::{APPID, CLOSED, Lab, account, appid};
use super::{BOTH, SECOND};
use crate::fleet::{RejectionOutcome, TokenError};

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_slewed_by_minutes_leaves_no_account_without_a_token() {
    for endpoint in BOTH {
        for (step_ms, most_ms) in [(100, 600_000), (416, 600_000), (1_900, 600_000), (-416, -600_000)] {
            let lab = Lab::start(endpoint).await;
            lab.token().await;
            let mut slewed_ms = 0;
            for second in 0..4 * 3600 {
                sleep(SECOND).await;
                if second % 5 == 0 && slewed_ms != most_ms {
                    let left_ms: i64 = most_ms - slewed_ms;
                    let step_ms = if left_ms.abs() > 1_900 { step_ms } else { left_ms };
                    slewed_ms += step_ms;
                    lab.clock.jump_wall(step_ms);
                }
                let token = lab.fleet.token_at_once(APPID);
                let case = format!("{endpoint:?}, {step_ms} ms in 5 s, after {second} s: {:?}", lab.view());
                lab.assert_alive(&token.unwrap_or_else(|| panic!("no token: {case}")));
            }
        }
    }
}

fn with_ticket(endpoint: Endpoint) -> Account {
    account(APPID, endpoint).with(|settings| settings.tickets = [Jsapi].into_iter().collect())
}

const fn ms(s: i64) -> i64 {
    s * 1000
}

/// Reads token and ticket for `time` and checks that neither is dead. Returns how often there were both.
async fn read_on(lab: &Lab, time: Duration, case: &str) -> usize {
    let (end, mut both) = (Instant::now() + time, 0);
    while Instant::now() < end {
        sleep(SECOND).await;
        let token = timeout(SECOND / 10, lab.fleet.token(APPID)).await;
        let ticket = timeout(SECOND / 10, lab.fleet.ticket(APPID, Jsapi)).await;
        if let Ok(Ok(token)) = &token {
            assert!(lab.wechat.is_alive(token.access_token()), "{case}: served a dead token: {token:?}");
            let truth = lab.wechat.token_truth(token.access_token()).unwrap();
            let left = truth.dies_at.saturating_sub(lab.wechat.now());
            assert!(token.max_age() <= left, "{case}: {token:?} lives for {left:?} only");
        }
        if let Ok(Ok(ticket)) = &ticket {
            assert!(lab.wechat.is_ticket_alive(&appid(), ticket.value()), "{case}: served a dead ticket");
        }
        both += usize::from(matches!((token, ticket), (Ok(Ok(_)), Ok(Ok(_)))));
    }
    both
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_reboots_with_its_clock_behind_serves_nothing_that_has_ended() {
    for endpoint in BOTH {
        for (behind_s, down_s) in [
            (3, 7_199),
            (30, 7_190),
            (600, 7_000),
            (600, 7_790),
            (10_800, 7_300),
            (100_000, 100_000),
            (31_536_000, 7_300),
            (1_790_000_000, 7_300),
        ] {
            let case = format!("{endpoint:?}, {behind_s} s behind after {down_s} s");
            let lab = Lab::with(vec![with_ticket(endpoint)]).await;
            lab.fleet.ticket(APPID, Jsapi).await.unwrap();
            let lab = lab.reboot(SECOND * down_s, -ms(behind_s)).await;
            assert!(read_on(&lab, 900 * SECOND, &case).await > 800, "{case}: too seldom: {:#?}", lab.view());
            assert_eq!(lab.probes.load(Ordering::SeqCst), 1, "{case}");
            // What was judged is not judged again by the wall clock.
            let lab = lab.crash_and_restart().await;
            assert!(read_on(&lab, 900 * SECOND, &case).await > 800, "{case}: too seldom: {:#?}", lab.view());
            assert_eq!(lab.probes.load(Ordering::SeqCst), 1, "{case}: no call within a boot");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_living_token_is_served_again_after_a_reboot_for_one_call_of_the_whole_fleet() {
    for off_s in [0, 1, -1, -4, -600, -10_800, -1_790_000_000, 600] {
        let accounts = (0..40).map(|n| {
            let endpoint = BOTH[n % 2];
            let tickets = [Jsapi].into_iter().collect();
            account(&format!("wx{n:02}"), endpoint).with(|settings| settings.tickets = tickets)
        });
        let lab = Lab::with(accounts.collect()).await;
        let all: Vec<_> = (0..40).map(|n| format!("wx{n:02}")).collect();
        let mut before = Vec::new();
        for appid in &all {
            let token = lab.fleet.token(appid).await.unwrap();
            let ticket = lab.fleet.ticket(appid, Jsapi).await.unwrap();
            before.push((token.access_token().to_owned(), ticket.value().to_owned(), token.version()));
        }
        let mints = |lab: &Lab| {
            let counters = lab.counters();
            (counters.token_calls, counters.stable_token_calls, counters.ticket_mints)
        };
        let minted = mints(&lab);
        let lab = lab.reboot(60 * SECOND, ms(off_s)).await;
        for (appid, (token, ticket, version)) in all.iter().zip(before) {
            let now = lab.fleet.token(appid).await.unwrap();
            assert_eq!((now.access_token(), now.version()), (&*token, version), "{off_s} s off: {appid}");
            assert!(now.expires_in() < 7_140 * SECOND, "{off_s} s off: {now:?}");
            assert_eq!(lab.fleet.ticket(appid, Jsapi).await.unwrap().value(), ticket, "{off_s} s off");
        }
        assert!(lab.fleet.is_ready());
        sleep(60 * SECOND).await;
        assert_eq!(mints(&lab), minted, "{off_s} s off");
        // Within a boot nothing is asked, and nothing is judged again by the wall clock.
        lab.clock.jump_wall(-ms(3_600));
        let end = |lab: &Lab| lab.fleet.snapshot(APPID).unwrap().state.token.as_ref().unwrap().expires_at;
        let before = end(&lab);
        let lab = lab.crash_and_restart().await;
        assert!(lab.fleet.token_at_once(APPID).is_some(), "{off_s} s off: at once");
        assert_eq!(end(&lab), before, "{off_s} s off");
        assert_eq!(lab.probes.load(Ordering::SeqCst), 1, "{off_s} s off");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_the_time_where_nothing_stored_can_live() {
    let lab = Lab::start(Endpoint::Token).await;
    lab.token().await;
    let lab = lab.reboot(8_000 * SECOND, 0).await;
    lab.assert_alive(&lab.token().await);
    let lab = lab.crash_and_restart().await;
    lab.token().await;
    let probes = lab.probes.load(Ordering::SeqCst);
    let lab = lab.reboot(SECOND, 8_000_000).await;
    lab.assert_alive(&lab.token().await);
    assert_eq!((probes, lab.probes.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_wechats_time_stored_tokens_are_served_by_the_wall_clock_after_a_calls_timeout() {
    let raw = |headers: serde_json::Value| {
        let answer = json!({"status": 200, "headers": headers, "body": r#"{"errcode": 40001}"#});
        FaultKind::Raw(serde_json::from_value(answer).unwrap())
    };
    for (kind, least) in [
        (FaultKind::Hang, 5 * SECOND),
        (FaultKind::Reset, 5 * SECOND),
        (FaultKind::Status { status: 502 }, 5 * SECOND),
        (raw(json!({"Date": "never"})), Duration::ZERO),
    ] {
        for endpoint in BOTH {
            let lab = Lab::start(endpoint).await;
            let before = lab.token().await;
            lab.wechat.inject(None, Fault::new(kind.clone()).on(Call::Check));
            let lab = lab.reboot(60 * SECOND, 0).await;
            let start = Instant::now();
            let token = lab.token().await;
            let waited = start.elapsed();
            assert!(waited >= least && waited <= least + SECOND / 4, "{kind:?}: {waited:?}");
            assert_eq!(token.access_token(), before.access_token(), "{kind:?}");
            sleep(60 * SECOND).await;
            assert_eq!(lab.mints(), 1, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_are_asked_for_the_time_until_one_answers() {
    for is_up_after in [None, Some(3 * SECOND)] {
        let lab = Lab::tuned(vec![account(APPID, Endpoint::Token)], |upstream| {
            upstream.base_urls.insert(0, CLOSED.parse().unwrap());
        });
        let lab = lab.await;
        lab.token().await;
        if is_up_after.is_some() {
            lab.wechat.set_outage(Some(Outage::Refuse));
        }
        let lab = lab.reboot(7_300 * SECOND, -ms(10_800)).await;
        let start = Instant::now();
        let up_after = is_up_after.unwrap_or_default();
        let wechat = lab.wechat.clone();
        tokio::spawn(async move {
            sleep(up_after).await;
            wechat.set_outage(None);
        });
        lab.assert_alive(&lab.token().await);
        assert!(start.elapsed() <= up_after + 2 * SECOND, "{:?}", start.elapsed());
        assert_eq!(lab.mints(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_but_those_with_something_stored_waits_for_the_time() {
    let mut lab = Lab::with(vec![with_ticket(Endpoint::StableToken)]).await;
    lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    lab.wechat.add_account(&Appid::new("wx02").unwrap(), Secret::new("secret of wx02"));
    lab.config.accounts.push(account("wx02", Endpoint::Token).into());
    lab.wechat.inject(None, Fault::new(FaultKind::Hang).on(Call::Check));
    let lab = lab.reboot(SECOND, 0).await;
    let start = Instant::now();
    lab.fleet.token("wx02").await.unwrap();
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    assert_eq!(lab.view().state, Phase::Starting);
    assert!(lab.fleet.token_at_once(APPID).is_none() && !lab.fleet.is_ready());
    // Reports and requests wait as readers do.
    let report = lab.fleet.reject(APPID, "another").await.unwrap();
    assert_eq!(report.outcome, RejectionOutcome::Superseded);
    assert!(start.elapsed() >= 5 * SECOND - SECOND / 10 && start.elapsed() < 6 * SECOND);
    assert!(lab.fleet.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_ends_before_it_knows_the_time_asks_again_at_the_next_start() {
    for is_asked_to in [true, false] {
        let lab = Lab::with(vec![with_ticket(Endpoint::Token)]).await;
        lab.fleet.ticket(APPID, Jsapi).await.unwrap();
        lab.wechat.inject(None, Fault::new(FaultKind::Hang).on(Call::Check));
        let lab = lab.reboot(60 * SECOND, -ms(10_800)).await;
        sleep(SECOND).await;
        if is_asked_to {
            let (fleet, start) = (lab.fleet.clone(), Instant::now());
            let reader = tokio::spawn(async move { fleet.token(APPID).await.map(drop) });
            tokio::task::yield_now().await;
            lab.fleet.shutdown().await;
            assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
            assert!(matches!(reader.await.unwrap(), Err(TokenError::ShuttingDown)));
        }
        lab.wechat.clear_faults(None);
        // Long enough for the token to have ended, though the clock says otherwise.
        let mut lab = lab.reboot(7_300 * SECOND, None).await;
        assert!(read_on(&lab, 60 * SECOND, "").await > 50);
        lab = lab.crash_and_restart().await;
        assert!(read_on(&lab, 60 * SECOND, "").await > 50);
        assert_eq!(lab.mints(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_while_the_time_is_asked_for_loses_nothing_and_revives_nothing() {
    let lab = Lab::with(vec![with_ticket(Endpoint::StableToken), account("wx02", Endpoint::Token)]).await;
    lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    let before = lab.token().await;
    lab.fleet.token("wx02").await.unwrap();
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 3_000 }).on(Call::Check));
    let mut lab = lab.reboot(60 * SECOND, -ms(600)).await;
    sleep(SECOND).await;
    let whole = lab.config.clone();
    lab.config.accounts.truncate(1);
    lab.config.accounts[0] =
        Account { name: "renamed".to_owned(), ..with_ticket(Endpoint::StableToken) }.into();
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert_eq!(lab.token().await.access_token(), before.access_token());
    assert_eq!(lab.view().name, "renamed");
    // Nothing that is judged later brings it back.
    sleep(5 * SECOND).await;
    let record = lab.disk.record("wx02");
    assert!(!record.contains(r#""value""#), "{record}");
    // An account that was removed while the machine was down leaves no token behind, either.
    lab.wechat.clear_faults(None);
    lab.fleet.reload(whole).await.unwrap();
    lab.fleet.token("wx02").await.unwrap();
    assert!(lab.disk.record("wx02").contains(r#""value""#));
    let lab = lab.reboot(60 * SECOND, 0).await;
    lab.token().await;
    let record = lab.disk.record("wx02");
    assert!(!record.contains(r#""value""#), "{record}");
    // The upstream is replaced in that very moment: nothing of the old one's comes back.
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 3_000 }).on(Call::Check));
    let mut lab = lab.reboot(60 * SECOND, 0).await;
    lab.config.upstream.base_urls = vec!["https://other.test/".parse().unwrap()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert!(lab.fleet.token_at_once(APPID).is_none_or(|token| token.version() > before.version()));
    let lab = lab.crash_and_restart().await;
    assert!(lab.token().await.version() > before.version());
}
