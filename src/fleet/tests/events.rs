//! The events of a fleet.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use wxtokend_core::account::Endpoint;
use wxtokend_sandbox::{Call, Fault, Outage};

use super::lab::{APPID, Lab, account, appid};
use super::{BOTH, HOUR, SECOND};
use crate::fleet::{EventView, Fleet, Follow};

fn as_json(event: &EventView) -> Value {
    serde_json::to_value(event).unwrap()
}

/// The account's history, oldest first.
fn history(fleet: &Fleet) -> Vec<Value> {
    fleet.history(APPID, 1000).unwrap().iter().rev().map(as_json).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// All events that are available now.
async fn drain(follow: &mut Follow) -> Vec<Value> {
    let mut all = Vec::new();
    while let Ok(batch) = tokio::time::timeout(Duration::from_millis(1), follow.next()).await {
        if batch.missed {
            all.push(json!({"event": "missed"}));
        }
        all.extend(batch.events.iter().map(|event| as_json(&EventView::of(event))));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_refresh_come_in_the_order_in_which_they_happen() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let first = lab.token().await;
        let mut follow = lab.fleet.follow(None);
        lab.until("a new token", |view| view.version > first.version()).await;
        let events = drain(&mut follow).await;
        assert_eq!(names(&events), ["state", "state", "token"], "{endpoint:?}: {events:#?}");
        assert_eq!((&events[0]["was"], &events[0]["state"]), (&json!("fresh"), &json!("refreshing")));
        assert_eq!((&events[1]["was"], &events[1]["state"]), (&json!("refreshing"), &json!("fresh")));
        let view = serde_json::to_value(lab.view()).unwrap();
        for field in ["appid", "version", "issued_at", "expires_at", "next_refresh_at"] {
            assert_eq!(events[2][field], view[field], "{field}: {events:#?}");
        }
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_is_an_event_though_nothing_else_happens_then() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        // The host is down, so no call is made until it is back.
        lab.wechat.set_outage(Some(Outage::Refuse));
        let mut follow = lab.fleet.follow(None);
        sleep(4 * HOUR).await;
        let events = drain(&mut follow).await;
        let end = events.iter().find(|event| event["state"] == "unavailable").expect("its end");
        assert_eq!((&end["event"], &end["was"]), (&json!("state"), &json!("degraded")));
        assert!(end["last_fault"]["message"].is_string() && end["consecutive_failures"].as_u64() > Some(0));
        let at: jiff::Timestamp = end["at"].as_str().unwrap().parse().unwrap();
        let last_token = history(&lab.fleet).into_iter().rfind(|event| event["event"] == "token").unwrap();
        let expires_at: jiff::Timestamp = last_token["expires_at"].as_str().unwrap().parse().unwrap();
        let early = expires_at.duration_since(at).as_secs_f64();
        assert!((0.9..=1.1).contains(&early), "{endpoint:?}: told {early} s before its expiry");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_goes_down_and_recovers_is_an_event_for_all() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    let is_up = json!({"host": "wechat.test", "up": true, "down_since": null, "reason": null});
    assert_eq!(serde_json::to_value(lab.fleet.hosts()).unwrap(), json!([is_up]));
    let mut follow = lab.fleet.follow(None);
    lab.wechat.set_outage(Some(Outage::Refuse));
    sleep(4 * HOUR).await;
    let hosts = async |follow: &mut Follow| {
        let events = drain(follow).await;
        events.into_iter().filter(|event| event["event"] == "host").collect::<Vec<_>>()
    };
    let down = hosts(&mut follow).await;
    assert_eq!(down.len(), 1, "{down:#?}");
    assert_eq!((&down[0]["host"], &down[0]["up"]), (&json!("wechat.test"), &json!(false)));
    assert_eq!(down[0]["down_since"], down[0]["at"]);
    assert!(down[0]["reason"].as_str().unwrap().contains("refused"), "{down:#?}");
    assert!(down[0].get("appid").is_none());
    let known = serde_json::to_value(lab.fleet.hosts()).unwrap();
    for field in ["host", "up", "down_since", "reason"] {
        assert_eq!(known[0][field], down[0][field], "{field}");
    }
    lab.wechat.set_outage(None);
    sleep(10 * SECOND).await;
    let up = hosts(&mut follow).await;
    assert_eq!(up.len(), 1, "{up:#?}");
    assert_eq!(json!([up[0]["up"], up[0]["down_since"], up[0]["reason"]]), json!([true, null, null]));
    assert!(history(&lab.fleet).iter().all(|event| event["event"] != "host"), "it is nobody's own");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_fails_and_one_that_works_again_are_events() {
    let mut kept = account(APPID, Endpoint::StableToken);
    kept.settings.tickets = [wxtokend_core::ticket::TicketKind::Jsapi].into_iter().collect();
    let lab = Lab::with(vec![kept]).await;
    lab.until("a ticket", |view| view.tickets[0].version > 0).await;
    let mut follow = lab.fleet.follow(None);
    lab.wechat.inject(Some(&appid()), Fault::errcode(48001).on(Call::Ticket));
    lab.until("in trouble", |view| view.tickets[0].last_fault.is_some()).await;
    let failed = drain(&mut follow).await;
    let fault = failed.iter().find(|event| event["event"] == "ticket_fault").expect("its failure");
    assert_eq!(json!([fault["appid"], fault["type"], fault["errcode"]]), json!([APPID, "jsapi", 48001]));
    lab.wechat.clear_faults(Some(&appid()));
    lab.until("well again", |view| view.tickets[0].last_fault.is_none()).await;
    let recovered = drain(&mut follow).await;
    let is_good = |event: &&Value| {
        ["ticket", "ticket_unchanged"].contains(&event["event"].as_str().unwrap()) && event["type"] == "jsapi"
    };
    let good = recovered.iter().find(is_good).expect("its recovery");
    assert_eq!(good["version"], lab.view().tickets[0].version);
    // A call that changes nothing is no event.
    sleep(HOUR).await;
    assert!(names(&drain(&mut follow).await).iter().all(|name| *name != "ticket_unchanged"));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_a_parked_account_is_an_event_and_kept() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(40164));
    let mut follow = lab.fleet.follow(None);
    lab.until("parked for a while", |view| view.consecutive_failures == 3).await;
    let events = drain(&mut follow).await;
    let mut failures: Vec<_> =
        events.iter().filter_map(|event| event["consecutive_failures"].as_u64()).collect();
    failures.dedup();
    assert_eq!(failures, [0, 1, 2, 3], "{events:#?}");
    let past = history(&lab.fleet);
    let faults: Vec<_> = past.iter().filter(|event| event["event"] == "fault").collect();
    assert_eq!(faults.len(), 3, "{past:#?}");
    assert_eq!((&faults[0]["kind"], &faults[0]["errcode"]), (&json!("parked"), &json!(40164)));
    assert!(faults[0]["advice"].as_str().unwrap().contains("whitelist"), "{past:#?}");
    assert!(past.iter().any(|event| event["event"] == "state" && event["state"] == "parked"));
    assert!(past.iter().all(|event| event["state"] != "refreshing"), "that is no history: {past:#?}");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_history_shows_who_reported_a_token_and_the_outcome() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let dead = lab.token().await;
    lab.wechat.kill_tokens(&appid());
    for _ in 0..3 {
        lab.fleet.reject_for(Some("crm"), APPID, dead.access_token()).await.unwrap();
    }
    lab.fleet.reject_for(Some("shop"), APPID, dead.access_token()).await.unwrap();
    lab.fleet.reject(APPID, "an older one").await.unwrap();
    lab.fleet.refresh_for(Some("ops"), APPID, true).await.unwrap();
    let past = history(&lab.fleet);
    let reports = past.iter().filter(|event| event["event"] == "rejection");
    let reports: Vec<_> =
        reports.map(|event| json!([event["by"], event["outcome"], event["times"]])).collect();
    assert_eq!(
        reports,
        [
            json!(["crm", "refreshed", 1]),
            json!(["crm", "superseded", 2]),
            json!(["shop", "superseded", 1]),
            json!([null, "superseded", 1]),
        ],
        "{past:#?}"
    );
    let checks: Vec<_> = past.iter().filter(|event| event["event"] == "check").collect();
    assert_eq!((checks.len(), &checks[0]["told"]), (1, &json!("refused")));
    let request = past.iter().find(|event| event["event"] == "refresh").expect("the request");
    assert_eq!(json!([request["by"], request["force"]]), json!(["ops", true]));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hammers_an_account_displaces_no_other_accounts_history() {
    let lab =
        Lab::with(vec![account(APPID, Endpoint::StableToken), account("wx02", Endpoint::StableToken)]).await;
    lab.fleet.token("wx02").await.unwrap();
    lab.token().await;
    let clients: Vec<_> = (0..100).map(|n| format!("client {n}")).collect();
    for by in clients.iter().cycle().take(70_000) {
        lab.fleet.reject_for(Some(by), APPID, "an older one").await.unwrap();
    }
    for _ in 0..1000 {
        lab.fleet.refresh_for(Some("ops"), APPID, true).await.unwrap();
    }
    assert!(lab.fleet.history("wx02", 10).unwrap().iter().any(|event| event.event == "token"));
    let times: u64 = history(&lab.fleet).iter().filter_map(|event| event["times"].as_u64()).sum();
    assert_eq!(times, 71_000);
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reconnects_resumes_after_its_last_event() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    let mut follow = lab.fleet.follow(None);
    let before = follow.id_of_place();
    lab.fleet.refresh(APPID, true).await.unwrap();
    let batch = follow.next().await;
    let all = {
        let mut all: Vec<_> = batch.events.iter().map(|event| as_json(&EventView::of(event))).collect();
        all.extend(drain(&mut follow).await);
        all
    };
    assert!(all.len() >= 3, "{all:#?}");
    assert_eq!(drain(&mut lab.fleet.follow(Some(&before))).await, all);
    let first = follow.id(&batch.events[0]);
    assert_eq!(drain(&mut lab.fleet.follow(Some(&first))).await, all[1..]);
    assert_eq!(drain(&mut lab.fleet.follow(Some(&follow.id_of_place()))).await, Vec::<Value>::new());
    let (epoch, _) = before.split_once('-').unwrap();
    for foreign in
        ["", "1", "-", "0-1", &format!("{epoch}-99999999"), &format!("{epoch}-{}", u64::MAX), "é-1"]
    {
        let events = drain(&mut lab.fleet.follow(Some(foreign))).await;
        assert_eq!(events, [json!({"event": "missed"})], "{foreign:?} is no event of this process");
    }
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_behind_is_notified_once_and_continues() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    let mut slow = lab.fleet.follow(None);
    for _ in 0..65_536 + 10 {
        lab.fleet.note_reload(false);
    }
    let events = drain(&mut slow).await;
    assert_eq!((events.len(), &events[0]), (65_537, &json!({"event": "missed"})));
    assert_eq!(lab.fleet.history(APPID, 10).unwrap().len(), 0, "its past is out of the ring");
    lab.fleet.refresh(APPID, true).await.unwrap();
    assert!(!lab.fleet.history(APPID, 10).unwrap().is_empty());
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_an_event_that_says_whether_it_succeeded() {
    let lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    let mut follow = lab.fleet.follow(None);
    lab.fleet.note_reload(false);
    let mut config = lab.config.clone();
    let renamed =
        wxtokend_core::account::Account { name: "New".to_owned(), ..account(APPID, Endpoint::StableToken) };
    config.accounts = vec![renamed.into()];
    lab.fleet.reload(config).await.unwrap();
    sleep(SECOND).await;
    let before = drain(&mut follow).await;
    let reloads_so_far = names(&before).iter().filter(|name| **name == "reload").count();
    assert_eq!(reloads_so_far, 1, "clients are exchanged after the accounts, and only then it is told");
    lab.fleet.note_reload(true);
    let events = [before, drain(&mut follow).await].concat();
    let reloads: Vec<_> = events.iter().filter(|event| event["event"] == "reload").collect();
    assert_eq!(reloads.iter().map(|event| &event["successful"]).collect::<Vec<_>>(), [false, true]);
    assert!(reloads.iter().all(|event| event["at"].is_string() && event.get("appid").is_none()));
    assert_eq!(names(&history(&lab.fleet)).last(), Some(&"configured"));
    lab.fleet.shutdown().await;
}
