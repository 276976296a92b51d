//! The simulated WeChat over real sockets.

mod answers;
mod requests;
#[cfg(feature = "tls")]
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use crate::{Fault, FaultKind, LostAs, Outage, Sandbox, Settings};

const MINT: &str =
    "GET /cgi-bin/token?grant_type=client_credential&appid=wx01&secret=s3 HTTP/1.1\r\nHost: w\r\n\r\n";
const BODY: &str = r#"{"grant_type":"client_credential","appid":"wx01","secret":"s3"}"#;

/// A sandbox on a free port, which ends with the test.
async fn sandbox() -> (Sandbox, SocketAddr) {
    let accounts = vec![(Appid::new("wx01").unwrap(), Secret::new("s3"))];
    let sandbox = Sandbox::new(Settings { accounts, ..Settings::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = sandbox.clone();
    drop(tokio::spawn(async move { served.serve(listener, std::future::pending()).await }));
    (sandbox, address)
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Returns everything that arrives until the server ends the connection.
async fn exchange(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = send(address, &request.replacen("\r\n", "\r\nConnection: close\r\n", 1)).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Status and body of a control call.
async fn control(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request =
        format!("{method} /_sandbox{path} HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n{body}");
    let text = exchange(address, &request).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}")))
}

fn wx01() -> Appid {
    Appid::new("wx01").unwrap()
}

#[tokio::test]
async fn a_client_gets_a_token_with_the_sandboxs_own_date() {
    let (sandbox, address) = sandbox().await;
    let text = exchange(address, MINT).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("date: Mon, 21 Sep 2026 14:13:2"),
        "{text}"
    );
    let value: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(sandbox.is_alive(value["access_token"].as_str().unwrap()));
}

#[tokio::test]
async fn doubled_slashes_and_encoded_tokens_are_understood() {
    let (sandbox, address) = sandbox().await;
    let text = exchange(address, &MINT.replace("/cgi-bin", "//cgi-bin")).await.unwrap();
    assert!(text.contains("access_token"), "{text}");
    let token = sandbox.truth(&wx01()).unwrap().living_tokens[0].access_token.clone();
    let encoded = token.expose().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let check = format!("GET //cgi-bin/get_api_domain_ip?access_token={encoded} HTTP/1.1\r\nHost: w\r\n\r\n");
    assert!(exchange(address, &check).await.unwrap().contains("ip_list"));
}

#[tokio::test]
async fn a_chunked_post_gets_412_and_a_measured_one_a_token() {
    let (_sandbox, address) = sandbox().await;
    let (length, hex) = (BODY.len(), format!("{:x}", BODY.len()));
    let chunked = format!(
        "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{BODY}\r\n0\r\n\r\n"
    );
    let text = exchange(address, &chunked).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 412 ") && text.ends_with("\r\n\r\n"), "{text}");
    let measured =
        format!("POST /cgi-bin/stable_token HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n{BODY}");
    assert!(exchange(address, &measured).await.unwrap().contains("access_token"));
}

#[tokio::test]
async fn a_reset_reaches_the_client_as_a_reset() {
    let (sandbox, address) = sandbox().await;
    sandbox.inject(None, Fault::new(FaultKind::Reset).times(1));
    let error = exchange(address, MINT).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(sandbox.counters(&wx01()).token_mints, 0);
    sandbox.set_outage(Some(Outage::Refuse));
    assert_eq!(exchange(address, MINT).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn half_an_answer_promises_the_whole_and_ends() {
    let (sandbox, address) = sandbox().await;
    sandbox.inject(None, Fault::new(FaultKind::Half));
    let text = exchange(address, MINT).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let promised: usize = head.split_once("Content-Length: ").unwrap().1.parse().unwrap();
    assert_eq!(body.len(), promised / 2);
    assert_eq!(sandbox.counters(&wx01()).token_mints, 1);
}

#[tokio::test]
async fn a_hanging_call_gets_nothing_while_others_are_answered() {
    let (sandbox, address) = sandbox().await;
    sandbox.inject(None, Fault::new(FaultKind::Lost { seen_as: LostAs::Hang }).times(1));
    let mut hanging = send(address, MINT).await;
    let minted = async {
        while sandbox.counters(&wx01()).token_mints == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), minted).await.unwrap();
    assert!(exchange(address, MINT).await.unwrap().contains("access_token"));
    let read = tokio::time::timeout(Duration::from_millis(50), hanging.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn a_late_request_is_carried_out_after_its_client_has_gone_and_after_its_retry() {
    let (sandbox, address) = sandbox().await;
    // A minute, so that it does not arrive before the retry, however slow the machine is.
    let late = json!({"kind": "late", "after_ms": 60_000, "as": "reset", "times": 1});
    assert_eq!(control(address, "POST", "/faults", &late.to_string()).await.0, 200);
    assert!(exchange(address, MINT).await.is_err());
    assert_eq!(sandbox.counters(&wx01()).token_mints, 0);
    assert!(exchange(address, MINT).await.unwrap().contains("access_token"));
    let retried = sandbox.truth(&wx01()).unwrap().living_tokens[0].access_token.clone();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(sandbox.counters(&wx01()).token_mints, 2);
    tokio::time::advance(Duration::from_secs(300)).await;
    assert!(!sandbox.is_alive(retried.expose()), "what arrived late has ended it");
}

#[tokio::test]
async fn a_delayed_answer_comes_late_and_whole() {
    let (sandbox, address) = sandbox().await;
    sandbox.inject(None, Fault::new(FaultKind::Delay { delay_ms: 80 }));
    let sent_at = tokio::time::Instant::now();
    assert!(exchange(address, MINT).await.unwrap().contains("access_token"));
    assert!(sent_at.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn the_shutdown_cuts_hanging_calls_too() {
    let sandbox = Sandbox::new(Settings::default());
    sandbox.set_outage(Some(Outage::Hang));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = sandbox.serve(listener, async { drop(stopped.await) });
    let client = async {
        let mut hanging = send(address, MINT).await;
        let answered = tokio::time::timeout(Duration::from_millis(50), hanging.read_u8()).await;
        assert!(answered.is_err(), "{answered:?}");
        stop.send(()).unwrap();
        assert!(hanging.read_u8().await.is_err());
    };
    tokio::join!(serving, client);
}

#[tokio::test]
async fn a_real_client_reads_the_answers() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (_sandbox, address) = sandbox().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{address}/cgi-bin/stable_token");
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let text = client.post(&url).body(BODY).send().await.unwrap().text().await.unwrap();
        tokens.push(serde_json::from_str::<Value>(&text).unwrap()["access_token"].clone());
    }
    assert!(tokens[0].is_string() && tokens[0] == tokens[1], "{tokens:?}");
}

#[tokio::test]
async fn the_control_api_injects_faults_and_clears_them() {
    let (_sandbox, address) = sandbox().await;
    let fault = json!({"kind": "errcode", "errcode": 40164, "endpoint": "token", "times": 2});
    for list in ["/faults", "/accounts/wx01/faults"] {
        let (status, _) = control(address, "POST", list, &fault.to_string()).await;
        assert_eq!(status, 200);
        assert_eq!(control(address, "GET", list, "").await.1, json!({"faults": [fault]}));
    }
    assert!(exchange(address, MINT).await.unwrap().contains("invalid ip 127.0.0.1 "));
    assert_eq!(control(address, "GET", "/accounts/wx01/faults", "").await.1["faults"][0]["times"], 1);
    for list in ["/faults", "/accounts/wx01/faults"] {
        control(address, "DELETE", list, "").await;
    }
    assert!(exchange(address, MINT).await.unwrap().contains("access_token"));
}

#[tokio::test]
async fn every_kind_of_fault_can_be_injected_as_documented() {
    let (_sandbox, address) = sandbox().await;
    let documented = [
        json!({"kind": "errcode", "errcode": -1, "errmsg": "busy"}),
        json!({"kind": "status", "status": 412, "endpoint": "any"}),
        json!({"kind": "html", "endpoint": "stable_token"}),
        json!({"kind": "hang", "endpoint": "check"}),
        json!({"kind": "reset", "endpoint": "ticket"}),
        json!({"kind": "empty_token", "endpoint": "quota"}),
        json!({"kind": "delay", "delay_ms": 5, "endpoint": "business"}),
        json!({"kind": "half"}),
        json!({"kind": "bad_expires", "expires_in": 0}),
        json!({"kind": "lost", "as": "hang"}),
        json!({"kind": "lost", "as": "reset"}),
        json!({"kind": "lost", "as": "html"}),
        json!({"kind": "lost", "as": "502"}),
        json!({"kind": "lost", "as": "504"}),
        json!({"kind": "raw", "status": 429, "headers": {"Retry-After": "9"}, "body": "x"}),
        json!({"kind": "raw", "body_base64": "AAE="}),
        json!({"kind": "errcode", "errcode": 40164, "probability": 0.25}),
        json!({"kind": "errcode", "errcode": 40001, "access_token": "t", "for_ms": 30_000}),
        json!({"kind": "html", "path": "/wxa/*"}),
        json!({"kind": "late", "after_ms": 5}),
        json!({"kind": "late", "after_ms": 5, "as": "reset"}),
    ];
    for fault in documented {
        let seen = control(address, "POST", "/faults", &fault.to_string()).await;
        assert_eq!(seen, (200, json!({"ok": true})), "{fault}");
    }
}

#[tokio::test]
async fn the_control_api_reports_the_truth() {
    let (sandbox, address) = sandbox().await;
    exchange(address, MINT).await.unwrap();
    let (_, account) = control(address, "GET", "/accounts/wx01", "").await;
    assert_eq!((&account["appid"], &account["counters"]["token_mints"]), (&json!("wx01"), &json!(1)));
    assert_eq!(control(address, "GET", "/accounts", "").await.1["accounts"].as_array().unwrap().len(), 1);
    let token = &account["tokens"][0];
    assert!(token["dies_in"].as_f64().is_some_and(|left| left > 7100.0 && left <= 7200.0), "{token}");
    let value = token["access_token"].as_str().unwrap();
    assert!(sandbox.is_alive(value));
    let path = format!("/token?access_token={}", value.replace('+', "%2B").replace('=', "%3D"));
    assert_eq!(control(address, "GET", &path, "").await.1["alive"], json!(true));
    control(address, "DELETE", "/accounts/wx01/tokens", "").await;
    let (_, dead) = control(address, "GET", &path, "").await;
    assert_eq!(
        (&dead["alive"], &dead["appid"], &dead["dies_in"]),
        (&json!(false), &json!("wx01"), &json!(0.0))
    );
    let (_, unknown) = control(address, "GET", "/token?access_token=x", "").await;
    assert_eq!((&unknown["alive"], &unknown["appid"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn a_raw_answer_goes_over_the_wire_as_it_is_lies_about_its_length_included() {
    let (_sandbox, address) = sandbox().await;
    let mut seen = Vec::new();
    for headers in [json!({"Retry-After": "60", "Date": "never"}), json!({"Content-Length": "99"})] {
        let raw = json!({"kind": "raw", "status": 503, "headers": headers, "body": "12345", "times": 1});
        control(address, "POST", "/faults", &raw.to_string()).await;
        seen.push(exchange(address, MINT).await.unwrap().to_ascii_lowercase());
    }
    assert!(
        seen.iter().all(|text| text.starts_with("http/1.1 503 ") && text.ends_with("\r\n\r\n12345")),
        "{seen:?}"
    );
    assert!(seen[0].contains("retry-after: 60\r\n") && seen[0].contains("date: never\r\n"), "{seen:?}");
    assert!(seen[0].contains("content-length: 5\r\n") && !seen[0].contains("content-type"), "{seen:?}");
    assert!(seen[1].contains("content-length: 99\r\n") && !seen[1].contains("content-length: 5"), "{seen:?}");
}

#[tokio::test]
async fn whitelists_and_freezes_are_set_as_in_the_console() {
    let (_sandbox, address) = sandbox().await;
    let list = json!({"ips": ["203.0.113.*"], "calls": "all"});
    assert_eq!(control(address, "PUT", "/accounts/wx01/whitelist", &list.to_string()).await.0, 200);
    assert_eq!(control(address, "GET", "/accounts/wx01", "").await.1["whitelist"], list);
    assert!(exchange(address, MINT).await.unwrap().contains("invalid ip 127.0.0.1 "));
    let from = |ip: &str| MINT.replacen("\r\n", &format!("\r\nX-Sandbox-Source-IP: {ip}\r\n"), 1);
    assert!(exchange(address, &from("203.0.113.7")).await.unwrap().contains("access_token\""));
    assert!(exchange(address, &from("203.0.114.7")).await.unwrap().contains("invalid ip 203.0.114.7 "));
    assert_eq!(control(address, "DELETE", "/accounts/wx01/whitelist", "").await.0, 200);
    control(address, "PUT", "/switches", r#"{"freezing_takes_s":0}"#).await;
    for (method, frozen, said) in [("PUT", true, "40243"), ("DELETE", false, "access_token\"")] {
        assert_eq!(control(address, method, "/accounts/wx01/frozen", "").await.0, 200);
        assert_eq!(control(address, "GET", "/accounts/wx01", "").await.1["frozen"], json!(frozen));
        assert!(exchange(address, MINT).await.unwrap().contains(said), "{method}");
    }
    assert_eq!(control(address, "PUT", "/seed", r#"{"seed":7}"#).await.0, 200);
}

#[tokio::test]
async fn accounts_switches_and_outages_can_be_set() {
    let (sandbox, address) = sandbox().await;
    assert_eq!(control(address, "PUT", "/accounts/wx02", r#"{"secret":"s4"}"#).await.0, 200);
    assert!(
        exchange(address, &MINT.replace("wx01&secret=s3", "wx02&secret=s4"))
            .await
            .unwrap()
            .contains("access_token")
    );
    let (_, all) = control(address, "PUT", "/switches", r#"{"daily_limit":7,"long_tokens":true}"#).await;
    assert_eq!((&all["daily_limit"], &all["minute_limit"]), (&json!(7), &json!(10_000)));
    assert!(sandbox.switches().long_tokens);
    assert_eq!(control(address, "GET", "/switches", "").await.1, all);
    for kind in ["refuse", "hang", "status:502", "none"] {
        let body = json!({ "kind": kind });
        assert_eq!(control(address, "PUT", "/outage", &body.to_string()).await.0, 200);
        assert_eq!(control(address, "GET", "/outage", "").await.1, body);
    }
    sandbox.set_outage(Some(Outage::Status(502)));
    assert!(exchange(address, MINT).await.unwrap().starts_with("HTTP/1.1 502 "));
    control(address, "DELETE", "/outage", "").await;
    assert_eq!(sandbox.with(|world, _| world.outage()), None);
}

#[tokio::test]
async fn bad_control_input_gets_a_clear_error() {
    let (_sandbox, address) = sandbox().await;
    let table = [
        (400, "POST", "/faults", "x", "no JSON object"),
        (400, "POST", "/faults", r#"{"kind":"explode"}"#, "explode"),
        (400, "POST", "/faults", r#"{"kind":"errcode"}"#, "errcode"),
        (400, "POST", "/faults", r#"{"kind":"hang","tims":1}"#, "tims"),
        (400, "POST", "/faults", r#"{"kind":"hang","endpoint":"moon"}"#, "stable_token"),
        (400, "POST", "/faults", r#"{"kind":"status","status":99}"#, "200 to 599"),
        (400, "POST", "/faults", r#"{"kind":"raw","status":99}"#, "100 to 999"),
        (400, "POST", "/faults", r#"{"kind":"raw","headers":{"a b":"c"}}"#, "a b"),
        (400, "POST", "/faults", r#"{"kind":"raw","headers":{"a":"b\n"}}"#, "header"),
        (400, "POST", "/faults", r#"{"kind":"raw","body_base64":"?"}"#, "base64"),
        (400, "POST", "/faults", r#"{"kind":"raw","bodi":"x"}"#, "bodi"),
        (400, "POST", "/faults", r#"{"kind":"hang","probability":1.5}"#, "probability"),
        (400, "POST", "/faults", r#"{"kind":"hang","probability":0}"#, "probability"),
        (400, "PUT", "/accounts/wx01/whitelist", r#"{"ips":["moon"]}"#, "moon"),
        (404, "PUT", "/accounts/wx99/frozen", "", "wx99"),
        (400, "PUT", "/seed", r#"{"seed":-1}"#, "-1"),
        (400, "PUT", "/switches", r#"{"dayly_limit":1}"#, "dayly_limit"),
        (400, "PUT", "/outage", r#"{"kind":"status:1"}"#, "status:NNN"),
        (400, "PUT", "/accounts/wx02", r#"{"secret":""}"#, "empty"),
        (400, "GET", "/token", "", "access_token"),
        (400, "PUT", "/accounts/a%20b", r#"{"secret":"s"}"#, "1 to 64"),
        (404, "GET", "/accounts/wx99", "", "wx99"),
        (404, "POST", "/accounts/wx99/faults", r#"{"kind":"hang"}"#, "wx99"),
        (404, "GET", "/nowhere", "", "no such call"),
        (405, "DELETE", "/switches", "", "method"),
    ];
    for (expected, method, path, body, words) in table {
        let (status, value) = control(address, method, path, body).await;
        let error = value["error"].as_str().unwrap_or_default();
        assert!(status == expected && error.contains(words), "{method} {path} {body}: {status} {value}");
    }
}
