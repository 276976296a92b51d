//! Hosts that violate the rules of TCP, TLS, DNS, HTTP or JSON.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use crate::harness::{
    BadHost, Behaviour, CERTIFICATE, Call, Daemon, Lab, Port, Reader, SMUGGLED, Step, answer, tls_before,
    until,
};
use Outcome::{Cut, Fine, Gateway, Late, Unreadable};
use Step::{Close, Flood, Hold, Reset, Send, Trickle};

/// The result of a bad answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The connection broke, or the answer was not HTTP.
    Cut,
    /// No complete answer within the timeout.
    Late,
    /// HTTP, but not WeChat's JSON.
    Unreadable,
    /// A status that WeChat does not use.
    Gateway,
    /// A token, despite the rest of the answer.
    Fine,
}

struct MisbehaviourRow {
    name: &'static str,
    outcome: Outcome,
    script: fn(&Call) -> Vec<Step>,
}

fn bytes(text: impl AsRef<[u8]>) -> Step {
    Send(text.as_ref().to_vec())
}

/// A correct head with the true body changed by `edit`.
fn edited(call: &Call, edit: impl FnOnce(&str) -> String) -> Vec<Step> {
    let body = edit(std::str::from_utf8(&call.body).unwrap());
    vec![Send(answer("200 OK", body.as_bytes()))]
}

/// A correct head with this body, which need not be text.
fn with_body(body: &[u8]) -> Vec<Step> {
    vec![Send(answer("200 OK", body))]
}

fn with_head(head: &str, call: &Call) -> Vec<Step> {
    vec![Send([b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n", &call.body].concat())]
}

/// The true answer, followed by one that belongs to no call.
fn smuggled(call: &Call) -> (Step, Step) {
    let body = json!({ "access_token": SMUGGLED, "expires_in": 7200 }).to_string();
    (Send(answer("200 OK", &call.body)), Send(answer("200 OK", body.as_bytes())))
}

/// Below HTTP: faults of the connection.
const WIRE: [MisbehaviourRow; 9] = [
    MisbehaviourRow { name: "silence", outcome: Late, script: |_| vec![Hold] },
    MisbehaviourRow { name: "closed", outcome: Cut, script: |_| vec![Close] },
    MisbehaviourRow { name: "reset", outcome: Cut, script: |_| vec![Reset] },
    MisbehaviourRow { name: "half-status", outcome: Cut, script: |_| vec![bytes("HTTP/1.1 20"), Close] },
    MisbehaviourRow { name: "half-status-held", outcome: Late, script: |_| vec![bytes("HTTP/1.1 20"), Hold] },
    MisbehaviourRow {
        name: "half-body",
        outcome: Cut,
        script: |call| {
            let whole = answer("200 OK", &call.body);
            vec![bytes(&whole[..whole.len() - 10]), Close]
        },
    },
    MisbehaviourRow {
        name: "reset-in-body",
        outcome: Cut,
        script: |call| {
            let whole = answer("200 OK", &call.body);
            vec![bytes(&whole[..whole.len() - 10]), Reset]
        },
    },
    MisbehaviourRow {
        name: "slow-head",
        outcome: Late,
        script: |call| vec![Trickle(answer("200 OK", &call.body))],
    },
    MisbehaviourRow {
        name: "slow-body",
        outcome: Late,
        script: |call| {
            let whole = answer("200 OK", &call.body);
            let head = whole.len() - call.body.len();
            vec![bytes(&whole[..head]), Trickle(whole[head..].to_vec())]
        },
    },
];

/// Answers without an end.
const ENDLESS: [MisbehaviourRow; 8] = [
    MisbehaviourRow {
        name: "endless-chunked",
        outcome: Cut,
        script: |_| {
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            vec![bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Flood(chunk)]
        },
    },
    MisbehaviourRow {
        name: "endless-lengthless",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 200 OK\r\n\r\n"), Flood(vec![b'x'; 0x4000])],
    },
    MisbehaviourRow {
        name: "endless-blanks",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 200 OK\r\n\r\n"), Flood(vec![b' '; 0x4000])],
    },
    MisbehaviourRow {
        name: "endless-trailers",
        outcome: Cut,
        script: |_| {
            let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
            vec![bytes(start), Flood(b"X-Trailer: of no use\r\n".repeat(500))]
        },
    },
    MisbehaviourRow {
        name: "endless-chunk-extension",
        outcome: Cut,
        script: |_| {
            let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;";
            vec![bytes(start), Flood(vec![b'x'; 0x4000])]
        },
    },
    MisbehaviourRow {
        name: "endless-headers",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 200 OK\r\n"), Flood(b"X-Filler: of no use\r\n".repeat(500))],
    },
    MisbehaviourRow {
        name: "endless-header",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 200 OK\r\nX-Filler: "), Flood(vec![b'x'; 0x4000])],
    },
    // At full speed this would keep a core busy until the timeout.
    MisbehaviourRow {
        name: "many-continues",
        outcome: Late,
        script: |_| vec![Send(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000)), Hold],
    },
];

/// Answers that are not HTTP or contradict themselves.
const FRAMING: [MisbehaviourRow; 20] = [
    MisbehaviourRow {
        name: "length-too-long",
        outcome: Cut,
        script: |call| {
            let length = format!("Content-Length: {}\r\n", call.body.len() + 9);
            [with_head(&length, call), vec![Close]].concat()
        },
    },
    MisbehaviourRow {
        name: "length-too-long-held",
        outcome: Late,
        script: |call| {
            let length = format!("Content-Length: {}\r\n", call.body.len() + 9);
            [with_head(&length, call), vec![Hold]].concat()
        },
    },
    MisbehaviourRow {
        name: "length-too-short",
        outcome: Unreadable,
        script: |call| with_head(&format!("Content-Length: {}\r\n", call.body.len() - 9), call),
    },
    MisbehaviourRow {
        name: "length-negative",
        outcome: Cut,
        script: |call| with_head("Content-Length: -1\r\n", call),
    },
    MisbehaviourRow {
        name: "length-immense",
        outcome: Cut,
        script: |call| with_head("Content-Length: 99999999999999999999\r\n", call),
    },
    MisbehaviourRow {
        name: "lengths-that-differ",
        outcome: Cut,
        script: |call| {
            let length = call.body.len();
            with_head(&format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length - 9), call)
        },
    },
    MisbehaviourRow {
        name: "chunk-size-no-number",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")],
    },
    MisbehaviourRow {
        name: "chunk-size-immense",
        outcome: Cut,
        script: |_| {
            vec![bytes(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            )]
        },
    },
    MisbehaviourRow {
        name: "chunk-size-largest",
        outcome: Cut,
        script: |_| {
            vec![bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}"), Close]
        },
    },
    MisbehaviourRow { name: "http09", outcome: Cut, script: |call| vec![bytes(&call.body), Close] },
    MisbehaviourRow {
        name: "http2",
        outcome: Cut,
        script: |_| vec![bytes(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80"), Hold],
    },
    MisbehaviourRow {
        name: "http2-preface",
        outcome: Cut,
        script: |_| vec![bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Hold],
    },
    MisbehaviourRow { name: "nuls", outcome: Cut, script: |_| vec![Send(vec![0; 4096]), Close] },
    MisbehaviourRow {
        name: "noise",
        outcome: Cut,
        script: |_| vec![bytes(b"\xde\xad\xbe\xef\x1b[31m\xff\xfe\r\n\r\n"), Close],
    },
    MisbehaviourRow {
        name: "status-of-four-digits",
        outcome: Cut,
        script: |_| vec![bytes("HTTP/1.1 2000 OK\r\n\r\n"), Close],
    },
    MisbehaviourRow {
        name: "a-request",
        outcome: Cut,
        script: |call| vec![Send(call.request.clone()), Close],
    },
    MisbehaviourRow { name: "an-echo", outcome: Unreadable, script: |call| with_body(&call.request) },
    MisbehaviourRow {
        name: "an-echo-in-the-status",
        outcome: Gateway,
        script: |call| {
            let echo = String::from_utf8_lossy(&call.request).replace(['\r', '\n'], " ");
            vec![bytes(format!("HTTP/1.1 404 {echo}\r\nLocation: /{echo}\r\nContent-Length: 0\r\n\r\n"))]
        },
    },
    MisbehaviourRow {
        name: "other-protocol",
        outcome: Gateway,
        script: |_| {
            vec![
                bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
                Hold,
            ]
        },
    },
    MisbehaviourRow {
        name: "no-content",
        outcome: Gateway,
        script: |_| vec![bytes("HTTP/1.1 204 No Content\r\n\r\n")],
    },
];

/// Answers with a token and something after or around it.
const SURROUNDED: [MisbehaviourRow; 12] = [
    MisbehaviourRow {
        name: "surplus",
        outcome: Fine,
        script: |call| vec![Send([&answer("200 OK", &call.body)[..], b"surplus"].concat())],
    },
    MisbehaviourRow {
        name: "second-answer",
        outcome: Fine,
        script: |call| match smuggled(call) {
            (Send(first), Send(second)) => vec![Send([first, second].concat())],
            _ => Vec::new(),
        },
    },
    MisbehaviourRow {
        name: "second-answer-apart",
        outcome: Fine,
        script: |call| {
            let (first, second) = smuggled(call);
            vec![first, second]
        },
    },
    MisbehaviourRow {
        name: "length-and-chunks",
        outcome: Fine,
        script: |call| {
            // A parser that trusts the length takes the rest for another answer.
            let chunk = format!("{:x}\r\n", call.body.len());
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
            vec![Send([head.as_bytes(), chunk.as_bytes(), &call.body, b"\r\n0\r\n\r\n"].concat())]
        },
    },
    MisbehaviourRow {
        name: "hints-before",
        outcome: Fine,
        script: |call| {
            let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n".repeat(20);
            vec![Send(hints), Send(answer("200 OK", &call.body))]
        },
    },
    MisbehaviourRow {
        name: "until-the-end",
        outcome: Fine,
        script: |call| [with_head("", call), vec![Close]].concat(),
    },
    MisbehaviourRow {
        name: "said-to-be-gzip",
        outcome: Fine,
        script: |call| {
            with_head(&format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", call.body.len()), call)
        },
    },
    MisbehaviourRow {
        name: "deep-beside",
        outcome: Fine,
        script: |call| {
            let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
            edited(call, |body| body.replacen('{', &format!("{{\"deep\":{deep},"), 1))
        },
    },
    MisbehaviourRow {
        name: "byte-order-mark",
        outcome: Fine,
        script: |call| edited(call, |body| format!("\u{feff}{body}\r\n\0")),
    },
    MisbehaviourRow {
        name: "expires-as-text",
        outcome: Fine,
        script: |call| expiring(call, |seconds| format!("\"{seconds}\"")),
    },
    MisbehaviourRow {
        name: "expires-as-decimal",
        outcome: Fine,
        script: |call| expiring(call, |seconds| format!("{seconds}.5")),
    },
    MisbehaviourRow {
        name: "bare-line-ends",
        outcome: Fine,
        script: |call| {
            let head = format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n", call.body.len());
            vec![Send([head.as_bytes(), &call.body].concat())]
        },
    },
];

/// HTTP, but not an answer of WeChat's.
const JSON: [MisbehaviourRow; 14] = [
    MisbehaviourRow { name: "empty", outcome: Unreadable, script: |_| with_body(b"") },
    MisbehaviourRow { name: "nul-body", outcome: Unreadable, script: |_| with_body(&[0; 60_000]) },
    MisbehaviourRow {
        name: "gzip-noise",
        outcome: Unreadable,
        script: |_| {
            vec![bytes(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
            )]
        },
    },
    MisbehaviourRow {
        name: "utf16",
        outcome: Unreadable,
        script: |call| {
            let text = String::from_utf8_lossy(&call.body).into_owned();
            with_body(&text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
        },
    },
    MisbehaviourRow {
        name: "no-utf8",
        outcome: Unreadable,
        script: |_| with_body(b"{\"access_token\":\"\xff\xfe\",\"expires_in\":7200}"),
    },
    MisbehaviourRow {
        name: "half-a-surrogate",
        outcome: Unreadable,
        script: |_| with_body(br#"{"access_token":"\ud800","expires_in":7200}"#),
    },
    MisbehaviourRow { name: "deep", outcome: Unreadable, script: |_| with_body(&[b'['; 60_000]) },
    MisbehaviourRow {
        name: "deep-token",
        outcome: Unreadable,
        script: |_| {
            with_body(format!("{{\"expires_in\":7200,\"access_token\":{}", "[".repeat(60_000)).as_bytes())
        },
    },
    MisbehaviourRow {
        name: "a-list",
        outcome: Unreadable,
        script: |_| with_body(format!("[0,\"ok\",\"{SMUGGLED}\",7200,null]").as_bytes()),
    },
    MisbehaviourRow {
        name: "two-tokens",
        outcome: Unreadable,
        script: |call| {
            edited(call, |body| body.replacen('{', &format!("{{\"access_token\":\"{SMUGGLED}\","), 1))
        },
    },
    MisbehaviourRow {
        name: "twice",
        outcome: Unreadable,
        script: |call| edited(call, |body| format!("{body}{body}")),
    },
    MisbehaviourRow {
        name: "expires-1e400",
        outcome: Unreadable,
        script: |call| expiring(call, |_| "1e400".to_owned()),
    },
    MisbehaviourRow {
        name: "expires-negative",
        outcome: Unreadable,
        script: |call| expiring(call, |_| "-7200".to_owned()),
    },
    MisbehaviourRow {
        name: "expires-null",
        outcome: Unreadable,
        script: |call| expiring(call, |_| "null".to_owned()),
    },
];

/// The true answer with another `expires_in`.
fn expiring(call: &Call, write: impl FnOnce(&Value) -> String) -> Vec<Step> {
    edited(call, |body| {
        let mut json: Value = serde_json::from_str(body).unwrap();
        let written = write(&json["expires_in"]);
        json["expires_in"] = json!("HERE");
        json.to_string().replace("\"HERE\"", &written)
    })
}

impl Outcome {
    /// The kinds of fault on `stable_token` and on `token`, and a part of the message.
    fn fault(self) -> Option<([&'static str; 2], &'static str)> {
        match self {
            Cut => Some((["transient", "unknown_outcome"], "the answer was cut off: ")),
            Late => Some((["transient", "unknown_outcome"], "no answer within the timeout")),
            Unreadable => Some((["transient", "unknown_outcome"], "an answer ")),
            Gateway => Some((["transient", "transient"], "from a gateway")),
            Fine => None,
        }
    }
}

/// The progress of an account in the test of its row.
enum LifeStage {
    /// It waits for its first token.
    First,
    /// Its host misbehaves.
    Bad {
        version: u64,
    },
    /// Its host behaves correctly again.
    Well {
        version: u64,
    },
    Over,
}

/// One account that goes through one row.
struct Life<'a> {
    row: &'a MisbehaviourRow,
    appid: String,
    classic: bool,
    reader: Reader,
    stage: LifeStage,
}

impl Life<'_> {
    /// Reads the token, which must be alive, and moves to the next stage if it is time.
    async fn advance(&mut self, daemon: &Daemon, host: &BadHost) {
        let view = daemon.view(&self.appid).await;
        // A read without a token would wait, and delay all other accounts here.
        let has_token = !["starting", "unavailable"].contains(&view["state"].as_str().unwrap());
        let reading = if has_token { self.reader.read(daemon).await } else { None };
        let version = view["version"].as_u64().unwrap();
        match self.stage {
            LifeStage::First if reading.is_some() => {
                host.misbehave(&self.appid, self.row.script);
                // Fetched again, since the token may have been refreshed since.
                let version = daemon.view(&self.appid).await["version"].as_u64().unwrap();
                self.stage = LifeStage::Bad { version };
            }
            LifeStage::Bad { version: first } => match self.row.outcome.fault() {
                Some(expected) if !view["last_fault"].is_null() => {
                    self.assert_fault(&view["last_fault"], expected);
                    assert_eq!(version, first, "{view}");
                    host.behave(&self.appid);
                    self.stage = LifeStage::Well { version: first };
                }
                // Several versions, so that something follows each bad answer.
                None if version >= first + 2 => self.stage = LifeStage::Over,
                _ => assert!(self.row.outcome != Fine || view["last_fault"].is_null(), "{view}"),
            },
            LifeStage::Well { version: first } if version > first && view["state"] == "fresh" => {
                self.stage = LifeStage::Over;
            }
            _ => {}
        }
    }

    fn assert_fault(&self, fault: &Value, (kinds, message): ([&str; 2], &str)) {
        let kind = kinds[usize::from(self.classic)];
        let text = fault["message"].as_str().unwrap();
        assert_eq!(fault["kind"], kind, "{}: {fault}", self.appid);
        assert!(text.contains(message), "{}: {fault}", self.appid);
        assert!(!fault["advice"].as_str().unwrap().is_empty(), "{fault}");
    }
}

/// Asserts that an output contains no secret.
fn assert_no_secrets(text: &str) {
    for secret in ["5ecre7", "http://", "https://", SMUGGLED, "grant_type"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Calls in flight, each with a body of at most 64 KiB and a head of at most 400 KiB, and what allocators
/// keep.
const GROWTH_KIB: u64 = 48 << 10;

#[tokio::test]
async fn whatever_a_host_answers_no_dead_token_is_served_and_all_is_well_when_the_host_is() {
    let mut lab = Lab::new(5_000, 1_250).await;
    let host = BadHost::before(lab.wechat.address).await;
    lab.config["upstream"]["base_urls"] = json!([host.url()]);
    lab.config["upstream"]["timeout"] = json!("1s");
    let rows = || WIRE.iter().chain(&ENDLESS).chain(&FRAMING).chain(&SURROUNDED).chain(&JSON);
    let mut lives = Vec::new();
    for (row, endpoint) in rows().flat_map(|row| [(row, "stable_token"), (row, "token")]) {
        let appid = format!("{}-{endpoint}", row.name);
        lab.add(&appid, json!({ "endpoint": endpoint }));
        let reader = Reader::new(&lab.wechat, &appid);
        lives.push(Life { row, appid, classic: endpoint == "token", reader, stage: LifeStage::First });
    }
    let lab = lab.with_both();
    let mut others = ["stable", "classic"].map(|appid| (appid, Reader::new(&lab.wechat, appid)));
    let daemon = lab.start_observed().await;
    for (appid, _) in &others {
        daemon.until_state(appid, "fresh").await;
    }
    let before = daemon.vitals();
    until("all have lived through it", async || {
        for life in lives.iter_mut().filter(|life| !matches!(life.stage, LifeStage::Over)) {
            life.advance(&daemon, &host).await;
        }
        for (appid, reader) in &mut others {
            assert!(reader.read(&daemon).await.is_some(), "{appid} is disturbed");
            let view = daemon.view(appid).await;
            assert!(view["last_fault"].is_null(), "{view}");
        }
        lives.iter().all(|life| matches!(life.stage, LifeStage::Over))
    })
    .await;
    // Some of the calls in flight are still open.
    until("connections are closed", async || daemon.vitals().descriptors < before.descriptors + 40).await;
    let after = daemon.vitals();
    assert!(after.peak_kib < before.resident_kib + GROWTH_KIB, "{before:?} {after:?}");
    assert_no_secrets(&daemon.get("/v1/accounts?limit=1000").await.body);
    let log = daemon.log.text();
    assert!(log.contains("unknown_outcome"), "{log}");
    assert_no_secrets(&log);
}

/// A host that no call gets through to, whatever the account.
struct UnreachableHost {
    name: &'static str,
    url: String,
    /// Whether the system trusts [`CERTIFICATE`].
    trusted: bool,
    message: &'static str,
    /// Whether calls may have arrived.
    sent: bool,
    /// The URL of a host that works.
    working_url: String,
}

impl UnreachableHost {
    /// Runs a daemon with this host: both accounts and `wxtokend status` show the fault, and a reload with
    /// another host ends it.
    async fn run(self) {
        let Self { name, url, trusted, message, sent, working_url } = self;
        let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
        lab.config["upstream"]["base_urls"] = json!([url]);
        lab.config["upstream"]["timeout"] = json!("3s");
        lab.write();
        std::fs::write(lab.path("certificates.pem"), CERTIFICATE).unwrap();
        let mut program = lab.program(&["run", "--log-format", "json"]);
        if trusted {
            program.env("SSL_CERT_FILE", lab.path("certificates.pem"));
        }
        let daemon = Daemon::start(program).await;
        for (appid, unsure) in [("stable", "transient"), ("classic", "unknown_outcome")] {
            until(&format!("{name}: {appid} is unavailable"), async || {
                daemon.state(appid).await == "unavailable"
            })
            .await;
            let view = daemon.view(appid).await;
            let kind = if sent { unsure } else { "transient" };
            assert!(
                [kind, "transient"].contains(&view["last_fault"]["kind"].as_str().unwrap()),
                "{name}: {view}"
            );
            assert!(view["last_fault"]["message"].as_str().unwrap().contains(message), "{name}: {view}");
            if !sent {
                // Checked between two calls: one in flight is charged until it is known that nothing was
                // sent.
                until(&format!("{name}: nothing is charged"), async || {
                    daemon.view(appid).await["budget"]["remaining"] == 1000
                })
                .await;
            }
        }
        let server = format!("http://{}", daemon.address());
        let status = lab.run(&["status", "--server", &server]).await;
        assert!(status.stdout.contains(message), "{name}: {status:?}");
        assert_no_secrets(&status.stdout);
        assert_no_secrets(&daemon.log.text());
        lab.config["upstream"]["base_urls"] = json!([working_url]);
        lab.write();
        daemon.reload().await;
        for appid in ["stable", "classic"] {
            daemon.until_state(appid, "fresh").await;
        }
        assert!(daemon.stop().await.success());
    }
}

/// A listener that accepts nothing and whose queue is full.
async fn full_queue() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut queue = Vec::new();
    while let Ok(next) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(listener.local_addr().unwrap()))
            .await
    {
        queue.push(next.unwrap());
        assert!(queue.len() < 100, "a queue without an end");
    }
    (listener, queue)
}

#[tokio::test]
async fn a_host_that_no_call_reaches_says_whether_it_is_dns_tcp_or_tls() {
    let behind = Lab::new(7_200_000, 300_000).await.with_both();
    let wechat = behind.wechat.address;
    let closed = Port::reserve();
    let full = full_queue().await;
    let tls = tls_before(wechat).await;
    let at = |behaviour| async move {
        let host = BadHost::before(wechat).await;
        host.set_behaviour(behaviour);
        host
    };
    let silent = at(Behaviour::Silent).await.address;
    let working_url = format!("http://{wechat}");
    let unreachable = |name, url: String, message| UnreachableHost {
        name,
        url,
        trusted: false,
        message,
        sent: false,
        working_url: working_url.clone(),
    };
    let rows = [
        unreachable("no name", "https://nonexistent.invalid".to_owned(), "no connection: DNS: "),
        unreachable("no port", format!("http://{}", closed.address), "no connection: Connection refused"),
        unreachable("full", format!("http://{}", full.0.local_addr().unwrap()), "no connection: timed out"),
        unreachable("no tls", format!("https://{wechat}"), "no connection: TLS: the host does not speak TLS"),
        unreachable("silent tls", format!("https://{silent}"), "no connection: timed out"),
        unreachable(
            "untrusted",
            format!("https://{tls}"),
            "no connection: TLS: invalid peer certificate: UnknownIssuer; WeChat's is signed by DigiCert Global Root G2",
        ),
        UnreachableHost {
            trusted: true,
            working_url: format!("https://{tls}"),
            ..unreachable(
                "other name",
                format!("https://localhost:{}", tls.port()),
                "no connection: TLS: invalid peer certificate: certificate not valid for name \"localhost\"",
            )
        },
        UnreachableHost {
            sent: true,
            ..unreachable("silent", format!("http://{silent}"), "no answer within the timeout")
        },
        // Before or after the connection has been established.
        UnreachableHost {
            sent: true,
            ..unreachable("resets", at(Behaviour::Resets).await.url(), "Connection reset")
        },
        UnreachableHost {
            sent: true,
            ..unreachable("speaks", at(Behaviour::SpeaksFirst).await.url(), "the answer was cut off: ")
        },
    ];
    let all = async {
        let mut lives = JoinSet::new();
        for row in rows {
            lives.spawn_local(row.run());
        }
        lives.join_all().await;
    };
    LocalSet::new().run_until(all).await;
}

/// A connection that is kept between two calls may end when the second is sent, or deliver something late
/// that is taken for its answer. So none is kept.
#[tokio::test]
async fn no_call_depends_on_what_became_of_another() {
    for behaviour in [Behaviour::LeftOver, Behaviour::OneCall] {
        let mut lab = Lab::new(2_000, 500).await.with_both();
        let host = BadHost::before(lab.wechat.address).await;
        host.set_behaviour(behaviour);
        lab.config["upstream"]["base_urls"] = json!([host.url()]);
        let daemon = lab.start().await;
        let run = async |appid: &str| {
            let mut reader = Reader::new(&lab.wechat, appid);
            let mut first = None;
            until(&format!("{appid} has four tokens"), async || {
                let reading = reader.read(&daemon).await;
                assert!(daemon.view(appid).await["last_fault"].is_null(), "{behaviour:?}");
                reading.is_some_and(|reading| reading.version >= *first.get_or_insert(reading.version) + 3)
            })
            .await;
        };
        tokio::join!(run("stable"), run("classic"));
    }
}

/// The longest token that fits into an answer of 64 KiB.
const LONG_TOKEN: usize = 60 << 10;

#[tokio::test]
async fn a_token_of_60_kib_is_served_whole_and_kept() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let host = BadHost::before(lab.wechat.address).await;
    lab.config["upstream"]["base_urls"] = json!([host.url()]);
    for appid in ["stable", "classic"] {
        host.misbehave(appid, |_| {
            let token = "t".repeat(LONG_TOKEN);
            with_body(json!({ "access_token": token, "expires_in": 7200 }).to_string().as_bytes())
        });
    }
    let daemon = lab.start().await;
    for appid in ["stable", "classic"] {
        daemon.until_state(appid, "fresh").await;
        assert_eq!(daemon.token_value(appid).await, "t".repeat(LONG_TOKEN));
    }
    daemon.kill().await;
    lab.wechat.close().await;
    let daemon = lab.start().await;
    for appid in ["stable", "classic"] {
        assert_eq!(daemon.token_value(appid).await.len(), LONG_TOKEN);
    }
}
