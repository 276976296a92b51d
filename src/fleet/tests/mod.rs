//! Tests of the fleet as a whole, on paused time.

mod clocks;
mod cuts;
mod decision;
mod early;
mod events;
mod handed_out;
#[cfg(feature = "axum")]
mod hints;
pub(crate) mod lab;
mod library;
mod reloads;
mod scenarios;
mod stopping;
mod tickets;
mod troubles;
mod whitelists;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use wxtokend_core::account::{Account, Endpoint};
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::state::Activity;
use wxtokend_sandbox::{Call, Fault, FaultKind, LostAs, Outage};

use self::lab::{APPID, Lab, account, appid, drawn_from};
use super::TokenError;
use crate::fleet::cells::mailbox::Notice;
use crate::fleet::cells::tally::RejectionOutcome;

const BOTH: [Endpoint; 2] = [Endpoint::StableToken, Endpoint::Token];
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_fresh_through_several_lifetimes_on_both_endpoints() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let first = lab.token().await;
        lab.live_through(24 * HOUR, 7 * SECOND).await;
        let last = lab.token().await;
        let calls = lab.calls();
        assert_eq!(last.version(), first.version() + calls - 1, "{endpoint:?}: every call brought a token");
        assert!((12..=17).contains(&calls), "{endpoint:?}: {calls} calls a day");
        assert_eq!(lab.view().state, Phase::Fresh);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_readers_of_a_cold_account_cause_one_call() {
    for endpoint in BOTH {
        let lab = Lab::with(vec![account(APPID, endpoint)]).await;
        let mut readers = JoinSet::new();
        for _ in 0..200 {
            let fleet = lab.fleet.clone();
            readers.spawn(async move { fleet.token(APPID).await.unwrap().access_token().to_owned() });
        }
        let tokens = readers.join_all().await;
        assert!(tokens.iter().all(|token| *token == tokens[0]));
        assert_eq!(lab.calls(), 1);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_share_a_failure_too() {
    let lab = Lab::start(Endpoint::Token).await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(-1));
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let fleet = lab.fleet.clone();
        readers.spawn(async move { fleet.token(APPID).await });
    }
    let start = Instant::now();
    for answer in readers.join_all().await {
        assert!(
            matches!(answer, Err(TokenError::Unavailable(why)) if why.last_fault.as_ref().unwrap().errcode == Some(-1))
        );
    }
    assert_eq!(lab.calls(), 1);
    assert!(start.elapsed() < SECOND, "nobody waited for the next attempt");
    lab.fleet.shutdown().await;
}

async fn reject_a_thousand_times(lab: &Lab, token: &str) -> Vec<RejectionOutcome> {
    let mut clients = JoinSet::new();
    for _ in 0..1000 {
        let (fleet, token) = (lab.fleet.clone(), token.to_owned());
        clients.spawn(async move { fleet.reject(APPID, &token).await.unwrap().outcome });
    }
    clients.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_thousand_rejections_of_a_dead_token_cause_one_check_and_one_mint() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let token = lab.token().await;
        lab.wechat.kill_tokens(&appid());
        let before = lab.mints();
        let outcomes = reject_a_thousand_times(&lab, token.access_token()).await;
        assert!(
            outcomes.iter().all(|outcome| *outcome == RejectionOutcome::Refreshed),
            "{endpoint:?} {outcomes:?}"
        );
        assert_eq!((lab.counters().checks, lab.mints() - before), (1, 1), "{endpoint:?}");
        let replacement = lab.token().await;
        assert_eq!(replacement.version(), token.version() + 1);
        lab.assert_alive(&replacement);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_rejections_of_a_living_token_cause_one_check_and_no_mint() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let token = lab.token().await;
        let before = lab.calls();
        let outcomes = reject_a_thousand_times(&lab, token.access_token()).await;
        assert!(outcomes.iter().all(|outcome| *outcome == RejectionOutcome::StillValid), "{endpoint:?}");
        assert_eq!((lab.counters().checks, lab.calls()), (1, before), "{endpoint:?}");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_of_an_old_token_cause_neither_and_bring_the_current_one() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let old = lab.token().await;
        lab.live_through(3 * HOUR, 60 * SECOND).await;
        let (checks, calls) = (lab.counters().checks, lab.calls());
        let outcomes = reject_a_thousand_times(&lab, old.access_token()).await;
        assert!(outcomes.iter().all(|outcome| *outcome == RejectionOutcome::Superseded));
        assert_eq!((lab.counters().checks, lab.calls()), (checks, calls));
        let rejected = lab.fleet.reject(APPID, old.access_token()).await.unwrap();
        assert!(rejected.token.unwrap().version() > old.version());
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_on_token_never_leads_to_a_dead_token_served() {
    for seen_as in [LostAs::Hang, LostAs::Reset, LostAs::Html, LostAs::BadGateway, LostAs::GatewayTimeout] {
        let lab = Lab::start(Endpoint::Token).await;
        lab.token().await;
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Lost { seen_as }).times(1));
        lab.live_through(5 * HOUR, SECOND).await;
        assert_eq!(lab.view().state, Phase::Fresh, "{seen_as:?}");
        lab.assert_alive(&lab.token().await);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_that_minted_nothing_is_settled_by_one_check() {
    let lab = Lab::start(Endpoint::Token).await;
    let token = lab.token().await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Reset).on(Call::Token).times(1));
    lab.until("in doubt", |view| {
        view.last_fault.as_ref().is_some_and(|fault| fault.kind.as_str() == "unknown_outcome")
    })
    .await;
    assert_eq!(lab.view().state, Phase::Degraded);
    lab.live_through(HOUR, SECOND).await;
    assert_eq!(lab.counters().checks, 1);
    lab.until("fresh", |view| view.state == Phase::Fresh).await;
    assert_eq!(lab.token().await.version(), token.version() + 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_actor_is_restarted_and_its_token_served_meanwhile() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let token = lab.token().await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let actor = lab.fleet.cells()[0].mailbox().unwrap();
        assert!(actor.tell(Notice::Crash));
        actor.stopped().await;
        assert_eq!(lab.token().await.access_token(), token.access_token());
        let crashed = Instant::now();
        while lab.fleet.cells()[0].mailbox().is_none_or(|back| back.id() == actor.id()) {
            assert_eq!(lab.token().await.access_token(), token.access_token());
            sleep(SECOND / 100).await;
        }
        waits.push(crashed.elapsed());
    }
    assert!(waits.is_sorted_by(|shorter, longer| *shorter + SECOND / 20 < *longer), "{waits:?}");
    lab.live_through(5 * HOUR, 30 * SECOND).await;
    assert!(lab.token().await.version() > token.version());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_crashes_during_a_call_takes_its_answer_in_when_it_is_back() {
    let lab = Lab::start(Endpoint::Token).await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 3000 }).times(1));
    sleep(SECOND).await;
    assert_eq!(lab.calls(), 1);
    assert!(lab.fleet.cells()[0].mailbox().unwrap().tell(Notice::Crash));
    lab.assert_alive(&lab.token().await);
    sleep(60 * SECOND).await;
    assert_eq!(lab.calls(), 1);
    lab.fleet.shutdown().await;
}

/// The second after the start in which each of the two is refreshed next.
async fn refreshed_in(lab: &Lab) -> [i64; 2] {
    // A moment for the actors to read what is stored.
    sleep(SECOND / 10).await;
    ["wx01", "wx02"].map(|appid| {
        let at = lab.fleet.account(appid).unwrap().next_refresh_at.unwrap();
        at.as_second() - 1_790_000_000
    })
}

fn two_accounts() -> Vec<Account> {
    ["wx01", "wx02"].map(|appid| account(appid, Endpoint::Token)).to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_drawn_instant_that_is_taken_is_moved_to_one_nearby() {
    let lab = Lab::drawing(&[0.1, 0.9], two_accounts(), |_| {}).await;
    let mut seconds = refreshed_in(&lab).await;
    seconds.sort_unstable();
    // 0.04 of 1200 s apart.
    assert_eq!(seconds, [5832, 5880]);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_refreshes_of_stored_tokens_count_after_a_restart() {
    let mut lab = Lab::drawing(&[0.1, 0.5], two_accounts(), |_| {}).await;
    assert_eq!(refreshed_in(&lab).await, [5880, 5880]);
    // Removed and added again, the second needs a new token.
    let second = lab.config.accounts.pop().unwrap();
    lab = lab.crash_and_restart().await;
    lab.config.accounts.push(second);
    lab.jitter = drawn_from(&[0.1, 0.9]);
    lab = lab.crash_and_restart().await;
    assert_eq!(refreshed_in(&lab).await, [5880, 5832]);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_call_never_leads_to_a_dead_token_served() {
    let mut lab = Lab::start(Endpoint::Token).await;
    let first = lab.token().await;
    // WeChat mints at once and answers late; the process dies in between.
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 4000 }).times(1));
    while lab.mints() == 1 {
        sleep(SECOND).await;
    }
    lab = lab.crash_and_restart().await;
    lab.live_through(HOUR, SECOND).await;
    let token = lab.token().await;
    lab.assert_alive(&token);
    assert!(token.version() > first.version());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_budget_holds_across_crashes_on_both_endpoints() {
    for endpoint in BOTH {
        let mut cheap = account(APPID, endpoint);
        cheap.settings.daily_budget = 10;
        let mut lab = Lab::with(vec![cheap]).await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(-1));
        for _ in 0..30 {
            sleep(300 * SECOND).await;
            lab = lab.crash_and_restart().await;
        }
        assert_eq!(lab.calls(), 5, "{endpoint:?}: the burst, and then nothing in the first hours");
        sleep(20 * HOUR).await;
        assert!(lab.calls() <= 10, "{endpoint:?}: {}", lab.calls());
        let error = lab.fleet.token(APPID).await.unwrap_err();
        assert!(matches!(&error, TokenError::Unavailable(why) if why.last_fault.is_some()), "{error}");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_host_charges_nothing_that_was_not_sent_and_ends_in_quick_recovery() {
    let accounts: Vec<_> = (0..200).map(|n| account(&format!("wx{n:03}"), BOTH[n % 2])).collect();
    let lab = Lab::with(accounts).await;
    sleep(60 * SECOND).await;
    let spent = || -> Vec<u32> { lab.fleet.accounts().iter().map(|view| view.budget.remaining).collect() };
    lab.wechat.set_outage(Some(Outage::Refuse));
    sleep(3 * HOUR).await;
    assert!(
        lab.fleet.accounts().iter().all(|view| view.state == Phase::Unavailable),
        "nobody has a token left"
    );
    assert!(
        lab.fleet
            .accounts()
            .iter()
            .all(|view| view.last_fault.as_ref().unwrap().kind.as_str() == "transient")
    );
    assert!(spent().iter().all(|remaining| *remaining == 1000), "{:?}", spent());
    lab.wechat.set_outage(None);
    let start = Instant::now();
    while lab.fleet.accounts().iter().any(|view| view.state != Phase::Fresh) {
        sleep(SECOND).await;
        assert!(start.elapsed() < Duration::from_secs(62), "{:?}", lab.fleet.accounts()[0]);
    }
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_that_backs_off_for_a_host_retries_as_soon_as_it_is_back() {
    for endpoint in BOTH {
        let mut patient = account(APPID, endpoint);
        patient.settings.retry.max = HOUR;
        let lab = Lab::with(vec![patient, account("wx02", endpoint)]).await;
        // Its calls hang, but the host answers probes: in the end it waits half an hour between calls.
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang));
        sleep(6 * HOUR).await;
        assert_eq!(lab.view().state, Phase::Unavailable);
        lab.wechat.set_outage(Some(Outage::Refuse));
        lab.fleet.refresh("wx02", false).await.unwrap();
        sleep(10 * SECOND).await;
        assert!(lab.fleet.hosts().iter().all(|host| !host.up), "it is known to be down");
        lab.wechat.clear_faults(Some(&appid()));
        lab.wechat.set_outage(None);
        sleep(5 * SECOND).await;
        assert_eq!(lab.view().state, Phase::Fresh, "{endpoint:?}: {:?}", lab.view());
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_account_that_hangs_delays_no_other() {
    let lab = Lab::with(vec![account(APPID, Endpoint::Token), account("wx02", Endpoint::Token)]).await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Token));
    for _ in 0..60 {
        let start = Instant::now();
        lab.assert_alive(&lab.fleet.token("wx02").await.unwrap());
        assert!(start.elapsed() < SECOND);
        sleep(300 * SECOND).await;
    }
    assert_eq!(lab.view().state, Phase::Unavailable);
    assert_eq!(lab.fleet.account("wx02").unwrap().consecutive_failures, 0);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_does_not_stop_serving_and_nothing_is_lost_when_it_takes_writes_again() {
    let mut lab = Lab::start(Endpoint::Token).await;
    let first = lab.token().await;
    lab.disk.full.store(true, Ordering::SeqCst);
    lab.live_through(5 * HOUR, 10 * SECOND).await;
    let second = lab.token().await;
    assert!(second.version() > first.version());
    assert!(!lab.disk.record(APPID).contains(second.access_token()));
    lab.disk.full.store(false, Ordering::SeqCst);
    sleep(10 * SECOND).await;
    lab = lab.crash_and_restart().await;
    assert_eq!(lab.token().await.access_token(), second.access_token());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_on_disk_before_a_reader_sees_it() {
    let lab = Lab::start(Endpoint::Token).await;
    for _ in 0..10 {
        let token = lab.token().await;
        assert!(lab.disk.record(APPID).contains(token.access_token()));
        sleep(HOUR).await;
    }
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_account_stays_parked_with_its_cause_through_an_outage() {
    for (endpoint, outage) in
        BOTH.into_iter().flat_map(|endpoint| [Outage::Refuse, Outage::Hang].map(|outage| (endpoint, outage)))
    {
        let mut kept = account(APPID, endpoint);
        kept.settings.tickets = [TicketKind::Jsapi].into_iter().collect();
        let lab = Lab::with(vec![kept, account("wx02", endpoint)]).await;
        lab.token().await;
        lab.until("a ticket", |view| view.tickets[0].state == Phase::Fresh).await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(40164).on(Call::Token));
        lab.wechat.inject(Some(&appid()), Fault::errcode(40164).on(Call::StableToken));
        lab.wechat.inject(Some(&appid()), Fault::errcode(48001).on(Call::Ticket));
        lab.until("parked, its ticket, too", |view| {
            view.state == Phase::Parked && view.tickets[0].state == Phase::Parked
        })
        .await;
        assert!(lab.view().obstacle.is_none());
        lab.wechat.set_outage(Some(outage));
        lab.until("held up by the host", |view| {
            view.obstacle.is_some() && view.tickets[0].obstacle.is_some()
        })
        .await;
        for _ in 0..600 {
            sleep(10 * SECOND).await;
            let view = lab.view();
            let fault = view.last_fault.as_ref().unwrap();
            assert_eq!((view.state, fault.errcode), (Phase::Parked, Some(40164)), "{view:#?}");
            assert!(fault.advice.contains("whitelist"), "{view:#?}");
            let ticket = &view.tickets[0];
            let fault = ticket.last_fault.as_ref().unwrap();
            assert_eq!((ticket.state, fault.errcode), (Phase::Parked, Some(48001)), "{view:#?}");
        }
        let advice = lab.view().obstacle.unwrap().advice;
        assert!(advice.contains("network") || advice.contains("trusted for the overlap"), "{advice}");
        lab.wechat.clear_faults(Some(&appid()));
        lab.wechat.set_outage(None);
        lab.until("fresh", |view| view.state == Phase::Fresh && view.tickets[0].state == Phase::Fresh).await;
        assert!(lab.view().last_fault.is_none() && lab.view().obstacle.is_none());
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_adds_removes_and_changes_and_leaves_the_rest_alone() {
    let accounts = ["wx01", "wx02", "wx03"].map(|appid| account(appid, Endpoint::StableToken));
    let mut lab = Lab::with(accounts.to_vec()).await;
    for appid in ["wx01", "wx02", "wx03"] {
        lab.fleet.token(appid).await.unwrap();
    }
    let removed = lab.fleet.account("wx03").unwrap();
    let mut renamed = accounts[1].clone();
    renamed.name = "Renamed".to_owned();
    let added = account("wx04", Endpoint::Token);
    lab.wechat.add_account(&added.appid, added.secret.clone());
    lab.config.accounts = vec![accounts[0].clone().into(), renamed.into(), added.into()];
    let reloaded = lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert_eq!((reloaded.added, reloaded.removed, reloaded.changed), (1, 1, 1));
    lab.assert_alive(&lab.fleet.token("wx04").await.unwrap());
    assert_eq!(lab.fleet.account("wx02").unwrap().name, "Renamed");
    assert!(matches!(lab.fleet.token("wx03").await, Err(TokenError::UnknownAccount(_))));
    assert!(lab.disk.record("wx03").contains(r#""token":null"#), "{}", lab.disk.record("wx03"));
    assert_eq!(lab.calls(), 1, "who is not changed is not called for");
    // It comes back with a new token, a later version, and what it had spent.
    lab.config.accounts.push(accounts[2].clone().into());
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    lab.fleet.token("wx03").await.unwrap();
    let back = lab.fleet.account("wx03").unwrap();
    assert_eq!(back.version, removed.version + 1);
    assert_eq!(back.budget.remaining, removed.budget.remaining - 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn another_upstreams_tokens_are_not_served() {
    let mut lab = Lab::start(Endpoint::StableToken).await;
    let version = lab.token().await.version();
    lab.config.upstream.base_urls = vec!["https://other.test/".parse().unwrap()];
    lab = lab.crash_and_restart().await;
    assert!(lab.view().expires_at.is_none());
    assert_eq!(lab.token().await.version(), version + 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_from_an_upstream_just_left_is_not_served() {
    for endpoint in BOTH {
        let mut lab = Lab::start(endpoint).await;
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 3000 }).times(1));
        sleep(SECOND).await;
        assert_eq!(lab.calls(), 1, "{endpoint:?}: under way");
        lab.config.upstream.base_urls = vec!["https://other.test/".parse().unwrap()];
        lab.fleet.reload(lab.config.clone()).await.unwrap();
        lab.token().await;
        assert_eq!(lab.calls(), 2, "{endpoint:?}: the token served is one of the new upstream");
        assert_eq!(lab.view().consecutive_failures, 0);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_comes_back_during_its_call_has_one_call_under_way() {
    let other = account("wx02", Endpoint::Token);
    let mut lab = Lab::with(vec![account(APPID, Endpoint::Token), other.clone()]).await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 4000 }).times(1));
    sleep(SECOND).await;
    let both = lab.config.clone();
    lab.config.accounts = vec![other.into()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    lab.fleet.reload(both).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(lab.calls(), 1, "the old call is waited for");
    let token = lab.token().await;
    lab.assert_alive(&token);
    assert_eq!(lab.calls(), 2, "and what it brought is not served");
    // It comes back as after a restart: no earlier fault delays it.
    assert_eq!((lab.view().state, lab.view().consecutive_failures), (Phase::Fresh, 0));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_account_that_is_removed_and_corrected_is_tried_at_once() {
    let mut lab = Lab::with(vec![account(APPID, Endpoint::Token), account("wx02", Endpoint::Token)]).await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(40125));
    lab.until("parked", |view| view.state == Phase::Parked).await;
    let both = lab.config.clone();
    lab.config.accounts.remove(0);
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    lab.wechat.clear_faults(Some(&appid()));
    lab.fleet.reload(both).await.unwrap();
    lab.assert_alive(&lab.token().await);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn many_accounts_are_removed_in_few_commits() {
    let accounts: Vec<_> = (0..500).map(|n| account(&format!("wx{n:04}"), Endpoint::StableToken)).collect();
    let mut lab = Lab::tuned(accounts, |upstream| upstream.max_per_second = 100_000).await;
    sleep(60 * SECOND).await;
    let before = lab.disk.commits.load(Ordering::SeqCst);
    lab.config.accounts.truncate(1);
    assert_eq!(lab.fleet.reload(lab.config.clone()).await.unwrap().removed, 499);
    let commits = lab.disk.commits.load(Ordering::SeqCst) - before;
    assert!(commits <= 2, "{commits} commits");
    assert!(lab.disk.record("wx0499").contains(r#""token":null"#));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_no_ended_token_is_served() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        lab.clock.suspend(3 * HOUR);
        // WeChat's own clock stood still here, so `stable_token` may return the same token; what counts is
        // the call.
        lab.token().await;
        assert_eq!(lab.calls(), 2, "{endpoint:?}");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn jumps_of_the_wall_clock_serve_no_dead_token_and_burn_no_budget() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        for n in 0..24 {
            lab.clock.jump_wall(if n % 2 == 0 { 3_600_000 } else { -3_600_000 });
            lab.live_through(HOUR, 20 * SECOND).await;
        }
        assert!(lab.calls() < 60, "{endpoint:?}: {}", lab.calls());
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_the_next_token_or_with_the_wait() {
    let lab = Lab::start(Endpoint::Token).await;
    let version = lab.token().await.version();
    let start = Instant::now();
    assert!(lab.fleet.token_after(APPID, version, 30 * SECOND).await.unwrap().is_none());
    assert_eq!(start.elapsed().as_secs(), 30);
    let next = lab.fleet.token_after(APPID, version, 2 * HOUR).await.unwrap().unwrap();
    assert_eq!(next.version(), version + 1);
    let above = lab.fleet.token_after(APPID, version + 100, HOUR).await.unwrap().unwrap();
    assert_eq!(above.version(), version + 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_yields_each_token() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let mut watch = lab.fleet.watch(APPID).unwrap();
    let first = watch.next().await.unwrap().version();
    for n in 1..5 {
        assert_eq!(watch.next().await.unwrap().version(), first + n);
    }
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_an_account_learns_that_it_is_removed_or_the_fleet_shut_down() {
    let accounts = [account(APPID, Endpoint::Token), account("wx02", Endpoint::Token)];
    let mut lab = Lab::with(accounts.to_vec()).await;
    let version = lab.token().await.version();
    let mut watches = [APPID, "wx02"].map(|appid| lab.fleet.watch(appid).unwrap());
    for watch in &mut watches {
        watch.next().await.unwrap();
    }
    let fleet = lab.fleet.clone();
    let poll = tokio::spawn(async move { fleet.token_after(APPID, version, HOUR).await });
    sleep(SECOND).await;
    lab.config.accounts = vec![accounts[1].clone().into()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert!(watches[0].next().await.is_none());
    assert!(matches!(poll.await.unwrap(), Err(TokenError::UnknownAccount(_))));
    lab.fleet.shutdown().await;
    assert!(watches[1].next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_many_accounts_is_few_commits() {
    let accounts: Vec<_> = (0..1000).map(|n| account(&format!("wx{n:04}"), Endpoint::StableToken)).collect();
    let lab = Lab::tuned(accounts, |upstream| upstream.max_per_second = 100_000).await;
    while lab.fleet.accounts().iter().any(|view| view.state != Phase::Fresh) {
        sleep(SECOND).await;
    }
    // While one commit is written, later ones wait for the next: up to 64 calls are in flight at once.
    let commits = lab.disk.commits.load(Ordering::SeqCst);
    assert!(commits < 200, "{commits} commits for 1000 charges and 1000 tokens");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_a_call_end_and_keeps_its_token() {
    let mut lab = Lab::start(Endpoint::Token).await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 3000 }).times(1));
    sleep(SECOND).await;
    let start = Instant::now();
    let waiting = tokio::spawn({
        let fleet = lab.fleet.clone();
        async move { fleet.token_after(APPID, 0, 60 * SECOND).await }
    });
    tokio::task::yield_now().await;
    lab.fleet.shutdown().await;
    assert!(start.elapsed() < 10 * SECOND);
    assert!(matches!(waiting.await.unwrap(), Err(TokenError::ShuttingDown)));
    lab = lab.crash_and_restart().await;
    lab.assert_alive(&lab.token().await);
    assert_eq!(lab.calls(), 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_call_whose_intent_is_being_written() {
    let mut lab = Lab::start(Endpoint::Token).await;
    while lab.fleet.cells()[0].load().state.activity != Activity::Fetching {
        sleep(SECOND / 1000).await;
    }
    assert_eq!(lab.calls(), 0, "not sent yet");
    lab.fleet.shutdown().await;
    lab = lab.crash_and_restart().await;
    lab.assert_alive(&lab.token().await);
    assert_eq!(lab.calls(), 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_on_token_leaves_the_token_to_its_end_and_costs_no_call() {
    for outage in [Outage::Hang, Outage::Refuse, Outage::Status(502)] {
        let lab = Lab::start(Endpoint::Token).await;
        let token = lab.token().await;
        lab.live_through(HOUR, 60 * SECOND).await;
        lab.wechat.set_outage(Some(outage));
        let calls = lab.calls();
        // The refresh falls due within this time, and the token lives for a minute after it.
        lab.live_through(HOUR - 60 * SECOND, 10 * SECOND).await;
        assert_eq!(lab.token().await.access_token(), token.access_token(), "{outage:?}");
        lab.wechat.set_outage(None);
        lab.until("fresh", |view| view.state == Phase::Fresh).await;
        assert_eq!(lab.calls(), calls + 1, "{outage:?}");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_second_host_is_charged_too_and_one_that_was_not_needed_is_given_back() {
    for (fault, calls) in [(Some(FaultKind::Hang), 2), (None, 1)] {
        let two = ["https://a.test/", "https://b.test/"].map(|url| url.parse().unwrap());
        let accounts = vec![account(APPID, Endpoint::StableToken)];
        let lab = Lab::tuned(accounts, |upstream| upstream.base_urls = two.to_vec()).await;
        if let Some(kind) = fault {
            lab.wechat.inject(Some(&appid()), Fault::new(kind).on(Call::StableToken).times(1));
        }
        lab.assert_alive(&lab.token().await);
        assert_eq!((lab.calls(), u64::from(lab.view().budget.remaining)), (calls, 1000 - calls));
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retired_access_point_costs_a_call_of_the_budget_and_neither_time_nor_the_token() {
    for endpoint in BOTH {
        let lab = Lab::tuned(vec![account(APPID, endpoint)], |upstream| {
            upstream.base_urls =
                ["https://a.test/", "https://b.test/"].map(|url| reqwest::Url::parse(url).unwrap()).to_vec();
        })
        .await;
        let first = lab.token().await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(410).times(1));
        lab.until("refreshed", |view| view.version > first.version()).await;
        lab.assert_alive(&lab.token().await);
        let view = lab.view();
        assert_eq!((view.consecutive_failures, lab.calls()), (0, 3), "{endpoint:?}");
        assert_eq!(
            view.budget.remaining, 998,
            "{endpoint:?}: of a burst of 1000, full again since the first call"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_account_that_a_reader_waits_for_goes_first_at_a_cold_start() {
    let accounts: Vec<_> = (0..1000).map(|n| account(&format!("wx{n:04}"), Endpoint::StableToken)).collect();
    let lab = Lab::tuned(accounts, |upstream| upstream.max_per_second = 10).await;
    sleep(SECOND).await;
    // Its turn would come after 100 s, and a reader waits for 6 s.
    for appid in ["wx0999", "wx0500"] {
        let start = Instant::now();
        lab.fleet.token(appid).await.unwrap();
        assert!(start.elapsed() < SECOND, "{appid}: {:?}", start.elapsed());
    }
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_that_waits_for_a_slot_keeps_its_turn_when_a_reader_comes() {
    let accounts = ["wx01", "wx02", "wx03"].map(|appid| account(appid, Endpoint::Token)).to_vec();
    let lab = Lab::tuned(accounts, |upstream| upstream.max_in_flight = 1).await;
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 2000 }));
    // The first is being called, the second waits for a slot, the third in the call queue.
    sleep(SECOND).await;
    let mut readers = JoinSet::new();
    for appid in ["wx03", "wx02"] {
        let fleet = lab.fleet.clone();
        readers.spawn(async move { fleet.token(appid).await.map(|_| appid) });
        sleep(SECOND / 10).await;
    }
    assert_eq!(readers.join_next().await.unwrap().unwrap().unwrap(), "wx02");
    assert_eq!(readers.join_next().await.unwrap().unwrap().unwrap(), "wx03");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_is_turned_away_leaves_nobody_ahead_of_those_who_wait() {
    let accounts: Vec<_> = (0..400).map(|n| account(&format!("wx{n:04}"), Endpoint::StableToken)).collect();
    let lab = Lab::tuned(accounts, |upstream| upstream.max_per_second = 10).await;
    lab.wechat.set_outage(Some(Outage::Refuse));
    sleep(60 * SECOND).await;
    for number in 0..400 {
        lab.fleet.token(format!("wx{number:04}")).await.unwrap_err();
    }
    lab.wechat.set_outage(None);
    // A probe finds WeChat back; then the call queue is 40 s long.
    sleep(3 * SECOND).await;
    let start = Instant::now();
    lab.fleet.token("wx0399").await.unwrap();
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn accounts_that_began_together_do_not_refresh_together_again() {
    let appids: Vec<_> = (0..1200).map(|n| format!("wx{n:04}")).collect();
    let accounts = appids.iter().map(|appid| account(appid, Endpoint::Token)).collect();
    let lab = Lab::tuned(accounts, |upstream| upstream.max_per_second = 100).await;
    sleep(15 * SECOND).await;
    let (mut in_the_usual_time, mut earlier) = (0, 0);
    for appid in &appids {
        let view = lab.fleet.account(appid).unwrap();
        let wait = view.next_refresh_at.unwrap().duration_since(view.issued_at.unwrap());
        match wait.as_secs() {
            5400 => in_the_usual_time += 1,
            3150 => earlier += 1,
            other => panic!("{other} s"),
        }
    }
    // Those with at least a thousand waiting after them; the very first may have come before the others.
    assert!((195..=200).contains(&earlier), "{earlier}");
    assert_eq!(in_the_usual_time + earlier, appids.len());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_charge_is_on_disk_before_there_is_room_for_the_call_and_an_intent_only_then() {
    for endpoint in BOTH {
        let accounts = vec![account(APPID, Endpoint::StableToken), account("wx02", endpoint)];
        let lab = Lab::tuned(accounts, |upstream| upstream.max_in_flight = 1).await;
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).times(1));
        sleep(2 * SECOND).await;
        let (first, second) = (lab.disk.record(APPID), lab.disk.record("wx02"));
        assert!(!first.is_empty(), "its call is under way");
        assert_eq!(second.is_empty(), endpoint == Endpoint::Token, "{endpoint:?}: {second}");
        lab.assert_alive(&lab.fleet.token("wx02").await.unwrap());
        assert_eq!(lab.fleet.account("wx02").unwrap().budget.remaining, 999, "{endpoint:?}: charged once");
        lab.fleet.shutdown().await;
    }
}
