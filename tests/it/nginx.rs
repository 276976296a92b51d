//! docs/sdk/nginx.conf and nginx-resolve.conf in a real nginx, between an SDK, the daemon and the sandbox.

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
    // It asks again and again, which is a hint, and a check finds the token alive: its report comes soon after.
    lab.config["defaults"]["rejection_cooldown"] = json!("1ms");
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

#[tokio::test]
async fn an_application_that_keeps_a_dead_token_has_its_calls_carried_out_with_the_current_one() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["api"]["clients"] = json!([
        { "name": "ops", "key": KEY, "accounts": ["*"], "allow": ["read", "refresh"] },
        { "name": "nginx", "key": "key-of-nginx", "accounts": ["stable"], "allow": ["call"], "paths": ["/cgi-bin/get_"] },
    ]);
    let daemon = lab.start().await;
    let ops = daemon.with_key(KEY);
    for account in ["stable", "classic"] {
        ops.until_state(account, "fresh").await;
    }
    let dead = ops.token_value("stable").await;
    lab.wechat.kill_tokens(&appid("stable"));
    ops.reject("stable", &dead).await;
    let current = ops.token_value("stable").await;
    assert_ne!(dead, current);
    let nginx = Nginx::resolving(&lab, &daemon, "key-of-nginx").await;
    let hub = &nginx.http;
    let ask = "/cgi-bin/get_api_domain_ip";
    let in_url = |token: &str| token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let (dead_in_url, current_in_url) = (in_url(&dead), in_url(&current));
    for carried in [&dead_in_url, &current_in_url] {
        for uri in [
            format!("{ask}?access_token={carried}"),
            format!("{ask}?a=%20+1&access_token={carried}&b={}", "x".repeat(7_000)),
            format!("{ask}?access%5Ftoken={carried}"),
            format!("{ask}?xaccess_token=1&access_token={carried}&access_tokens=2"),
        ] {
            let answer = hub.get(&uri).await;
            assert!(answer.status == 200 && answer.json()["ip_list"].is_array(), "{uri}: {answer:?}");
        }
        let posted =
            hub.request(Method::POST, &format!("{ask}?access_token={carried}")).body("x".repeat(100_000));
        let answer = Http::try_send(posted).await.expect("an answer");
        assert!(answer.json()["ip_list"].is_array(), "with its body: {answer:?}");
    }
    // What is not ours to replace goes out as it came: WeChat answers.
    let foreign = in_url(&ops.token_value("classic").await);
    for (uri, errcode) in [
        (format!("{ask}?access_token=nobodys"), 40001),
        (ask.to_owned(), 41001),
        ("/sns/userinfo?access_token=a-users&openid=x".to_owned(), 40001),
    ] {
        let answer = hub.get(&uri).await;
        assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(errcode)), "{uri}: {answer:?}");
    }
    for (uri, status) in [
        (format!("/cgi-bin/user/get?access_token={current_in_url}"), 403),
        (format!("/cgi-bin/clear_quota?access_token={current_in_url}"), 403),
        (format!("{ask}?access_token={foreign}"), 403),
        (format!("/cgi-bin//get_x?access_token={current_in_url}"), 500),
        (format!("{ask}?access_token={current_in_url}&access_token={current_in_url}"), 500),
        ("/wxtokend-resolve".to_owned(), 404),
    ] {
        let answer = hub.get(&uri).await;
        assert_eq!(answer.status, status, "{uri}: {answer:?}");
        assert!(!format!("{answer:?}").contains(&current), "{answer:?}");
    }
    for text in [nginx.log.text(), daemon.log.text()] {
        assert!(!text.contains("key-of-nginx"), "{text}");
    }
    assert!(![&dead, &current].iter().any(|token| daemon.log.text().contains(*token)));
}
