//! Tickets of the real program: through their lifetimes, and across crashes.

use serde_json::{Value, json};
use wxtokend_core::ticket::TicketKind;

use crate::harness::{Daemon, Lab, appid, until};

async fn ticket(daemon: &Daemon, kind: TicketKind) -> Value {
    daemon.get(&format!("/v1/accounts/stable/tickets/{}", kind.as_str())).await.json()
}

fn is_alive(lab: &Lab, ticket: &Value) -> bool {
    lab.wechat.is_ticket_alive(&appid("stable"), ticket["ticket"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn tickets_are_there_through_several_lifetimes_of_the_tokens() {
    let lab = Lab::new(8_000, 2_000).await.with("stable", json!({ "tickets": ["jsapi", "wx_card"] }));
    let daemon = lab.start().await;
    let through = async |kind| {
        let first = ticket(&daemon, kind).await;
        assert!(is_alive(&lab, &first), "{first}");
        until("two more", async || {
            let ticket = ticket(&daemon, kind).await;
            assert!(ticket["expires_in"].is_u64() || ticket["code"] == "token_unavailable", "{ticket}");
            ticket["version"].as_u64() >= first["version"].as_u64().map(|version| version + 2)
        })
        .await;
        assert!(is_alive(&lab, &ticket(&daemon, kind).await), "a new one");
    };
    tokio::join!(through(TicketKind::Jsapi), through(TicketKind::WxCard));
    let counters = lab.wechat.counters(&appid("stable"));
    assert!(counters.ticket_mints >= 6 && counters.stable_token_mints <= 4, "{counters:?}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn after_a_kill_the_ticket_is_served_again_without_a_call_and_with_the_age_that_it_has() {
    let lab = Lab::new(7_200_000, 300_000).await.with("stable", json!({ "tickets": ["jsapi"] }));
    let daemon = lab.start().await;
    let before = ticket(&daemon, TicketKind::Jsapi).await;
    assert!(is_alive(&lab, &before), "{before}");
    let calls = lab.wechat.counters(&appid("stable")).ticket_calls;
    daemon.kill().await;
    let daemon = lab.start().await;
    let after = ticket(&daemon, TicketKind::Jsapi).await;
    for what in ["ticket", "version", "expires_at"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    assert_eq!(lab.wechat.counters(&appid("stable")).ticket_calls, calls);
    assert!(daemon.stop().await.success());
}
