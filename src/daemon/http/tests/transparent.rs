//! Calls of applications that know WeChat alone.

use super::proxy::succeeded;
use super::proxy_gateway::{Reply, ok};
use super::*;
use crate::config::Transparent;

async fn rig_from(network: &str, clients: Vec<Client>, wechat_path: &str) -> (Rig, Gateway) {
    let gateway = Gateway::default();
    let from = vec![network.parse().unwrap()];
    let transparent = vec![Transparent { client: "app".to_owned(), from }];
    let proxy = ProxyConfig { transparent, ..ProxyConfig::default() };
    let wechat_path = wechat_path.to_owned();
    let options =
        TestApi { gateway: Some(gateway.clone()), clients, proxy, wechat_path, ..TestApi::default() };
    (Rig::start(options).await, gateway)
}

async fn rig() -> (Rig, Gateway) {
    rig_from("127.0.0.0/8", vec![client("app", &["wx1"], CALL)], "/").await
}

#[tokio::test]
async fn a_call_without_a_key_gets_the_current_token_for_any_that_we_handed_out() {
    let (rig, gateway) = rig().await;
    let first = rig.token_of("wx1").await;
    let path = format!("/cgi-bin/user/get?access_token={first}&next=1");
    assert!(succeeded(&rig.get(&path).await));
    assert!(gateway.calls()[0].starts_with(&format!("GET /cgi-bin/user/get?access_token={first}&next=1 ")));

    rig.sandbox.kill_tokens(&id("wx1"));
    let answer = rig.get(&path).await;
    assert!(succeeded(&answer) && answer.header("x-wxtokend-retried") == "1", "{answer:?}");
    let second = rig.token_of("wx1").await;
    assert_ne!(first, second);
    gateway.calls();

    // The application keeps the dead one, and never notices.
    let body = "u".repeat(100_000);
    let answer = rig.call("POST", &path, &[], &body).await;
    assert!(succeeded(&answer) && answer.header("x-wxtokend-retried").is_empty(), "{answer:?}");
    let calls = gateway.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].starts_with(&format!("POST /cgi-bin/user/get?access_token={second}&next=1 ")));
    assert!(calls[0].ends_with(&body));
}

#[tokio::test]
async fn a_call_without_a_token_of_ours_passes_unchanged() {
    let (rig, gateway) = rig().await;
    for path in [
        "/sns/userinfo?access_token=users&openid=o",
        "/wxa/getwxacode?access_token=foreign",
        "/cgi-bin/menu/get",
        "/cgi-bin/component/api_query_auth?component_access_token=theirs",
    ] {
        gateway.then(Reply::Bytes(ok("", "{}")));
        assert_eq!(rig.get(path).await.body, "{}", "{path}");
        assert!(gateway.calls()[0].starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}");
    }
    // An AppSecret is none of ours either; a client's key is exchanged for it.
    for (secret, sent) in [("the-real-one", "the-real-one"), ("app", SECRET)] {
        gateway.then(Reply::Bytes(ok("", "{}")));
        let path = format!("/sns/jscode2session?appid=wx1&secret={secret}&js_code=x");
        assert_eq!(rig.get(&path).await.body, "{}");
        let expected = format!("GET /sns/jscode2session?appid=wx1&secret={sent}&js_code=x HTTP/1.1\r\n");
        assert!(gateway.calls()[0].starts_with(&expected), "{secret}");
    }
}

#[tokio::test]
async fn such_a_call_has_the_rights_of_its_client_and_no_more() {
    let mut narrow = client("app", &["wx1"], CALL);
    narrow.paths = vec!["/cgi-bin/".to_owned()];
    let (rig, gateway) = rig_from("127.0.0.0/8", vec![narrow, client("reader", &["*"], READ)], "/").await;
    let (own, other) = (rig.token_of("wx1").await, rig.token_of("wx2").await);
    for (path, code) in [
        (format!("/cgi-bin/menu/get?access_token={other}"), "forbidden"),
        (format!("/wxa/getwxacode?access_token={own}"), "path_not_allowed"),
        ("/wxa/getwxacode".to_owned(), "path_not_allowed"),
        (format!("/cgi-bin/component/api_query_auth?access_token={own}"), "path_not_allowed"),
        ("/cgi-bin/gettoken?corpid=x".to_owned(), "path_not_allowed"),
        ("/cgi-bin/clear_quota".to_owned(), "path_not_allowed"),
        ("/cgi-bin/token/".to_owned(), "path_not_allowed"),
        ("/cgi-bin/%74oken".to_owned(), "bad_request"),
        ("/cgi-bin/component/a%2F..%2Ftoken".to_owned(), "bad_request"),
        // What is ours, or would be, is not WeChat's.
        ("/v1/accounts".to_owned(), "unauthorized"),
        ("/v1/accounts/wx1/token".to_owned(), "unauthorized"),
        ("/v1/nothing".to_owned(), "not_found"),
        ("/ui/a/b".to_owned(), "not_found"),
        (format!("/proxy/wx1/cgi-bin/menu/get?access_token={own}"), "unauthorized"),
    ] {
        rig.is_problem(&rig.get(&path).await, code);
    }
    assert_eq!(
        rig.get("/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=app").await.json()["errcode"],
        48001
    );
    assert_eq!(gateway.calls(), [""; 0]);
    // A reload that takes the right away holds at once.
    rig.clients.set(vec![client("reader", &["*"], READ)]);
    rig.is_problem(&rig.get(&format!("/cgi-bin/menu/get?access_token={own}")).await, "not_found");
}

#[tokio::test]
async fn others_are_not_passed_on_without_a_key() {
    let (rig, gateway) = rig_from("10.0.0.0/8", vec![client("app", &["*"], CALL)], "/").await;
    let token = rig.token_of("wx1").await;
    let request = [("x-forwarded-for", "10.1.2.3")];
    let answer = rig.call("GET", &format!("/cgi-bin/menu/get?access_token={token}"), &request, "").await;
    rig.is_problem(&answer, "not_found");
    assert_eq!(gateway.calls(), [""; 0], "nobody's word but a trusted proxy's counts");
    let mut config = rig.config.clone();
    config.api.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    rig.proxy.set(&config);
    let answer = rig.call("GET", &format!("/cgi-bin/menu/get?access_token={token}"), &request, "").await;
    assert!(succeeded(&answer), "{answer:?}");
    let request = [("x-forwarded-for", "10.1.2.3, 192.0.2.1")];
    let answer = rig.call("GET", &format!("/cgi-bin/menu/get?access_token={token}"), &request, "").await;
    rig.is_problem(&answer, "not_found");
}

#[tokio::test]
async fn such_calls_are_answered_below_the_base_path_too() {
    let (rig, gateway) = rig_from("127.0.0.0/8", vec![client("app", &["wx1"], CALL)], "/hub").await;
    let token = rig.token_of("wx1").await;
    for path in ["/hub/wxa/x", "/hub//wxa/x", "//wxa/x", "/wxa/x"] {
        gateway.then(Reply::Bytes(ok("", "{}")));
        assert_eq!(rig.get(&format!("{path}?access_token={token}")).await.body, "{}", "{path}");
        assert!(
            gateway.calls()[0].starts_with(&format!("GET /wxa/x?access_token={token} HTTP/1.1\r\n")),
            "{path}"
        );
    }
}
