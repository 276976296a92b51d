//! Whose token a request carries, and what takes its place.

use wxtokend_sandbox::{Call, FaultKind};

use super::*;

const BEARER: (&str, &str) = ("authorization", "Bearer nginx");

async fn rig() -> Rig {
    let narrow = Client { paths: vec!["/cgi-bin/user/".to_owned()], ..client("narrow", &["*"], CALL) };
    let clients = vec![
        client("nginx", &["*"], CALL),
        client("one", &["wx2"], CALL),
        client("all", &["*"], READ),
        narrow,
    ];
    Rig::start(TestApi { clients, ..TestApi::default() }).await
}

/// Asks for a request with this path and query.
async fn about(rig: &Rig, key: &str, uri: &str) -> Answer {
    let authorization = format!("Bearer {key}");
    rig.call("GET", "/v1/resolve", &[("authorization", &authorization), ("x-original-uri", uri)], "").await
}

#[track_caller]
fn is_resolved(answer: &Answer, appid: &str, token: &str) {
    assert_eq!((answer.status, &*answer.body), (204, ""), "{answer:?}");
    let headers = ["x-appid", "x-access-token", "cache-control"].map(|name| answer.header(name));
    assert_eq!(headers, [appid, token, "no-store"], "{answer:?}");
}

#[tokio::test]
async fn a_token_of_an_account_current_or_earlier_is_resolved_to_the_current_one() {
    let rig = rig().await;
    let first = rig.token_of("wx1").await;
    is_resolved(
        &about(&rig, "nginx", &format!("/cgi-bin/user/get?access_token={first}")).await,
        "wx1",
        &first,
    );
    rig.sandbox.kill_tokens(&id("wx1"));
    rig.fleet.reject("wx1", &first).await.unwrap();
    let current = rig.token_of("wx1").await;
    assert_ne!(current, first);
    for carried in [&first, &current] {
        for uri in [
            format!("/cgi-bin/user/get?access_token={carried}"),
            format!("/cgi-bin/user/get?a=1&b&access_token={carried}&access_tokens=x&c=%zz"),
            format!("/wxa/微信?access_token={carried}"),
            format!("/a?access%5Ftoken={}", carried.replace('_', "%5f")),
            format!("/?access_token={carried}"),
        ] {
            is_resolved(&about(&rig, "nginx", &uri).await, "wx1", &current);
        }
        for (uri, rewritten) in [
            (format!("/a?access_token={carried}"), format!("/a?access_token={current}")),
            (
                format!("/a?x=%20+&access%5ftoken={carried}&&y"),
                format!("/a?access_token={current}&x=%20+&&y"),
            ),
        ] {
            assert_eq!(about(&rig, "nginx", &uri).await.header("x-rewritten-uri"), rewritten);
        }
        let answer = about(&rig, "nginx", &format!("/微?access_token={carried}&n=信")).await;
        let rewritten = answer.headers["x-rewritten-uri"].as_bytes();
        assert_eq!(rewritten, format!("/微?access_token={current}&n=信").as_bytes());
        let path = format!("/v1/resolve?access_token={carried}");
        for method in ["GET", "HEAD"] {
            is_resolved(&rig.call(method, &path, &[BEARER], "").await, "wx1", &current);
        }
        is_resolved(
            &about(&rig, "narrow", &format!("/cgi-bin/user/x?access_token={carried}")).await,
            "wx1",
            &current,
        );
    }
}

#[tokio::test]
async fn what_carries_no_such_token_is_refused_and_told_none() {
    let rig = rig().await;
    let (token, other) = (rig.token_of("wx1").await, rig.token_of("wx2").await);
    let user = format!("/cgi-bin/user/get?access_token={token}");
    for (key, uri, code) in [
        ("nginx", "/cgi-bin/user/get", "unauthorized"),
        ("nginx", "/cgi-bin/user/get?", "unauthorized"),
        ("nginx", "/cgi-bin/user/get?access_token", "unauthorized"),
        ("nginx", "/cgi-bin/user/get?access_token=", "unauthorized"),
        ("nginx", "/cgi-bin/user/get?access_token=nobodys", "unauthorized"),
        ("nginx", "/cgi-bin/user/get?access_token=%ff", "unauthorized"),
        ("nginx", &format!("{user}x"), "unauthorized"),
        ("nginx", &user[..user.len() - 1], "unauthorized"),
        ("nginx", &format!("/x/access_token={token}"), "unauthorized"),
        ("nginx", &format!("/x?component_access_token={token}"), "unauthorized"),
        ("nginx", &format!("/x?Access_Token={token}"), "unauthorized"),
        ("nginx", &format!("{user}&access_token={token}"), "bad_request"),
        ("nginx", &format!("{user}&access_token="), "bad_request"),
        ("nginx", &format!("{user}&access%5ftoken=x"), "bad_request"),
        ("nginx", &format!("/x#?access_token={token}"), "bad_request"),
        ("nginx", &format!("{user}#"), "bad_request"),
        ("nginx", &format!("https://api.weixin.qq.com{user}"), "bad_request"),
        ("nginx", "", "bad_request"),
        ("nginx", &format!("/{user}"), "bad_request"),
        ("nginx", &format!("/cgi-bin/%74oken?access_token={token}"), "bad_request"),
        ("nginx", &format!("/cgi-bin/token?access_token={token}"), "path_not_allowed"),
        ("nginx", &format!("/cgi-bin/clear_quota?access_token={token}"), "path_not_allowed"),
        // Without a token of ours the path is not ours to judge.
        ("nginx", "/cgi-bin/token?appid=wx1", "unauthorized"),
        ("narrow", &user, ""),
        ("narrow", &format!("/cgi-bin/users?access_token={token}"), "path_not_allowed"),
        ("one", &format!("/x?access_token={other}"), ""),
        ("one", &user, "forbidden"),
        ("all", &user, "forbidden"),
        ("wrong", &user, "unauthorized"),
    ] {
        let answer = about(&rig, key, uri).await;
        match code {
            "" => assert_eq!(answer.status, 204, "{key} {uri}: {answer:?}"),
            code => {
                assert_eq!(answer.header("x-access-token"), "", "{key} {uri}: {answer:?}");
                assert_eq!(answer.json()["code"], code, "{key} {uri}: {answer:?}");
                rig.is_problem(&answer, code);
            }
        }
    }
    let path = format!("/v1/resolve?access_token={token}");
    for (key, path, code) in [
        ("nginx", "/v1/resolve", "unauthorized"),
        ("nginx", "/v1/resolve?access_token=", "unauthorized"),
        ("nginx", "/v1/resolve?token=x", "bad_request"),
        ("nginx", &format!("{path}&access_token={token}"), "bad_request"),
        ("narrow", &path, "path_not_allowed"),
    ] {
        rig.is_problem(&rig.get_as(key, path).await, code);
    }
}

#[tokio::test]
async fn a_header_that_comes_twice_beside_a_parameter_or_in_no_utf_8_is_refused() {
    let rig = rig().await;
    let token = rig.token_of("wx1").await;
    let uri = format!("/x?access_token={token}");
    for (query, header, status) in [
        ("", format!("X-Original-URI: {uri}\r\n"), 204),
        ("", format!("X-Original-URI: {uri}\r\nx-original-uri: {uri}\r\n"), 400),
        ("", format!("X-Original-URI: {uri}\r\nX-Original-URI: /x\r\n"), 400),
        (&*format!("?access_token={token}"), format!("X-Original-URI: {uri}\r\n"), 400),
        // One byte each: no UTF-8.
        ("", format!("X-Original-URI: {uri}&n=\u{e9}\r\n"), 400),
    ] {
        let head = format!(
            "GET /v1/resolve{query} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nAuthorization: Bearer nginx\r\n{header}\r\n"
        );
        let bytes: Vec<u8> = head.chars().map(|character| u8::try_from(character).unwrap()).collect();
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.expect("an end").unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{head}{text}");
    }
}

#[tokio::test]
async fn without_a_token_a_request_waits_as_a_read_does() {
    let rig = rig().await;
    let dead = rig.token_of("wx1").await;
    let uri = format!("/cgi-bin/user/get?access_token={dead}");
    rig.sandbox.kill_tokens(&id("wx1"));
    let delayed = Fault::new(FaultKind::Delay { delay_ms: 1_500 });
    rig.sandbox.inject(Some(&id("wx1")), delayed.on(Call::StableToken));
    let waiting = async {
        until("the token is found dead", || rig.fleet.token_at_once("wx1").is_none()).await;
        about(&rig, "nginx", &uri).await
    };
    let (answer, _) = tokio::join!(waiting, rig.fleet.reject("wx1", &dead));
    is_resolved(&answer, "wx1", &rig.token_of("wx1").await);

    let dead = rig.token_of("wx2").await;
    rig.sandbox.kill_tokens(&id("wx2"));
    rig.sandbox.inject(Some(&id("wx2")), Fault::errcode(40164).on(Call::StableToken));
    let _ = rig.fleet.reject("wx2", &dead).await;
    let answer = about(&rig, "nginx", &format!("/cgi-bin/user/get?access_token={dead}")).await;
    rig.is_problem(&answer, "token_unavailable");
}
