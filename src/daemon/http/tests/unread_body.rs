//! Requests whose bodies are not read, and the requests after them on the same connection.

use tokio::time::Instant;

use super::*;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LENGTH: &str = "Content-Length: 1000\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// The next answer, head and body; empty at the end.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut more = 0;
    while more > 0 || !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if timeout(LONG, stream.read(&mut byte)).await.expect("an answer or an end").unwrap_or(0) == 0 {
            break;
        }
        text.push(byte[0]);
        if more > 0 {
            more -= 1;
            if more == 0 {
                break;
            }
        } else if text.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
            let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            more = length.map_or(0, |length| length.parse().unwrap());
        }
    }
    String::from_utf8(text).unwrap()
}

/// The `Connection` and `Keep-Alive` lines of an answer's head.
fn connection_headers(answer: &str) -> Vec<&str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().filter(|line| line.starts_with("connection:") || line.starts_with("keep-alive:")).collect()
}

async fn rig() -> Rig {
    let clients = vec![client("k", &["*"], Allow::ALL)];
    Rig::start(TestApi { clients, ..TestApi::default() }).await
}

/// Requests whose bodies are not read or not needed, and the status of their answers.
const UNREAD: [(&str, &str, &str); 8] = [
    ("GET /v1/accounts/wx1/token", "Authorization: Bearer wrong\r\n", "401"),
    ("POST /nowhere", "", "404"),
    ("DELETE /v1/accounts/wx1/token", "", "405"),
    ("POST /v1/accounts/wx1/token/reject", "Content-Type: text/plain\r\n", "415"),
    ("GET /v1/accounts?limit=x", "", "400"),
    ("POST /v1/accounts/wx1/token/refresh", "", "200"),
    ("GET /v1/accounts/wx1/token", "", "200"),
    ("GET /healthz", "", "200"),
];

fn head(what: &str, headers: &str, body: &str) -> String {
    let key = if headers.contains("Bearer") { "" } else { "Authorization: Bearer k\r\n" };
    format!("{what} HTTP/1.1\r\nHost: localhost\r\n{key}{headers}{body}\r\n")
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_taken_in_and_the_next_request_is_answered() {
    let rig = rig().await;
    let body = "x".repeat(1000);
    let chunks = format!("3e8\r\n{body}\r\n0\r\n\r\n");
    for (what, headers, status) in UNREAD {
        for (length, body) in [(LENGTH, &body), (CHUNKED, &chunks)] {
            for pause in [0, 50] {
                let mut stream = TcpStream::connect(rig.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.write_all(head(what, headers, length).as_bytes()).await.unwrap();
                sleep(Duration::from_millis(pause)).await;
                stream.write_all(format!("{body}{HEALTH}").as_bytes()).await.unwrap();
                let response = answer(&mut stream).await;
                assert_eq!(response.get(9..12), Some(status), "{what} {length}: {response}");
                let kept = ["connection: keep-alive", "keep-alive: timeout=75"];
                assert_eq!(connection_headers(&response), kept, "{what} {length} {pause}: {response}");
                let next = answer(&mut stream).await;
                assert!(next.starts_with("HTTP/1.1 200 "), "behind {what} {length} {pause}: {next:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_whose_connection_ends_with_it_says_so_and_nothing_else() {
    let rig = rig().await;
    let reject = "POST /v1/accounts/wx1/token/reject";
    let json = "Content-Type: application/json\r\n";
    let text = "Content-Type: text/plain\r\n";
    let half = |length: &str, body: &str| format!("{length}\r\n{body}");
    let mut cases: Vec<_> = UNREAD.iter().map(|(what, headers, _)| head(what, headers, LENGTH)).collect();
    cases.extend(UNREAD.iter().map(|(what, headers, _)| head(what, headers, CHUNKED)));
    cases.extend([
        head(reject, text, "Expect: 100-continue\r\nContent-Length: 10\r\n"),
        head(reject, json, "Content-Length: 65537\r\n"),
        head("GET /v1/accounts/wx1/token", "", "Content-Length: 65537\r\n"),
        head(
            reject,
            text,
            &half("Transfer-Encoding: chunked\r\n", &format!("10001\r\n{}\r\n", "x".repeat(65537))),
        ),
        head(reject, json, &half("Transfer-Encoding: chunked\r\n", "no chunk\r\n")),
        head(reject, text, &half("Transfer-Encoding: chunked\r\n", "no chunk\r\n")),
    ]);
    let mut tasks = tokio::task::JoinSet::new();
    for request in cases {
        let address = rig.address;
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(request.as_bytes()).await;
            let start = Instant::now();
            let response = answer(&mut stream).await;
            let begin = &request[..request.len().min(200)];
            assert!(response.starts_with("HTTP/1.1 "), "{begin}: {response:?}");
            assert_eq!(connection_headers(&response), ["connection: close"], "{begin}: {response}");
            assert!(start.elapsed() < Duration::from_secs(8), "{begin}");
            assert_eq!(answer(&mut stream).await, "", "{begin}: it ends");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
