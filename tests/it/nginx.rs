//! docs/sdk/nginx.conf in a real nginx, between an SDK, the daemon and the simulated WeChat.

use std::net::TcpListener;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Http, Lab, Log, appid, tool, until};

const SNIPPET: &str = include_str!("../../docs/sdk/nginx.conf");
const KEY: &str = "key+of/an&sdk";

/// The snippet with other addresses, in the frame that it is included into.
fn configuration(folder: &str, changes: &[(&str, String)]) -> String {
    let snippet = changes.iter().fold(SNIPPET.to_owned(), |snippet, (from, to)| {
        assert_eq!(snippet.matches(from).count(), 1, "{from}");
        snippet.replace(from, to)
    });
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr info;\nevents {{}}\n\
         http {{\n{temporary}{snippet}}}\n"
    )
}

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
    let daemon = lab.start().await;
    daemon.with_key(KEY).until_state("stable", "fresh").await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let changes = [
        ("server 127.0.0.1:8787;", format!("server {};", daemon.address())),
        ("listen 8080;", format!("listen {port};")),
        ("proxy_pass https://api.weixin.qq.com;", format!("proxy_pass http://{};", lab.wechat.address)),
    ];
    let folder = lab.folder.path().to_str().unwrap();
    std::fs::write(lab.path("nginx.conf"), configuration(folder, &changes)).unwrap();
    let mut nginx = tool("nginx", "nginx").await;
    nginx.args(["-p", folder, "-e", "stderr", "-c"]).arg(lab.path("nginx.conf"));
    let mut nginx = nginx.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = Log::of(nginx.stderr.take().unwrap());
    let hub = Http::to(port);
    until("nginx answers", async || {
        assert!(nginx.try_wait().unwrap().is_none(), "{}", log.text());
        hub.try_get("/cgi-bin/token").await.is_some()
    })
    .await;

    let token = daemon.with_key(KEY).token_value("stable").await;
    let encoded = KEY.replace('+', "%2B").replace('/', "%2F").replace('&', "%26");
    for path in ["/cgi-bin/token", "//cgi-bin/token", "/cgi-bin//token"] {
        let url = format!("{path}?grant_type=client_credential&appid=stable&secret={encoded}");
        assert_eq!(hub.get(&url).await.json()["access_token"], token, "{path}");
    }
    for path in ["/cgi-bin/stable_token", "//cgi-bin/stable_token"] {
        assert_eq!(stable_token(&hub, path, false).await.json()["access_token"], token, "{path}");
    }
    let business = async |token: &str| -> Value {
        let in_url = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        hub.get(&format!("/cgi-bin/get_api_domain_ip?access_token={in_url}")).await.json()
    };
    assert!(business(&token).await["ip_list"].is_array(), "WeChat has answered");
    lab.wechat.kill_tokens(&appid("stable"));
    assert_eq!(business(&token).await["errcode"], 40001);
    // What an SDK does then.
    let next = stable_token(&hub, "/cgi-bin/stable_token", true).await.json()["access_token"].clone();
    assert_ne!(next, token);
    assert!(business(next.as_str().unwrap()).await["ip_list"].is_array());
    let counters = lab.wechat.counters(&appid("stable"));
    assert_eq!(counters.stable_token_mints, 2, "one at the start, one for the dead one: {counters:?}");
    assert_eq!(counters.token_calls, 0, "no call of the SDK's went through: {counters:?}");
    for text in [log.text(), daemon.log.text()] {
        assert!(!text.contains(&encoded) && !text.contains(KEY) && !text.contains(&token), "{text}");
    }
}
