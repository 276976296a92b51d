//! Business calls: WeChat's own answers, and those that are set.

use std::io::Read as _;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::*;
use crate::{CannedAnswer, CannedBody};

/// A live token of wx01, as a parameter.
async fn token(sandbox: &Sandbox, address: SocketAddr) -> String {
    exchange(address, MINT).await.unwrap();
    let truth = sandbox.truth(&wx01()).unwrap();
    format!("access_token={}", truth.living_tokens.last().unwrap().access_token.expose())
}

async fn set(address: SocketAddr, answer: &Value) {
    let answered = control(address, "POST", "/answers", &answer.to_string()).await;
    assert_eq!(answered, (200, json!({"ok": true})), "{answer}");
}

/// Head, in lower case, and body of the answer; an error of the connection after that is its end.
async fn call(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = send(address, &request.replacen("\r\n", "\r\nConnection: close\r\n", 1)).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&bytes[..end + 4]).to_ascii_lowercase(), bytes.split_off(end + 4))
}

fn get(path: &str, query: &str) -> String {
    format!("GET {path}?{query} HTTP/1.1\r\nHost: w\r\n\r\n")
}

fn errcode(body: &[u8]) -> i64 {
    let value: Value = serde_json::from_slice(body).unwrap();
    value["errcode"].as_i64().unwrap_or(0)
}

#[tokio::test]
async fn well_known_calls_get_what_their_documentation_says() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    for (path, pointer) in [
        ("/cgi-bin/getcallbackip", "/ip_list/0"),
        ("/cgi-bin/user/info", "/openid"),
        ("/cgi-bin/user/get", "/data/openid/0"),
        ("/cgi-bin/menu/get", "/menu/button/0/name"),
        ("/cgi-bin/message/custom/send", "/errmsg"),
        ("/cgi-bin/message/template/send", "/msgid"),
        ("/cgi-bin/media/upload", "/media_id"),
        ("/cgi-bin/material/batchget_material", "/item/0/media_id"),
        ("/wxa/business/getuserphonenumber", "/phone_info/purePhoneNumber"),
        ("/card/whatever", "/errcode"),
    ] {
        let (head, body) = call(address, &get(path, &token)).await;
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert!(head.starts_with("http/1.1 200 ") && value.pointer(pointer).is_some(), "{path}: {value}");
        assert_eq!(errcode(&call(address, &get(path, "")).await.1), 41001, "{path}");
    }
    for path in ["/cgi-bin/media/get", "/wxa/getwxacode", "/cgi-bin/material/get_material"] {
        let (head, body) = call(address, &get(path, &token)).await;
        assert!(head.contains("content-type: image/png") && body.starts_with(b"\x89PNG"), "{path}: {head}");
        assert_eq!(errcode(&call(address, &get(path, "access_token=stale")).await.1), 40001, "{path}");
    }
}

#[tokio::test]
async fn an_echo_shows_what_arrived_and_no_secret() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    set(address, &json!({"path": "/wxa/*", "body": "echo"})).await;
    let request = format!(
        "PUT /wxa/a%2Fb?x=%7e&{token}&secret=S&y=+ HTTP/1.1\r\nHost: w\r\nCookie: c=1\r\nX-Two: 1\r\nX-Two: 2\r\n\
         Authorization: Bearer K\r\nContent-Length: 5\r\n\r\nhello"
    );
    let (_, body) = call(address, &request).await;
    let value: Value = serde_json::from_slice(&body).unwrap();
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(
        (&value["method"], &value["path"], &value["query"], &value["access_tokens"]),
        (&json!("PUT"), &json!("/wxa/a%2Fb"), &json!("x=%7e&secret=[redacted]&y=+"), &json!(1))
    );
    assert_eq!(
        (&value["appid"], &value["length"], &value["sha256"]),
        (&json!("wx01"), &json!(5), &json!(sha256))
    );
    assert_eq!(value["headers"]["x-two"], json!(["1", "2"]));
    assert_eq!(value["headers"]["authorization"], json!(["[redacted]"]));
    assert_eq!(value["headers"]["cookie"], json!(["[redacted]"]));
}

#[tokio::test]
async fn a_set_answer_is_for_live_tokens_unless_it_says_otherwise() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    set(address, &json!({"path": "/wxa/*", "body": {"text": "first"}})).await;
    set(address, &json!({"path": "/wxa/one", "body": {"base64": "AAE="}, "status": 201})).await;
    let (head, body) = call(address, &get("/wxa/one", &token)).await;
    assert!(head.starts_with("http/1.1 201 ") && body == [0, 1], "{head}");
    assert_eq!(call(address, &get("/wxa/two", &token)).await.1, b"first");
    assert_eq!(errcode(&call(address, &get("/wxa/two", "access_token=stale")).await.1), 40001);
    let moved =
        json!({"path": "/nowhere", "status": 302, "headers": {"Location": "/x"}, "unauthenticated": true});
    set(address, &moved).await;
    let (head, _) = call(address, &get("/nowhere", "")).await;
    assert!(head.starts_with("http/1.1 302 ") && head.contains("\r\nlocation: /x\r\n"), "{head}");
    // A token is never made up.
    set(address, &json!({"path": "/cgi-bin/*", "body": {"text": "x"}, "unauthenticated": true})).await;
    assert!(exchange(address, MINT).await.unwrap().contains("access_token"));
    assert_eq!(errcode(&call(address, &get("/cgi-bin/get_api_domain_ip", "")).await.1), 41001);
    let answers = control(address, "GET", "/answers", "").await.1;
    assert_eq!(answers["answers"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&answers["answers"][1]["body"], sandbox.counters(&wx01()).business_calls),
        (&json!({"base64": "AAE="}), 2)
    );
    control(address, "DELETE", "/answers", "").await;
    assert_eq!(errcode(&call(address, &get("/cgi-bin/menu/get", "")).await.1), 41001);
}

#[tokio::test]
async fn downloads_of_any_size_are_made_as_they_are_sent() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    let size = 3_000_000;
    let expected: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
    set(address, &json!({"path": "/cgi-bin/media/get", "body": {"size": size}})).await;
    let (head, body) = call(address, &get("/cgi-bin/media/get", &token)).await;
    assert!(head.contains("content-length: 3000000\r\n") && body == expected, "{head}{}", body.len());
    // More than any memory holds.
    set(address, &json!({"path": "/cgi-bin/media/get", "body": {"size": 1_u64 << 50}})).await;
    let mut stream = send(address, &get("/cgi-bin/media/get", &token)).await;
    let mut begun = vec![0; 1 << 20];
    stream.read_exact(&mut begun).await.unwrap();
    assert!(String::from_utf8_lossy(&begun).contains("content-length: 1125899906842624\r\n"));
}

#[tokio::test]
async fn bodies_are_chunked_paced_and_cut_as_told() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    let text = "0123456789";
    let path = "/wxa/x";
    set(address, &json!({"path": path, "body": {"text": text}, "chunked": true, "chunk_bytes": 4})).await;
    let (head, body) = call(address, &get(path, &token)).await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!(body, b"4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n");
    set(address, &json!({"path": path, "body": {"text": text}, "chunk_bytes": 5, "chunk_delay_ms": 40}))
        .await;
    let sent_at = tokio::time::Instant::now();
    assert_eq!(call(address, &get(path, &token)).await.1, text.as_bytes());
    assert!(sent_at.elapsed() >= Duration::from_millis(40));
    for (chunked, cut, arrives) in [
        (false, 0.5, &b"01234"[..]),
        (true, 0.5, b"5\r\n01234\r\n"),
        (false, 0.0, b""),
        (false, 0.99, b"012345678"),
    ] {
        set(address, &json!({"path": path, "body": {"text": text}, "chunked": chunked, "cut": cut})).await;
        let (head, body) = call(address, &get(path, &token)).await;
        assert_eq!((head.contains("content-length: 10\r\n"), &*body), (!chunked, arrives), "{chunked} {cut}");
    }
    // A fault cuts it, too.
    sandbox.put_answer(CannedAnswer::new(path, CannedBody::Text(text.to_owned())));
    sandbox.inject(None, Fault::new(FaultKind::Half).at(path));
    assert_eq!(call(address, &get(path, &token)).await.1, b"01234");
}

#[tokio::test]
async fn bodies_are_compressed_whole_and_by_half() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    let value = json!({"errcode": 40001, "errmsg": "invalid"});
    for (gzip, readable) in [("whole", true), ("half", false)] {
        set(address, &json!({"path": "/wxa/x", "body": {"json": value}, "gzip": gzip})).await;
        let (head, body) = call(address, &get("/wxa/x", &token)).await;
        let length = format!("content-length: {}\r\n", body.len());
        assert!(head.contains("content-encoding: gzip\r\n") && head.contains(&length), "{head}");
        let mut text = String::new();
        let read = GzDecoder::new(&body[..]).read_to_string(&mut text);
        assert_eq!(
            (read.is_ok(), serde_json::from_str(&text).ok() == Some(value.clone())),
            (readable, readable),
            "{gzip}"
        );
    }
}

#[tokio::test]
async fn uploads_of_any_length_are_counted_and_read_as_slowly_as_told() {
    let (sandbox, address) = sandbox().await;
    let token = token(&sandbox, address).await;
    let (path, length) = ("/cgi-bin/media/upload", 3 << 20);
    let bytes = vec![7; length];
    let head =
        format!("POST {path}?{token}&type=voice HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n");
    let request = head + std::str::from_utf8(&bytes).unwrap();
    let (_, body) = call(address, &request).await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["type"], "voice");
    set(address, &json!({"path": path, "body": "echo", "upload_bytes_per_s": 30 << 20})).await;
    let sent_at = tokio::time::Instant::now();
    let echoed: Value = serde_json::from_slice(&call(address, &request).await.1).unwrap();
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&echoed["length"], &echoed["sha256"]), (&json!(length), &json!(sha256)));
    assert!(sent_at.elapsed() >= Duration::from_millis(80), "{:?}", sent_at.elapsed());
}

#[tokio::test]
async fn an_answer_that_cannot_be_sent_is_refused_when_it_is_set() {
    let (_sandbox, address) = sandbox().await;
    for (answer, words) in [
        (json!({"body": "echo"}), "path"),
        (json!({"path": "/x", "bodi": "echo"}), "bodi"),
        (json!({"path": "/x", "body": {"text": "a", "size": 1}}), "body"),
        (json!({"path": "/x", "body": {"base64": "?"}}), "base64"),
        (json!({"path": "/x", "status": 100}), "200 to 599"),
        (json!({"path": "/x", "cut": 1.0}), "below 1"),
        (json!({"path": "/x", "headers": {"Content-Length": "7"}}), "Content-Length"),
        (json!({"path": "/x", "headers": {"a b": "7"}}), "a b"),
        (json!({"path": "/x", "gzip": "no"}), "half"),
    ] {
        let (status, value) = control(address, "POST", "/answers", &answer.to_string()).await;
        let error = value["error"].as_str().unwrap_or_default();
        // The words for two bodies are serde's.
        assert!(status == 400 && (error.contains(words) || words == "body"), "{answer}: {value}");
    }
}
