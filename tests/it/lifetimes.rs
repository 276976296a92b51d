//! Tokens through several lifetimes, as seen by clients.

use serde_json::json;

use crate::harness::{Lab, Reader, until};

#[tokio::test]
async fn no_reader_gets_a_dead_token_through_several_lifetimes_on_both_endpoints() {
    let lab = Lab::new(8_000, 2_000).await.with_both();
    let daemon = lab.start().await;
    for appid in ["stable", "classic"] {
        daemon.until_state(appid, "fresh").await;
    }
    let through = async |appid: &str| {
        let mut reader = Reader::new(&lab.wechat, appid);
        let first = reader.read(&daemon).await.unwrap();
        let mut last = first.clone();
        until("three more tokens", async || {
            let reading = reader.read(&daemon).await.expect("a token at any time");
            let step = u64::from(reading.access_token != last.access_token);
            assert_eq!(reading.version, last.version + step, "each new value is one version more");
            last = reading;
            last.version == first.version + 3
        })
        .await;
        assert_eq!(lab.wechat.mints(appid), 4, "{appid}");
        let view = daemon.view(appid).await;
        assert!(["fresh", "refreshing"].contains(&view["state"].as_str().unwrap()), "{view}");
        assert_eq!(view["last_fault"], json!(null), "{view}");
    };
    tokio::join!(through("stable"), through("classic"));
    assert_eq!(daemon.stdout.text(), "", "stdout carries answers only");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_token_kept_as_long_as_promised_is_alive_at_its_end_on_both_endpoints() {
    // Refreshed so early that the old token ends an overlap later, well before its time.
    let mut lab = Lab::new(8_000, 2_000).await.with_both();
    lab.account("classic")["refresh_ahead"] = json!("50%");
    let daemon = lab.start().await;
    let keep = async |appid: &str| {
        daemon.until_state(appid, "fresh").await;
        let mut reader = Reader::new(&lab.wechat, appid);
        let first = reader.read_and_keep(&daemon).await.unwrap();
        assert!(first.max_age.as_secs() == 1 && first.expires_in > first.max_age, "{first:?}");
        until("two more tokens, and every promise at its end", async || {
            let reading = reader.read_and_keep(&daemon).await.expect("a token at any time");
            assert!(reading.max_age <= reading.expires_in, "{reading:?}");
            reading.version >= first.version + 2
        })
        .await;
        until("the last promises are at their end", async || {
            reader.judge();
            reader.promised() == 0
        })
        .await;
        assert!(reader.kept > 100, "{} promises are too few to tell", reader.kept);
    };
    tokio::join!(keep("stable"), keep("classic"));
}
