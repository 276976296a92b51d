//! docs/sdk/nginx.conf in a real nginx, between an SDK, the daemon and the sandbox.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Http, Lab, Nginx, appid};

const KEY: &str = "key+of/an&sdk";

async fn stable_token(http: &Http, path: &str, force: bool) -> Answer {
    let body = json!({
        "grant_type": "client_credential", "appid": "stable", "secret": KEY, "force_refresh": force,
    });
    Http::try_send(http.request(Method::POST, path).body(body.to_string())).await.expect("an answer")
}

#[tokio::test]
async fn an_sdk_that_sends_all_calls_to_one_place_gets_our_token_and_wechats_answers() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["api"]["clients"] =
        json!([{ "name": "sdk", "key": KEY, "accounts": ["*"], "allow": ["read", "refresh"] }]);
    lab.account("stable")["tickets"] = json!(["jsapi"]);
    let daemon = lab.start().await;
    daemon.with_key(KEY).until_state("stable", "fresh").await;
    let nginx = Nginx::start(&lab, &daemon).await;
    let hub = &nginx.http;

    let token = daemon.with_key(KEY).token_value("stable").await;
    let encoded = KEY.replace('+', "%2B").replace('/', "%2F").replace('&', "%26");
    for path in ["/cgi-bin/token", "//cgi-bin/token", "/cgi-bin//token"] {
        let url = format!("{path}?grant_type=client_credential&appid=stable&secret={encoded}");
        assert_eq!(hub.get(&url).await.json()["access_token"], token, "{path}");
    }
    for path in ["/cgi-bin/stable_token", "//cgi-bin/stable_token"] {
        assert_eq!(stable_token(hub, path, false).await.json()["access_token"], token, "{path}");
    }
    let business = async |token: &str| -> Value {
        let in_url = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        hub.get(&format!("/cgi-bin/get_api_domain_ip?access_token={in_url}")).await.json()
    };
    assert!(business(&token).await["ip_list"].is_array(), "WeChat has answered");
    let ticket = daemon.with_key(KEY).get("/v1/accounts/stable/tickets/jsapi").await.json();
    let tickets = lab.wechat.counters(&appid("stable")).ticket_calls;
    let in_url = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let answer =
        hub.get(&format!("//cgi-bin/ticket/getticket?access_token={in_url}&type=jsapi")).await.json();
    assert_eq!((&answer["errcode"], &answer["ticket"]), (&json!(0), &ticket["ticket"]), "{answer}");
    assert_eq!(lab.wechat.counters(&appid("stable")).ticket_calls, tickets, "no call went through");
    lab.wechat.kill_tokens(&appid("stable"));
    assert_eq!(business(&token).await["errcode"], 40001);
    // The call that an SDK then makes.
    let next = stable_token(hub, "/cgi-bin/stable_token", true).await.json()["access_token"].clone();
    assert_ne!(next, token);
    assert!(business(next.as_str().unwrap()).await["ip_list"].is_array());
    let counters = lab.wechat.counters(&appid("stable"));
    assert_eq!(counters.stable_token_mints, 2, "one at the start, one for the dead one: {counters:?}");
    assert_eq!(counters.token_calls, 0, "no call of the SDK's went through: {counters:?}");
    for text in [nginx.log.text(), daemon.log.text()] {
        assert!(!text.contains(&encoded) && !text.contains(KEY) && !text.contains(&token), "{text}");
    }
}
