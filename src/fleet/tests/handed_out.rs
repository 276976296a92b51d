//! Tokens that an account had before its newest.

use wxtokend_core::secret::Secret;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn issued(lab: &Lab, token: &str) -> bool {
    lab.fleet.issued_to(token).is_some_and(|of| of.as_str() == APPID)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_known_until_stale_after_its_end_through_restarts_however_early_it_died() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let first = lab.token().await;
    let first = first.access_token();
    assert!(issued(&lab, first) && !issued(&lab, "nobody's"));
    lab.wechat.kill_tokens(&appid());
    let replaced = lab.fleet.reject(APPID, first).await.unwrap();
    assert_eq!(replaced.outcome, RejectionOutcome::Refreshed);
    assert!(lab.fleet.holder(first).is_none(), "it is dead");
    assert!(issued(&lab, first), "its account is known");
    let lab = lab.crash_and_restart().await;
    assert!(issued(&lab, first), "from the store, with no commit but the new token's");
    sleep(2 * HOUR).await;
    let lab = lab.reboot(Duration::ZERO, 0).await;
    lab.until("fresh", |view| view.state == Phase::Fresh).await;
    assert!(issued(&lab, first));
    sleep(2 * HOUR - MINUTE).await;
    assert!(issued(&lab, first));
    sleep(2 * MINUTE).await;
    assert!(!issued(&lab, first));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shorter_stale_counts_from_the_reload_on() {
    let mut lab = Lab::start(Endpoint::Token).await;
    let first = lab.token().await;
    let ends = first.expires_in();
    lab.until("refreshed", |view| view.version > first.version()).await;
    sleep(ends + MINUTE).await;
    assert!(issued(&lab, first.access_token()));
    lab.config.proxy.stale = SECOND;
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert!(!issued(&lab, first.access_token()));
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_of_a_removed_account_nor_of_another_upstreams_tokens() {
    let other = || account("wx02", Endpoint::StableToken);
    let mut lab = Lab::with(vec![account(APPID, Endpoint::StableToken), other()]).await;
    let mut tokens = vec![lab.token().await];
    lab.fleet.refresh(APPID, true).await.unwrap();
    tokens.push(lab.token().await);
    let all_known =
        |lab: &Lab| tokens.iter().map(|token| issued(lab, token.access_token())).collect::<Vec<_>>();
    assert_eq!(all_known(&lab), [true, true]);
    let both = lab.config.clone();
    lab.config.accounts = vec![other().into()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert_eq!(all_known(&lab), [false, false]);
    lab.config = both.clone();
    lab.fleet.reload(both.clone()).await.unwrap();
    assert_eq!(all_known(&lab), [false, false], "it is back, and its token is a new one");
    lab.fleet.refresh(APPID, true).await.unwrap();

    // Removed while the program does not run.
    let old = lab.token().await;
    lab.fleet.refresh(APPID, true).await.unwrap();
    lab.config.accounts = vec![other().into()];
    let mut lab = lab.crash_and_restart().await;
    lab.config = both;
    let mut lab = lab.crash_and_restart().await;
    assert!(!issued(&lab, old.access_token()));
    lab.until("fresh", |view| view.state == Phase::Fresh).await;

    let (old, _) = (lab.token().await, lab.fleet.refresh(APPID, true).await.unwrap());
    assert!(issued(&lab, old.access_token()));
    lab.config.upstream.base_urls = vec!["https://elsewhere.test/".parse().unwrap()];
    lab.fleet.reload(lab.config.clone()).await.unwrap();
    assert!(!issued(&lab, old.access_token()));
    let lab = lab.crash_and_restart().await;
    assert!(!issued(&lab, old.access_token()), "nor from the store");
    lab.fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn digests_are_stored_and_no_earlier_token_is() {
    let lab = Lab::start(Endpoint::StableToken).await;
    let first = lab.token().await;
    lab.fleet.refresh(APPID, true).await.unwrap();
    let stored = lab.disk.record(APPID);
    let digest = wxtokend_core::secret::hex(&Secret::new(first.access_token()).sha256());
    assert!(stored.contains(&digest) && !stored.contains(first.access_token()));
    lab.fleet.shutdown().await;
}
