//! Calls that are passed on to WeChat.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use wxtokend_core::account::Endpoint;

use super::proxy_gateway::{Reply, ok};
use super::*;
use crate::config::PerAccount;

const KEY: (&str, &str) = ("authorization", "Bearer caller");
const REFUSED: &str =
    r#"{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest rid: 1"}"#;

fn on_token(appid: &str) -> Account {
    account(appid).with(|settings| {
        settings.endpoint = Endpoint::Token;
        // Its token is replaced however soon after the last one.
        settings.rejection_cooldown = Duration::from_millis(1);
    })
}

async fn rig_with(options: TestApi) -> (Rig, Gateway) {
    let gateway = Gateway::default();
    let clients = match options.clients.is_empty() {
        true => vec![client("caller", &["*"], CALL)],
        false => options.clients,
    };
    (Rig::start(TestApi { gateway: Some(gateway.clone()), clients, ..options }).await, gateway)
}

async fn rig() -> (Rig, Gateway) {
    rig_with(TestApi::default()).await
}

/// Whether WeChat carried the call out.
pub(super) fn succeeded(answer: &Answer) -> bool {
    answer.status == 200 && answer.json()["errcode"].as_i64().unwrap_or_default() == 0
}

/// How many calls ended so.
fn counted(rig: &Rig, outcome: &str) -> u64 {
    let mut scrape = Vec::new();
    rig.metrics.write(&rig.fleet, PerAccount::All, &mut scrape).unwrap();
    let scrape = String::from_utf8(scrape).unwrap();
    let line = format!("wxtokend_proxy_calls_total{{outcome=\"{outcome}\"}} ");
    let value = scrape.lines().find_map(|text| text.strip_prefix(line.as_str()).map(str::to_owned));
    value.unwrap_or_else(|| panic!("{outcome} is not counted")).parse().unwrap()
}

#[tokio::test]
async fn a_call_is_passed_on_byte_for_byte_but_for_the_token_and_what_is_between_the_client_and_us() {
    let (rig, gateway) = rig().await;
    gateway.then(Reply::Bytes(ok("Content-Type: text/plain\r\nSet-Cookie: a=b\r\nX-Theirs: 1\r\n", "fine")));
    let request = "PATCH /proxy/wx1/wxa/%E5%BE%AE/x.y?b=%20+2&access_token=mine&a=1&&c HTTP/1.1\r\nHost: hub\r\n\
        Authorization: Bearer caller\r\nCookie: x=y\r\nX-Request-Id: 7\r\nAccept-Encoding: br, gzip\r\n\
        Content-Type: application/json; charset=gbk\r\nContent-Length: 5\r\nKeep-Alive: x\r\n\r\n{\"\x01\"}";
    let answer = raw_answer(rig.address, request).await;
    assert_eq!((answer.status, &*answer.body), (200, "fine"), "{answer:?}");
    assert_eq!((answer.header("x-theirs"), answer.header("set-cookie")), ("1", ""));
    assert_eq!(answer.header("x-wxtokend-retried"), "");
    let call = gateway.calls().remove(0);
    let (head, body) = call.split_once("\r\n\r\n").unwrap();
    let token = rig.token_of("wx1").await;
    let mut lines = head.lines();
    let first = format!("PATCH /wxa/%E5%BE%AE/x.y?access_token={token}&b=%20+2&a=1&&c HTTP/1.1");
    assert_eq!(lines.next().unwrap(), first);
    let mut headers: Vec<_> = lines.filter(|line| !line.starts_with("host: 127.0.0.1:")).collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "accept-encoding: gzip",
            "content-length: 5",
            "content-type: application/json; charset=gbk",
            "x-request-id: 7"
        ]
    );
    assert_eq!(body, "{\"\x01\"}");
    assert_eq!(counted(&rig, "passed"), 1);
}

#[tokio::test]
async fn a_token_that_was_killed_is_replaced_and_the_call_repeated_once() {
    for (account, body) in
        [(account("wx1"), ""), (account("wx1"), r#"{"touser":"x"}"#), (on_token("wx1"), "")]
    {
        let (rig, gateway) = rig_with(TestApi { accounts: vec![account], ..TestApi::default() }).await;
        let method = if body.is_empty() { "GET" } else { "POST" };
        let before = rig.token_of("wx1").await;
        rig.sandbox.kill_tokens(&id("wx1"));
        let answer = rig.call(method, "/proxy/wx1/cgi-bin/user/get?next=1", &[KEY], body).await;
        assert!(succeeded(&answer), "{answer:?}");
        assert_eq!(answer.header("x-wxtokend-retried"), "1");
        let after = rig.token_of("wx1").await;
        assert_ne!(before, after);
        let calls = gateway.calls();
        assert_eq!(calls.len(), 2, "{calls:?}");
        for (call, token) in calls.iter().zip([&before, &after]) {
            let first = format!("{method} /cgi-bin/user/get?access_token={token}&next=1 ");
            assert!(call.starts_with(&first), "{call}");
            assert!(call.ends_with(&format!("\r\n\r\n{body}")), "{call}");
        }
        assert!(!answer.body.contains(&after));
        assert_eq!(counted(&rig, "repeated"), 1);
    }
}

#[tokio::test]
async fn a_refusal_that_is_not_the_tokens_is_passed_back() {
    let (rig, gateway) = rig().await;
    for body in [REFUSED, r#"{"errcode":42001}"#] {
        let before = rig.token_of("wx1").await;
        gateway.then(Reply::Bytes(ok("Content-Type: application/json\r\n", body)));
        let answer = rig.call("POST", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "body").await;
        assert_eq!((answer.status, &*answer.body), (200, body));
        assert_eq!(answer.header("x-wxtokend-retried"), "");
        assert_eq!(gateway.calls().len(), 1, "sent once");
        assert_eq!(rig.token_of("wx1").await, before, "the token was found alive");
    }
    // No refusal of a token, or none at the top.
    for body in [r#"{"errcode":40003}"#, r#"{"data":{"errcode":40001}}"#, r#"[{"errcode":40001}]"#, "40001"] {
        gateway.then(Reply::Bytes(ok("", body)));
        assert_eq!(rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await.body, body);
    }
    assert_eq!((counted(&rig, "refused"), counted(&rig, "passed")), (2, 4));
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_sent_once_and_the_token_replaced_all_the_same() {
    let proxy = ProxyConfig { keep_body: 4, ..ProxyConfig::default() };
    let (rig, gateway) =
        rig_with(TestApi { proxy, accounts: vec![on_token("wx1")], ..TestApi::default() }).await;
    for (body, repeated) in [("1234", true), ("12345", false)] {
        let before = rig.token_of("wx1").await;
        rig.sandbox.kill_tokens(&id("wx1"));
        let answer = rig.call("POST", "/proxy/wx1/cgi-bin/menu/get", &[KEY], body).await;
        assert_eq!(answer.header("x-wxtokend-retried") == "1", repeated, "{answer:?}");
        assert_eq!(answer.json()["errcode"] == 40001, !repeated, "{answer:?}");
        assert_eq!(gateway.calls().len(), if repeated { 2 } else { 1 });
        assert_ne!(rig.token_of("wx1").await, before);
    }
    assert_eq!(counted(&rig, "not_repeated"), 1);
}

#[tokio::test]
async fn a_call_is_repeated_once_and_no_more() {
    let (rig, gateway) = rig().await;
    gateway.then(Reply::Sandbox);
    gateway.then(Reply::Cut(ok("", REFUSED)));
    rig.sandbox.kill_tokens(&id("wx1"));
    let answer = rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await;
    assert_eq!((&*answer.body, answer.header("x-wxtokend-retried")), (REFUSED, "1"));
    assert_eq!(gateway.calls().len(), 2);
    assert_eq!(counted(&rig, "refused_again"), 1);
}

#[tokio::test]
async fn an_answer_is_looked_into_however_it_comes() {
    let (rig, gateway) = rig().await;
    let gzip = |text: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    };
    let long = format!(r#"{{"errcode":40001,"errmsg":"{}"}}"#, "x".repeat(200_000));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{REFUSED}\r\n0\r\n\r\n",
        REFUSED.len()
    );
    for (refusal, text) in [
        (ok("Content-Encoding: gzip\r\n", gzip(REFUSED.as_bytes())), None),
        (chunked.into_bytes(), Some(REFUSED)),
        (ok("Content-Type: application/json\r\n", &long), Some(&*long)),
    ] {
        let counted_before = counted(&rig, "refused");
        gateway.then(Reply::Bytes(refusal));
        let url = format!("http://{}/proxy/wx1/cgi-bin/menu/get", rig.address);
        let answer =
            rig.http.get(url).header(KEY.0, KEY.1).header("accept-encoding", "gzip").send().await.unwrap();
        let body = answer.bytes().await.unwrap();
        match text {
            Some(text) => assert!(body == text.as_bytes(), "all of it comes"),
            None => assert_eq!(body, gzip(REFUSED.as_bytes()), "as it came"),
        }
        assert_eq!(counted(&rig, "refused"), counted_before + 1, "the token is alive");
    }
    // A picture is not JSON, whatever is in it.
    gateway.then(Reply::Bytes(ok("Content-Type: image/jpeg\r\n", REFUSED)));
    assert_eq!(rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await.body, REFUSED);
    assert_eq!(counted(&rig, "passed"), 1);
}

#[tokio::test]
async fn what_a_client_may_not_call_never_leaves_us() {
    let mut narrow = client("narrow", &["wx1"], CALL);
    narrow.paths = vec!["/cgi-bin/message/".to_owned(), "/cgi-bin/".to_owned()];
    let mut narrower = client("narrower", &["wx1"], CALL);
    narrower.paths = vec!["/cgi-bin/message/".to_owned()];
    let clients = vec![narrow, narrower, client("reader", &["*"], Allow { call: false, ..Allow::ALL })];
    let (rig, gateway) = rig_with(TestApi { clients, ..TestApi::default() }).await;
    for (key, path, code) in [
        ("nobody", "/proxy/wx1/cgi-bin/menu/get", "unauthorized"),
        ("reader", "/proxy/wx1/cgi-bin/menu/get", "forbidden"),
        ("narrow", "/proxy/wx2/cgi-bin/menu/get", "forbidden"),
        ("narrow", "/proxy/wx3/cgi-bin/menu/get", "forbidden"),
        ("narrow", "/proxy/w%20x/cgi-bin/menu/get", "unknown_account"),
        ("narrow", "/proxy/wx1", "not_found"),
        ("narrow", "/proxy/wx1/", "not_found"),
        ("narrow", "/proxy/wx1/wxa/x", "path_not_allowed"),
        ("narrower", "/proxy/wx1/cgi-bin/messages", "path_not_allowed"),
        ("narrow", "/proxy/wx1/cgi-bin/token", "path_not_allowed"),
        ("narrow", "/proxy/wx1/cgi-bin/stable_token/", "path_not_allowed"),
        ("narrow", "/proxy/wx1/cgi-bin/component/api_query_auth", "path_not_allowed"),
        ("narrow", "/proxy/wx1//cgi-bin/menu/get", "bad_request"),
        ("narrow", "/proxy/wx1/cgi-bin/%74oken", "bad_request"),
        ("narrow", "/proxy/wx1/cgi-bin%2Ftoken", "bad_request"),
        ("narrow", "/proxy/wx1/cgi-bin/%2e%2e/wxa/x", "bad_request"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {key}\r\n\r\n");
        let answer = raw_answer(rig.address, &request).await;
        answer.is_problem(code);
        rig.is_problem(&answer, code);
    }
    for path in ["/proxy/wx1/cgi-bin/../wxa/x", "/proxy/wx1/cgi-bin/./x"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer narrow\r\n\r\n");
        rig.is_problem(&raw_answer(rig.address, &request).await, "bad_request");
    }
    assert_eq!(gateway.calls(), [""; 0], "nothing was passed on");
    for (key, path) in [
        ("narrow", "/proxy/wx1/cgi-bin/message/custom/send"),
        ("narrower", "/proxy/wx1/cgi-bin/message/custom/send"),
        ("narrow", "/proxy/wx1/cgi-bin/tokens"),
    ] {
        gateway.then(Reply::Bytes(ok("", "{}")));
        let key = format!("Bearer {key}");
        assert_eq!(rig.call("GET", path, &[("authorization", &key)], "").await.body, "{}");
    }
}

#[tokio::test]
async fn an_upstream_that_fails_gives_an_error_of_its_own_and_nothing_is_sent_twice() {
    let proxy = ProxyConfig { timeout: Duration::from_millis(300), ..ProxyConfig::default() };
    let (rig, gateway) = rig_with(TestApi { proxy, ..TestApi::default() }).await;
    let half = {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(REFUSED.as_bytes()).unwrap();
        let whole = gzip.finish().unwrap();
        ok("Content-Encoding: gzip\r\n", &whole[..whole.len() / 2])
    };
    let token = rig.token_of("wx1").await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: https://evil.example/?access_token={token}\r\nContent-Length: 0\r\n\r\n"
    );
    for (reply, code, words) in [
        (Reply::Hang, "gateway_timeout", "did not answer in time"),
        (Reply::Cut(Vec::new()), "bad_gateway", "broke"),
        (Reply::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\"".into()), "bad_gateway", "cut off"),
        (
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\"".into()),
            "gateway_timeout",
            "in time",
        ),
        (Reply::Cut(b"not HTTP at all\r\n\r\n".into()), "bad_gateway", "broke"),
        (Reply::Bytes(redirect.into_bytes()), "bad_gateway", "redirect (HTTP 302)"),
        (Reply::Bytes(half), "bad_gateway", "compressed and ends too early"),
    ] {
        for method in ["GET", "POST"] {
            let reply = match &reply {
                Reply::Hang => Reply::Hang,
                Reply::Sandbox => Reply::Sandbox,
                Reply::Cut(bytes) => Reply::Cut(bytes.clone()),
                Reply::Bytes(bytes) => Reply::Bytes(bytes.clone()),
            };
            gateway.then(reply);
            let answer = rig.call(method, "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await;
            rig.is_problem(&answer, code);
            assert!(answer.body.contains(words), "{answer:?}");
            assert!(!format!("{answer:?}").contains(&token), "{answer:?}");
            assert_eq!(gateway.calls().len(), 1, "{method}, sent once: {answer:?}");
        }
    }
    // What has been passed back cannot be an error any more: the connection ends with it.
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(100_000));
    gateway.then(Reply::Cut(begun.into_bytes()));
    let url = format!("http://{}/proxy/wx1/cgi-bin/menu/get", rig.address);
    let answer = rig.http.get(url).header(KEY.0, KEY.1).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_passed_by() {
    let (rig, gateway) = rig().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = rig.config.clone();
    let there = config.upstream.base_urls[0].clone();
    config.upstream.base_urls = vec![format!("http://{nobody}/").parse().unwrap(), there];
    rig.fleet.reload(config.clone()).await.unwrap();
    let answer = rig.call("POST", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "body").await;
    assert!(succeeded(&answer), "{answer:?}");
    assert!(gateway.calls().concat().ends_with("\r\n\r\nbody"));
    config.upstream.base_urls.pop();
    rig.fleet.reload(config).await.unwrap();
    let answer = rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await;
    rig.is_problem(&answer, "bad_gateway");
    assert!(answer.body.contains("nothing was sent"), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_call() {
    let (rig, gateway) = rig().await;
    for hang in ["head", "body"] {
        let ended = gateway.ended();
        gateway.then(match hang {
            "head" => Reply::Hang,
            _ => Reply::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "x").into_bytes()),
        });
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let request =
            "GET /proxy/wx1/cgi-bin/menu/get HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer caller\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        until("the call is there", || !gateway.calls().is_empty()).await;
        if hang == "body" {
            while !String::from_utf8_lossy(&{
                let mut some = [0; 1000];
                let read = stream.read(&mut some).await.unwrap();
                some[..read].to_vec()
            })
            .ends_with('x')
            {}
        }
        drop(stream);
        until("the connection to WeChat is closed", || gateway.ended() > ended).await;
    }
    until("it is counted", || counted(&rig, "cancelled") == 1).await;
}

#[tokio::test]
async fn a_client_that_loses_its_rights_meanwhile_gets_nothing() {
    let (rig, gateway) = rig().await;
    gateway.then(Reply::Hang);
    let call = rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "");
    let withdraw = async {
        until("the call is there", || !gateway.calls().is_empty()).await;
        rig.clients.set(vec![client("caller", &["*"], READ)]);
    };
    let (answer, ()) = tokio::join!(call, withdraw);
    rig.is_problem(&answer, "forbidden");
}

#[tokio::test]
async fn large_bodies_are_streamed_both_ways() {
    let (rig, gateway) = rig().await;
    let (up, down) = ("u".repeat(3 << 20), "d".repeat(3 << 20));
    for kind in ["video/mp4", "application/json"] {
        gateway.then(Reply::Bytes(ok(&format!("Content-Type: {kind}\r\n"), &down)));
        let answer = rig.call("POST", "/proxy/wx1/cgi-bin/media/upload?type=video", &[KEY], &up).await;
        assert!(answer.status == 200 && answer.body == down);
        assert!(gateway.calls().concat().ends_with(&up));
    }
}

#[tokio::test]
async fn an_error_without_a_body_is_passed_back_as_it_is() {
    let (rig, gateway) = rig().await;
    // WeChat's answer to a body without Content-Length.
    let refusal = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n";
    gateway.then(Reply::Bytes(refusal.into()));
    let request = "POST /proxy/wx1/cgi-bin/media/upload HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer caller\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = raw_answer(rig.address, request).await;
    assert_eq!((answer.status, &*answer.body, answer.header("content-length")), (412, "", "0"), "{answer:?}");
    assert!(gateway.calls().concat().ends_with("3\r\nabc\r\n0\r\n\r\n"), "chunked, as it came");
    // Nor is a body taken for an answer.
    let inner = format!("{refusal}x");
    gateway.then(Reply::Bytes(ok("Content-Type: video/mp4\r\n", refusal)));
    gateway.then(Reply::Bytes(ok("Content-Type: video/mp4\r\n", &inner)));
    for body in [refusal, &inner] {
        assert_eq!(rig.call("GET", "/proxy/wx1/cgi-bin/menu/get", &[KEY], "").await.body, body);
    }
}

#[tokio::test]
async fn a_sign_in_of_a_user_needs_a_clients_key_where_the_app_secret_would_stand() {
    let clients = vec![client("caller", &["wx1"], CALL), client("reader", &["*"], READ)];
    let options = TestApi { clients, wechat_path: "/wx".to_owned(), ..TestApi::default() };
    let (rig, gateway) = rig_with(options).await;
    for (path, call) in [
        ("/sns/jscode2session?js_code=a%2Db&", "/sns/jscode2session"),
        ("/wx/sns/jscode2session?js_code=a%2Db&", "/sns/jscode2session"),
        ("//sns/oauth2/access_token?code=a%2Db&", "/sns/oauth2/access_token"),
        ("/proxy/wx1/sns/oauth2/access_token?code=a%2Db&", "/sns/oauth2/access_token"),
    ] {
        gateway.then(Reply::Bytes(ok("Content-Type: text/plain\r\n", r#"{"openid":"o","session_key":"k"}"#)));
        let answer = rig.get(&format!("{path}secret=caller&grant_type=x&appid=wx1")).await;
        assert_eq!(answer.json()["openid"], "o", "{answer:?}");
        let calls = gateway.calls();
        let code = if call.contains("jscode") { "js_code" } else { "code" };
        let expected = format!("GET {call}?appid=wx1&secret={SECRET}&{code}=a%2Db&grant_type=x HTTP/1.1\r\n");
        assert!(calls[0].starts_with(&expected), "{calls:?}");
    }
    // By the header, too, below /proxy/ and without an appid.
    let answer = rig.call("GET", "/proxy/wx1/sns/jscode2session?js_code=x", &[KEY], "").await;
    assert_eq!(answer.json()["errcode"], 40029, "{answer:?}");
    assert_eq!(gateway.calls().len(), 1, "{answer:?}");
    // A refusal is never a reason to send a code twice.
    gateway.then(Reply::Bytes(ok("", REFUSED)));
    assert_eq!(rig.get("/sns/jscode2session?appid=wx1&secret=caller&js_code=x").await.body, REFUSED);
    assert_eq!(gateway.calls().len(), 1);

    for (query, errcode) in [
        ("appid=wx1&secret=wrong&js_code=x", 40125),
        ("appid=wx1&js_code=x", 40125),
        ("appid=wx1&secret=reader&js_code=x", 48001),
        ("appid=wx2&secret=caller&js_code=x", 48001),
        ("appid=&secret=caller&js_code=x", 40013),
        ("secret=caller&js_code=x", 40013),
    ] {
        let answer = rig.get(&format!("/sns/jscode2session?{query}")).await;
        assert_eq!(
            (answer.status, answer.json()["errcode"].as_i64()),
            (200, Some(errcode)),
            "{query}: {answer:?}"
        );
        assert!(!rig.leaks(&answer.body));
    }
    for (path, code) in [
        ("/proxy/wx1/sns/jscode2session?secret=wrong", "unauthorized"),
        ("/proxy/wx1/sns/jscode2session?appid=wx2&secret=caller", "bad_request"),
        ("/proxy/wx2/sns/jscode2session?secret=caller", "forbidden"),
    ] {
        rig.is_problem(&rig.get(path).await, code);
    }
    assert_eq!(rig.post("/sns/jscode2session?appid=wx1&secret=caller").await.json()["errcode"], 43001);
    assert_eq!(gateway.calls().len(), 0);
}

#[tokio::test]
async fn a_users_own_token_stays_in_the_users_calls() {
    let (rig, gateway) = rig().await;
    gateway.then(Reply::Bytes(ok("", "{}")));
    rig.call("GET", "/proxy/wx1/sns/userinfo?access_token=users&openid=o", &[KEY], "").await;
    assert!(gateway.calls()[0].starts_with("GET /sns/userinfo?access_token=users&openid=o HTTP/1.1\r\n"));
}
