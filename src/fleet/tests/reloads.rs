//! Reloads that replace the upstream, and reloads that their caller gives up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep, timeout};
use wxtokend_core::account::Endpoint;

use super::lab::{APPID, Lab, account};
use super::{BOTH, SECOND};

fn upstream(url: &str) -> Vec<Url> {
    vec![Url::parse(url).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn once_a_reload_to_another_upstream_returns_no_kill_brings_an_old_token_back() {
    for endpoint in BOTH {
        // From before the refresh's charge is written until after its token is.
        for offset_us in (0..36_000).step_by(500) {
            let mut lab = Lab::start(endpoint).await;
            lab.token().await;
            sleep(360 * SECOND).await;
            lab.config.upstream.base_urls = upstream("https://other.test/");
            let fleet = lab.fleet.clone();
            let refresh = tokio::spawn(async move {
                let _ = fleet.refresh(APPID, endpoint == Endpoint::StableToken).await;
            });
            sleep(Duration::from_micros(offset_us)).await;
            lab.fleet.reload(lab.config.clone()).await.unwrap();
            let record = lab.disk.record(APPID);
            assert!(!record.contains(r#""value""#), "{endpoint:?}, {offset_us} us: {record}");
            // Long enough for anything in progress, also a write of the old token; a token of the new
            // upstream takes longer.
            sleep(Duration::from_millis(12)).await;
            refresh.abort();
            let record = lab.disk.record(APPID);
            assert!(!record.contains(r#""value""#), "{endpoint:?}, {offset_us} us, then: {record}");
            let lab = lab.crash_and_restart().await;
            assert!(lab.fleet.token_at_once(APPID).is_none(), "{endpoint:?}, {offset_us} us");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_path_at_the_same_host_is_another_upstream() {
    let mut lab = Lab::tuned(vec![account(APPID, Endpoint::Token)], |settings| {
        settings.base_urls = upstream("https://gateway.test/one/");
    })
    .await;
    let token = lab.token().await;
    lab.config.upstream.base_urls = upstream("https://gateway.test/two/");
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    sleep(SECOND).await;
    assert_ne!(lab.token().await.access_token(), token.access_token());
    let token = lab.token().await;
    lab.config.upstream.base_urls = upstream("https://gateway.test/two");
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    let lab = lab.crash_and_restart().await;
    let same = lab.fleet.token_at_once(APPID).unwrap();
    assert_eq!(same.access_token(), token.access_token(), "a slash at the end makes no difference");
}

#[tokio::test(start_paused = true)]
async fn another_upstream_right_after_the_start_of_many_accounts_is_few_commits() {
    const ACCOUNTS: usize = 1_500;
    let accounts = (0..ACCOUNTS).map(|n| account(&format!("wx{n}"), Endpoint::StableToken)).collect();
    let lab = Lab::tuned(accounts, |settings| settings.max_per_second = 1_000).await;
    sleep(30 * SECOND).await;
    let mut lab = lab.crash_and_restart().await;
    assert!(lab.fleet.token_at_once("wx1499").is_some());
    lab.config.upstream.base_urls = upstream("https://other.test/");
    let (before, start) = (lab.disk.commits.load(Ordering::SeqCst), Instant::now());
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    let commits = lab.disk.commits.load(Ordering::SeqCst) - before;
    assert!(commits < 20, "{commits} commits");
    assert!(start.elapsed() < SECOND, "took {:?}", start.elapsed());
    let kept = (0..ACCOUNTS).filter(|n| lab.disk.record(&format!("wx{n}")).contains(r#""value""#)).count();
    assert_eq!(kept, 0, "are on disk still");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_its_caller_gives_up_goes_on_and_counts() {
    let mut lab = Lab::start(Endpoint::StableToken).await;
    lab.token().await;
    let before = lab.config.clone();
    let mut other = account(APPID, Endpoint::StableToken);
    other.name = "Other".to_owned();
    lab.config.accounts = vec![other.into()];
    for patience in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(1)] {
        let _given_up = timeout(patience, lab.fleet.reload(lab.config.clone())).await;
        let reloaded = lab.fleet.reload(before.clone()).await.unwrap();
        assert_eq!((reloaded.added, reloaded.removed, reloaded.changed), (0, 0, 1));
        sleep(SECOND).await;
        assert_eq!(lab.view().name, before.accounts[0].name);
    }
}
