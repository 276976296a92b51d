//! What only a program sees that embeds the library.

use std::cell::Cell;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use wxtokend_core::account::Endpoint;
use wxtokend_sandbox::{Fault, FaultKind};

use super::lab::{APPID, Lab, account, appid};
use super::{BOTH, SECOND};
use crate::config::UpstreamConfig;
use crate::fleet::{EventDetails, Fleet, Reloaded, StartError, Store, TokenError};
use crate::store::StoreError;

fn errcode(answer: &Value) -> Option<i64> {
    answer["errcode"].as_i64()
}

/// Calls WeChat by the fleet's helper; returns the answer and how often it was called.
async fn call(lab: &Lab, answer: impl Fn(bool) -> Value) -> (Value, u32) {
    let calls = Cell::new(0);
    let send = |token: crate::Token| {
        calls.set(calls.get() + 1);
        let answer = answer(lab.wechat.is_alive(token.access_token()));
        async { Ok::<_, TokenError>(answer) }
    };
    let answer = lab.fleet.call(APPID, send, errcode).await.unwrap();
    (answer, calls.get())
}

#[tokio::test(start_paused = true)]
async fn a_call_is_repeated_once_if_its_token_is_dead_and_never_otherwise() {
    let answer = |alive| json!({ "errcode": if alive { 0 } else { 40001 } });
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        assert_eq!(call(&lab, answer).await, (json!({"errcode": 0}), 1), "{endpoint:?}: alive");
        lab.wechat.kill_tokens(&appid());
        assert_eq!(call(&lab, answer).await, (json!({"errcode": 0}), 2), "{endpoint:?}: dead");
        let other = call(&lab, |_| json!({"errcode": 45009})).await;
        assert_eq!(other, (json!({"errcode": 45009}), 1), "{endpoint:?}: another error");
        // The cause is not the token: WeChat honours it.
        let refused = call(&lab, |_| json!({"errcode": 40001})).await;
        assert_eq!(refused, (json!({"errcode": 40001}), 1), "{endpoint:?}: refused, and alive");
        let bare = call(&lab, |_| json!({"openid": "o1"})).await;
        assert_eq!(bare, (json!({"openid": "o1"}), 1), "{endpoint:?}: no errcode");
        lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_is_not_repeated_and_its_error_is_kept() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let calls = Cell::new(0);
    let send = |_| {
        calls.set(calls.get() + 1);
        async { Err::<Value, _>(Box::<dyn Error + Send + Sync>::from("no network")) }
    };
    let error = lab.fleet.call(APPID, send, errcode).await.unwrap_err();
    assert_eq!(error.to_string(), "no network");
    assert_eq!(calls.get(), 1);
    let nobody = lab.fleet.call("wx99", send, errcode).await.unwrap_err();
    assert!(matches!(nobody.downcast_ref(), Some(TokenError::UnknownAccount(_))), "{nobody:?}");
    assert_eq!(calls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_account_is_added_changed_and_removed_while_the_others_go_on() {
    let lab = Lab::with(vec![account("wx01", Endpoint::Token), account("wx02", Endpoint::Token)]).await;
    let first = lab.token().await;
    let counts = |added, removed, changed| Reloaded { added, removed, changed };
    assert_eq!(lab.fleet.remove("wx02").await.unwrap(), counts(0, 1, 0));
    assert_eq!(lab.fleet.remove("wx02").await.unwrap(), counts(0, 0, 0));
    let unknown = lab.fleet.token("wx02").await.unwrap_err();
    assert!(matches!(unknown, TokenError::UnknownAccount(_)) && !unknown.is_transient(), "{unknown}");
    assert_eq!(unknown.retry_after(), None);
    assert_eq!(lab.fleet.add(account("wx02", Endpoint::Token)).await.unwrap(), counts(1, 0, 0));
    lab.fleet.token("wx02").await.unwrap();
    assert_eq!(lab.fleet.add(account("wx02", Endpoint::StableToken)).await.unwrap(), counts(0, 0, 1));
    assert_eq!(lab.fleet.account("wx02").unwrap().endpoint, Endpoint::StableToken);
    assert_eq!(lab.token().await.version(), first.version());
    lab.fleet.shutdown().await;
    assert!(lab.fleet.add(account("wx03", Endpoint::Token)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_and_events_are_streams_that_end_with_the_fleet() {
    let lab = Lab::start(Endpoint::Token).await;
    let mut events = lab.fleet.events();
    let tokens = lab.fleet.watch(APPID).unwrap();
    let versions: Vec<_> = tokens.take(3).map(|token| token.version()).collect().await;
    assert_eq!(versions[1..], [versions[0] + 1, versions[0] + 2]);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.next().await.unwrap();
        if let EventDetails::Token { version, .. } = event.details {
            assert_eq!((event.event, event.appid), ("token", Some(appid())));
            seen.push(version);
        }
    }
    assert_eq!(seen, versions);
    // Dropping the handles ends the fleet, too.
    let mut rest = lab.fleet.watch(APPID).unwrap();
    rest.next().await.unwrap();
    drop(lab);
    assert!(timeout(SECOND, rest.next()).await.unwrap().is_none());
    let ended = timeout(SECOND, async { while events.next().await.is_some() {} });
    assert!(ended.await.is_ok());
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_events_that_is_too_slow_learns_that_some_are_lost() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let mut events = lab.fleet.events();
    (0..70_000).for_each(|_| lab.fleet.note_reload(true));
    let first = events.next().await.unwrap();
    assert!(matches!(first.details, EventDetails::Gap {}), "{first:?}");
    assert_eq!(events.next().await.unwrap().event, "reload");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_token_may_be_given_up_again_and_again_and_misses_none() {
    let lab = Lab::start(Endpoint::Token).await;
    let mut tokens = lab.fleet.watch(APPID).unwrap();
    let first = tokens.next().await.unwrap();
    for _ in 0..7200 {
        if let Ok(second) = timeout(SECOND, tokens.next()).await {
            assert_eq!(second.unwrap().version(), first.version() + 1);
            return;
        }
    }
    panic!("no second token in its lifetime");
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_are_refused_and_change_nothing() {
    let lab = Lab::start(Endpoint::Token).await;
    let first = lab.token().await;
    let broken = account("wx02", Endpoint::Token).with(|settings| settings.daily_budget = 0);
    let refused = lab.fleet.add(broken).await.unwrap_err();
    assert_eq!(refused.to_string(), "invalid setting: daily_budget of wx02 is less than 4");
    assert_eq!(lab.fleet.accounts().len(), 1);
    let mut config = lab.config.clone();
    config.accounts = vec![account(APPID, Endpoint::Token).into(); 2];
    assert_eq!(lab.fleet.reload(config).await.unwrap(), Reloaded { added: 0, removed: 0, changed: 0 });
    assert_eq!(lab.token().await.version(), first.version());
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_be_as_long_as_a_duration_can_be() {
    let lab = Lab::start(Endpoint::Token).await;
    let first = lab.token().await.version();
    let next = lab.fleet.token_after(APPID, first, Duration::MAX).await.unwrap().unwrap();
    assert_eq!(next.version(), first + 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_for_an_account_that_is_removed_is_told_so() {
    let lab = Lab::with(vec![account(APPID, Endpoint::Token)]).await;
    lab.wechat.inject(None, Fault::new(FaultKind::Hang));
    lab.fleet.add(account("wx02", Endpoint::Token)).await.unwrap();
    let fleet = lab.fleet.clone();
    let reader = tokio::spawn(async move { fleet.token("wx02").await });
    sleep(SECOND / 2).await;
    lab.fleet.remove("wx02").await.unwrap();
    let answer = timeout(SECOND, reader).await.unwrap().unwrap();
    assert!(matches!(answer, Err(TokenError::UnknownAccount(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_call_in_flight_keeps_the_cell_of_a_removed_account() {
    let lab = Lab::with(vec![account(APPID, Endpoint::Token), account("wx02", Endpoint::Token)]).await;
    lab.fleet.token("wx02").await.unwrap();
    let is_gone = |cell: &Weak<_>| cell.strong_count() == 0;
    let cell = Arc::downgrade(&lab.fleet.cell("wx02").unwrap());
    lab.fleet.remove("wx02").await.unwrap();
    sleep(SECOND).await;
    assert!(is_gone(&cell));
    lab.wechat.inject(None, Fault::new(FaultKind::Hang));
    lab.fleet.add(account("wx02", Endpoint::Token)).await.unwrap();
    sleep(SECOND).await;
    let cell = Arc::downgrade(&lab.fleet.cell("wx02").unwrap());
    lab.fleet.remove("wx02").await.unwrap();
    sleep(SECOND).await;
    assert!(!is_gone(&cell), "its call is in flight");
    sleep(60 * SECOND).await;
    assert!(is_gone(&cell));
}

#[tokio::test]
async fn what_still_follows_an_ended_fleet_does_not_keep_its_store_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let base_urls = vec!["http://127.0.0.1:1/".parse().unwrap()];
        Fleet::builder()
            .account(account(APPID, Endpoint::Token))
            .upstream(UpstreamConfig { base_urls, ..UpstreamConfig::default() })
            .store(Store::file(folder.path().join("wxtokend.redb")))
            .start()
            .await
    };
    let fleet = start().await.unwrap();
    let _followed = (fleet.watch(APPID).unwrap(), fleet.events());
    drop(fleet);
    let restarted = async {
        loop {
            match start().await {
                Ok(fleet) => return fleet,
                Err(StartError::Store(StoreError::InUse(_))) => sleep(SECOND / 20).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(60 * SECOND, restarted).await.expect("the store is free again").shutdown().await;
}
