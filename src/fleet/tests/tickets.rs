//! Tickets, next to the tokens that they are fetched with.

use std::sync::atomic::Ordering;

use wxtokend_core::account::Account;
use wxtokend_core::ticket::Credential;
use wxtokend_core::ticket::TicketKind::{self, Jsapi, WxCard};
use wxtokend_sandbox::Switches;

use super::*;
use crate::fleet::actor::supervisor::crash_for_tests::CrashTicket;
use crate::fleet::{TicketError, TicketView};

fn with_tickets(endpoint: Endpoint, kinds: &[TicketKind]) -> Account {
    account(APPID, endpoint).with(|settings| settings.tickets = kinds.iter().copied().collect())
}

async fn lab() -> Lab {
    Lab::with(vec![with_tickets(Endpoint::StableToken, &[Jsapi])]).await
}

fn jsapi(lab: &Lab) -> TicketView {
    lab.view().tickets.into_iter().find(|ticket| ticket.kind == Jsapi).unwrap()
}

async fn until(lab: &Lab, what: &str, so: impl Fn(&TicketView) -> bool) {
    lab.until(what, |view| view.tickets.iter().any(&so)).await;
}

#[tokio::test(start_paused = true)]
async fn tickets_are_kept_through_several_lifetimes_and_none_is_handed_out_dead() {
    for endpoint in BOTH {
        let lab = Lab::with(vec![with_tickets(endpoint, &[Jsapi, WxCard])]).await;
        let first = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
        let card = lab.fleet.ticket(APPID, WxCard).await.unwrap();
        assert_ne!(first.value(), card.value());
        let (mut served, mut dead) = (0, 0);
        for _ in 0..24 * 360 {
            sleep(10 * SECOND).await;
            for kind in [Jsapi, WxCard] {
                let ticket = lab.fleet.ticket(APPID, kind).await.unwrap();
                served += 1;
                dead += u32::from(!lab.wechat.is_ticket_alive(&appid(), ticket.value()));
            }
        }
        // The first ticket of a kind may be much older, since another program made it, and is refreshed every
        // few minutes.
        assert!(dead <= 2 * 30, "{dead} of {served} were dead");
        let counters = lab.counters();
        assert!((24..=26).contains(&counters.ticket_mints), "{counters:?}");
        assert!(counters.ticket_calls <= 200, "{counters:?}");
        let last = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
        assert_eq!(last.version(), first.version() + counters.ticket_mints / 2 - 1);
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_readers_of_a_cold_ticket_cause_one_call_for_it_and_one_for_the_token() {
    let lab = lab().await;
    let mut readers = JoinSet::new();
    for _ in 0..200 {
        let fleet = lab.fleet.clone();
        readers.spawn(async move { fleet.ticket(APPID, Jsapi).await.unwrap().value().to_owned() });
    }
    let tickets = readers.join_all().await;
    assert!(tickets.iter().all(|ticket| *ticket == tickets[0]));
    assert_eq!((lab.calls(), lab.counters().ticket_calls), (1, 1));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_outlives_a_restart_with_the_age_that_it_has_and_without_a_call() {
    let lab = lab().await;
    let before = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert!(lab.disk.ticket_record(APPID, Jsapi).contains(before.value()), "served, and not on disk");
    sleep(100 * SECOND).await;
    let calls = lab.counters().ticket_calls;
    let lab = lab.crash_and_restart().await;
    let after = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert_eq!((after.value(), after.version()), (before.value(), before.version()));
    assert_eq!(after.expires_at(), before.expires_at());
    assert_eq!(lab.counters().ticket_calls, calls);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_charged_stands_on_disk_before_the_call() {
    let lab = lab().await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Ticket));
    until(&lab, "asked for", |ticket| ticket.budget.remaining == 999).await;
    while lab.counters().ticket_calls == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(lab.disk.ticket_record(APPID, Jsapi).contains(r#""main":{"#), "it is under way, and written");
    let lab = lab.crash_and_restart().await;
    until(&lab, "asked for again", |ticket| ticket.budget.remaining == 998).await;
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_wechat_denies_is_parked_and_the_account_is_not() {
    let lab = lab().await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(48001).on(Call::Ticket));
    let refused = lab.fleet.ticket(APPID, Jsapi).await.unwrap_err();
    let TicketError::Unavailable(why) = refused else { panic!("{refused}") };
    assert_eq!((why.state, why.last_fault.unwrap().errcode), (Phase::Parked, Some(48001)));
    assert_eq!(lab.view().state, Phase::Fresh);
    lab.wechat.clear_faults(Some(&appid()));
    until(&lab, "there", |ticket| ticket.state == Phase::Fresh).await;
    assert!(jsapi(&lab).last_fault.is_none());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_hangs_delays_neither_token_nor_other_tickets() {
    let lab = Lab::with(vec![with_tickets(Endpoint::Token, &[Jsapi, WxCard])]).await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Ticket).times(1));
    let start = Instant::now();
    lab.token().await;
    let first = tokio::select! {
        ticket = lab.fleet.ticket(APPID, Jsapi) => ticket,
        ticket = lab.fleet.ticket(APPID, WxCard) => ticket,
    };
    first.unwrap();
    assert!(start.elapsed() < SECOND);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_over_a_ticket_is_checked_and_replaced() {
    let lab = lab().await;
    let old = lab.token().await;
    lab.wechat.kill_tokens(&appid());
    let ticket = lab.fleet.ticket(APPID, Jsapi).await;
    until(&lab, "there", |ticket| ticket.state == Phase::Fresh).await;
    assert!(lab.wechat.is_ticket_alive(&appid(), lab.fleet.ticket(APPID, Jsapi).await.unwrap().value()));
    assert_eq!((lab.counters().checks, lab.token().await.version()), (1, old.version() + 1), "{ticket:?}");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_token_a_ticket_waits_and_shows_why() {
    let lab = lab().await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(40164));
    let refused = lab.fleet.ticket(APPID, Jsapi).await.unwrap_err();
    let TicketError::Unavailable(why) = refused else { panic!("{refused}") };
    assert_eq!(why.last_fault.unwrap().errcode, Some(40164));
    assert_eq!((jsapi(&lab).state, lab.counters().ticket_calls), (Phase::Starting, 0));
    lab.wechat.clear_faults(Some(&appid()));
    until(&lab, "there", |ticket| ticket.state == Phase::Fresh).await;
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_lives_through_an_outage_and_is_there_again_after_a_longer_one() {
    let lab = lab().await;
    let before = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    lab.wechat.set_outage(Some(Outage::Refuse));
    sleep(HOUR).await;
    assert_eq!(lab.fleet.ticket(APPID, Jsapi).await.unwrap().value(), before.value());
    sleep(2 * HOUR).await;
    assert!(lab.fleet.ticket(APPID, Jsapi).await.is_err());
    lab.wechat.set_outage(None);
    let back = Instant::now();
    until(&lab, "there", |ticket| ticket.state == Phase::Fresh).await;
    assert!(back.elapsed() < 90 * SECOND, "{:?}", back.elapsed());
    let after = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert!(lab.wechat.is_ticket_alive(&appid(), after.value()));
    assert_eq!(after.version(), before.version() + 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_actor_is_restarted_and_its_ticket_served_meanwhile() {
    let lab = lab().await;
    let before = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    let crash = CrashTicket(Credential::ticket(appid(), Jsapi));
    lab.fleet.inner.supervisor.tell(crash).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(lab.fleet.ticket(APPID, Jsapi).await.unwrap().value(), before.value());
    let calls = lab.counters().ticket_calls;
    sleep(3 * HOUR).await;
    assert!(lab.counters().ticket_calls > calls);
    assert!(lab.wechat.is_ticket_alive(&appid(), lab.fleet.ticket(APPID, Jsapi).await.unwrap().value()));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_begins_and_ends_the_keeping_of_tickets() {
    let mut lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    assert!(matches!(lab.fleet.ticket(APPID, Jsapi).await, Err(TicketError::NotKept(Jsapi))));
    assert!(matches!(lab.fleet.ticket("wx99", Jsapi).await, Err(TicketError::UnknownAccount(_))));
    let keep = async |lab: &mut Lab, kinds: &[TicketKind]| {
        lab.config.accounts = vec![with_tickets(Endpoint::StableToken, kinds).into()];
        lab.fleet.reload(lab.config.clone()).await.unwrap();
    };
    keep(&mut lab, &[Jsapi, WxCard]).await;
    let first = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    lab.fleet.ticket(APPID, WxCard).await.unwrap();
    keep(&mut lab, &[WxCard]).await;
    keep(&mut lab, &[Jsapi, WxCard]).await;
    until(&lab, "there", |ticket| ticket.kind == Jsapi && ticket.state == Phase::Fresh).await;
    assert_eq!(jsapi(&lab).budget.remaining, 998, "what was spent is not forgotten");
    keep(&mut lab, &[WxCard]).await;
    assert!(matches!(lab.fleet.ticket(APPID, Jsapi).await, Err(TicketError::NotKept(Jsapi))));
    let calls = lab.counters().ticket_calls;
    sleep(10 * 60 * SECOND).await;
    assert!(lab.counters().ticket_calls - calls <= 4, "one of the two is polled");
    // The ticket is erased, its version is kept.
    assert!(!lab.disk.ticket_record(APPID, Jsapi).contains(first.value()));
    keep(&mut lab, &[Jsapi]).await;
    let again = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert_eq!(again.version(), first.version() + 2);
    lab.config.accounts = vec![account("wx02", Endpoint::StableToken).into()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert!(!lab.disk.ticket_record(APPID, Jsapi).contains(again.value()));
    lab.fleet.shutdown().await;
}

/// Makes the account's actor wait for a disk that does not answer, until it gives up.
async fn hang_its_actor(lab: &Lab) {
    let (token, fleet) = (lab.token().await, lab.fleet.clone());
    lab.disk.cut_after(1);
    tokio::spawn(async move { fleet.reject(APPID, token.access_token()).await });
    lab.disk.until_cut().await;
}

#[tokio::test(start_paused = true)]
async fn of_reloads_that_follow_fast_on_each_other_the_last_one_counts() {
    let mut lab = lab().await;
    lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    hang_its_actor(&lab).await;
    for name in ["Flower Shop", APPID] {
        let account = with_tickets(Endpoint::StableToken, &[Jsapi]);
        lab.config.accounts = vec![Account { name: name.to_owned(), ..account }.into()];
        assert_eq!(lab.fleet.reload(lab.config.clone()).await.unwrap().changed, 1);
    }
    sleep(60 * SECOND).await;
    assert_eq!(lab.view().name, APPID);
}

#[tokio::test(start_paused = true)]
async fn a_raised_budget_counts_at_once_though_the_accounts_actor_is_late() {
    let with_budget = |daily_budget| {
        let account = with_tickets(Endpoint::StableToken, &[Jsapi]);
        account.with(|settings| settings.daily_budget = daily_budget)
    };
    let mut lab = Lab::with(vec![with_budget(4)]).await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(-1).on(Call::Ticket));
    until(&lab, "spent", |ticket| ticket.budget.remaining == 0 && ticket.consecutive_failures == 3).await;
    lab.wechat.clear_faults(Some(&appid()));
    hang_its_actor(&lab).await;
    lab.config.accounts = vec![with_budget(2000).into()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    // The same share of the larger budget is spent, and some of it is back within 2 min.
    sleep(300 * SECOND).await;
    assert_eq!(jsapi(&lab).consecutive_failures, 5, "tried once more");
}

#[tokio::test(start_paused = true)]
async fn tickets_that_are_not_kept_any_more_are_erased_in_one_go() {
    let accounts = |kinds: &[TicketKind]| -> Vec<_> {
        let of = |n| {
            account(n, Endpoint::StableToken)
                .with(|settings| settings.tickets = kinds.iter().copied().collect())
        };
        ["wx01", "wx02", "wx03", "wx04", "wx05", "wx06", "wx07", "wx08"].map(of).into()
    };
    let mut lab = Lab::with(accounts(&[Jsapi, WxCard])).await;
    for account in &lab.config.accounts {
        lab.fleet.ticket(&account.appid, Jsapi).await.unwrap();
        lab.fleet.ticket(&account.appid, WxCard).await.unwrap();
    }
    sleep(SECOND).await;
    let commits = lab.disk.commits.load(Ordering::SeqCst);
    lab.config.accounts = accounts(&[WxCard]).into_iter().map(Into::into).collect();
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert_eq!(lab.disk.commits.load(Ordering::SeqCst), commits + 1);
    assert!(lab.disk.ticket_record("wx08", Jsapi).contains(r#""ticket":null"#));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_not_kept_after_a_restart_is_erased() {
    let mut lab = lab().await;
    let ticket = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert!(lab.disk.ticket_record(APPID, Jsapi).contains(ticket.value()));
    lab.config.accounts = vec![account(APPID, Endpoint::StableToken).into()];
    let lab = lab.crash_and_restart().await;
    assert!(!lab.disk.ticket_record(APPID, Jsapi).contains(ticket.value()));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn another_upstreams_ticket_is_not_served() {
    let mut lab = lab().await;
    let old = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    lab.config.upstream.base_urls = vec!["https://elsewhere.test/".parse().unwrap()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    let calls = lab.counters().ticket_calls;
    let new = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    assert_eq!((new.version(), lab.counters().ticket_calls), (old.version() + 1, calls + 1));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_reach_a_crashing_actor_are_its_successors() {
    let mut lab = lab().await;
    let (token, ticket) = (lab.token().await, lab.fleet.ticket(APPID, Jsapi).await.unwrap());
    lab.config.upstream.base_urls = vec!["https://elsewhere.test/".parse().unwrap()];
    lab.config.accounts =
        vec![Account { name: "New".to_owned(), ..with_tickets(Endpoint::StableToken, &[Jsapi]) }.into()];
    // These messages precede the reload; the actors' ends are not known yet.
    let crash = CrashTicket(Credential::ticket(appid(), Jsapi));
    lab.fleet.inner.supervisor.tell(crash).try_send().unwrap();
    assert!(lab.fleet.cells()[0].mailbox().unwrap().tell(Notice::Crash));
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(lab.view().name, "New");
    assert_eq!(lab.token().await.version(), token.version() + 1);
    assert_eq!(lab.fleet.ticket(APPID, Jsapi).await.unwrap().version(), ticket.version() + 1);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_is_signed_with_the_ticket() {
    let lab = lab().await;
    let config = lab.fleet.js_config(APPID, "https://shop.example.com/?a=1#top").await.unwrap();
    let ticket = lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    let nonce = config.nonce_str.clone();
    let url = "https://shop.example.com/?a=1";
    let same = crate::JsConfig::new(appid(), &ticket, url, nonce, config.timestamp);
    assert_eq!(config, same);
    assert_eq!((config.app_id.as_str(), config.nonce_str.len()), (APPID, 16));
    let other = lab.fleet.js_config(APPID, url).await.unwrap();
    assert_ne!(other.nonce_str, config.nonce_str);
    lab.fleet.shutdown().await;
    assert!(matches!(lab.fleet.js_config(APPID, url).await, Ok(_) | Err(TicketError::ShuttingDown)));
}

#[tokio::test(start_paused = true)]
async fn an_account_is_found_by_its_token_while_wechat_honours_it() {
    let lab = lab().await;
    let first = lab.token().await;
    let holder = |token: &str| lab.fleet.holder(token).map(|appid| appid.as_str().to_owned());
    assert_eq!(holder(first.access_token()).as_deref(), Some(APPID));
    assert_eq!(holder("nobody's"), None);
    lab.until("refreshed", |view| view.version > first.version()).await;
    let second = lab.token().await;
    assert!(holder(first.access_token()).is_some() && holder(second.access_token()).is_some());
    sleep(300 * SECOND).await;
    assert!(holder(first.access_token()).is_none() && holder(second.access_token()).is_some());
    lab.wechat.kill_tokens(&appid());
    lab.wechat.inject(Some(&appid()), Fault::errcode(-1).on(Call::StableToken));
    let _ = lab.fleet.reject(APPID, second.access_token()).await;
    assert!(holder(second.access_token()).is_none(), "found dead");
    let lab = lab.crash_and_restart().await;
    assert!(lab.fleet.holder(second.access_token()).is_none());
    lab.wechat.clear_faults(Some(&appid()));
    lab.until("fresh", |view| view.state == Phase::Fresh).await;
    let third = lab.token().await;
    let lab = lab.crash_and_restart().await;
    assert!(lab.fleet.holder(third.access_token()).is_some(), "known from the store");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_wechat_leaves_unchanged_beyond_its_lifetime_is_served_without_a_gap_and_not_hammered()
{
    for tickets_outlive in [HOUR, 3 * HOUR] {
        let lab = lab().await;
        lab.wechat.set_switches(Switches { tickets_outlive, ..Switches::default() });
        let (mut dead, mut missing) = (0_u64, 0);
        for _ in 0..24 * 360 {
            sleep(10 * SECOND).await;
            match tokio::time::timeout(SECOND, lab.fleet.ticket(APPID, Jsapi)).await {
                Ok(Ok(ticket)) => dead += u64::from(!lab.wechat.is_ticket_alive(&appid(), ticket.value())),
                _ => missing += 1,
            }
        }
        let counters = lab.counters();
        let seen = format!("{tickets_outlive:?}: {dead} dead, {missing} missing, {counters:?}");
        // Each successor is seen at the next refresh, every few minutes at most.
        assert!(missing == 0 && dead <= 30 * counters.ticket_mints, "{seen}");
        assert!(counters.ticket_calls <= 400, "{seen}");
        lab.fleet.shutdown().await;
    }
}
