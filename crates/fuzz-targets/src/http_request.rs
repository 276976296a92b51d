//! Target: what a client sends over one connection, as raw bytes, to the real API before a real fleet.
//!
//! An input is one byte and what is sent: the byte decides whether the API asks for keys. The fleet holds a
//! token that lives longer than any fuzzing run, and its WeChat is an address without a listener, so that
//! each input meets the same fleet regardless of earlier ones. Time is paused, so that a wait of a minute is
//! over at once.

use std::cell::OnceCell;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{pause, timeout};
use wxtokend::config::{Allow, Client, Grants};
use wxtokend::http::Metrics;
use wxtokend::internals::ApiServer;
use wxtokend::internals::{Backend, Batch, RedbBackend};
use wxtokend::{Config, Defaults, Fleet};
use wxtokend_core::account::Appid;
use wxtokend_core::clock::{ClockSource, SystemClock};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::Credential;

const APP_SECRET: &str = "5ec2e7-appsecret";
const TOKEN: &str = "t0ken-canary";
/// May read `wx1`, which has a token.
const READER: &str = "key-reader";
/// May do everything but read.
const WRITER: &str = "key-writer";
/// An address without a listener: it is reserved, and refuses at once.
const NOWHERE: &str = "127.0.0.1:1";
const CODES: [&str; 15] = [
    "bad_request",
    "unauthorized",
    "forbidden",
    "unknown_account",
    "not_found",
    "method_not_allowed",
    "too_large",
    "unsupported_media_type",
    "token_unavailable",
    "budget_exhausted",
    "shutting_down",
    "internal",
    "path_not_allowed",
    "bad_gateway",
    "gateway_timeout",
];

const STREAM: &str = "text/event-stream";
const SCRAPE: &str = "text/plain; version=0.0.4";
/// Content types of the status page's files.
const PAGE: [&str; 4] = [
    "text/html; charset=utf-8",
    "text/css; charset=utf-8",
    "text/javascript; charset=utf-8",
    "image/svg+xml",
];

thread_local! {
    static RIG: OnceCell<Rig> = const { OnceCell::new() };
}

/// Sends `input` and checks everything that comes back.
pub fn run(input: &[u8]) {
    let [keys, sent @ ..] = input else { return };
    RIG.with(|rig| rig.get_or_init(Rig::start).converse(keys & 1 == 0, sent));
}

struct Rig {
    runtime: Runtime,
    with_keys: ApiServer,
    without_keys: ApiServer,
    _folder: TempDir,
}

impl Rig {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let (with_keys, without_keys) = runtime.block_on(async {
            let account = |appid: &str| {
                let appid = Appid::new(appid).expect("an appid");
                Defaults::default().account(appid, Secret::new(APP_SECRET))
            };
            let mut config = Config::new([account("wx1"), account("wx2")]);
            config.store.path = folder.path().join("wxtokend.redb");
            config.upstream.base_urls = vec![format!("http://{NOWHERE}/").parse().expect("a URL")];
            config.api.listen = "127.0.0.1:0".parse().expect("an address");
            store_a_token(&config).await;
            let fleet = Fleet::start(config.clone()).await.expect("a fleet");
            let metrics = Metrics::detached();
            let open = ApiServer::bind(&config, fleet.clone(), metrics.clone()).await.expect("an API");
            config.api.clients = vec![
                client(READER, &["wx1"], Allow { read: true, ..Allow::NONE }),
                client(WRITER, &["*"], Allow { read: false, ..Allow::ALL }),
            ];
            let guarded = ApiServer::bind(&config, fleet, metrics).await.expect("an API");
            pause();
            (guarded, open)
        });
        Self { runtime, with_keys, without_keys, _folder: folder }
    }

    fn converse(&self, with_keys: bool, sent: &[u8]) {
        let api = if with_keys { &self.with_keys } else { &self.without_keys };
        // A request takes at least 16 bytes and waits for at most a minute.
        let limit = Duration::from_secs(61) * u32::try_from(sent.len() / 16 + 2).unwrap_or(u32::MAX);
        let received = self.runtime.block_on(async {
            // Lets tasks of earlier inputs run, which do not count.
            tokio::task::yield_now().await;
            timeout(limit, talk(api, sent)).await.expect("a connection hangs")
        });
        let text = String::from_utf8_lossy(&received);
        assert!(!text.contains(APP_SECRET), "the AppSecret is told: {text}");
        // Who has a token is told by /v1/resolve which is the current one, here the same.
        let may_read = !with_keys || contains(sent, READER.as_bytes()) || contains(sent, b"/v1/resolve");
        assert!(may_read || !text.contains(TOKEN), "a token without a key: {text}");
        let is_head = contains(sent, b"HEAD ");
        let mut rest = &received[..];
        while !rest.is_empty() {
            rest = one_answer(rest, is_head, &text);
        }
    }
}

/// Writes everything, and reads until the server ends the connection or streams.
async fn talk(api: &ApiServer, sent: &[u8]) -> Vec<u8> {
    let (client, server) = duplex(4096);
    let (mut reads, mut writes) = split(client);
    let mut received = Vec::new();
    let client = async {
        let write = async {
            // The server may refuse before it has read everything.
            let _ = writes.write_all(sent).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            // A stream has no end of its own: the client leaves.
            while reads.read_buf(&mut received).await.expect("no error in memory") > 0 {
                if contains(&received, b"\nretry: ") {
                    return;
                }
            }
        };
        either(write, read).await;
        drop((reads, writes));
    };
    tokio::join!(api.converse(server), client);
    received
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

/// Checks the first answer in `bytes`, and returns what follows it.
fn one_answer<'a>(bytes: &'a [u8], is_head: bool, text: &str) -> &'a [u8] {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("half a head: {text}"));
    let head =
        std::str::from_utf8(&bytes[..end]).unwrap_or_else(|_| panic!("a head that is no text: {text}"));
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let version = status_line.strip_prefix("HTTP/1.1 ").or_else(|| status_line.strip_prefix("HTTP/1.0 "));
    let status: u16 =
        version.and_then(|line| line.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("no status: {text}"));
    let headers: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header {line:?}: {text}")))
        .collect();
    let header =
        |name: &str| headers.iter().find(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    if matches!(status, 100 | 204 | 304) {
        return rest;
    }
    let kind = header("content-type").unwrap_or_default();
    if kind == STREAM {
        return &[];
    }
    let bodiless = is_head && (rest.is_empty() || rest.starts_with(b"HTTP/1."));
    let chunked = header("transfer-encoding") == Some("chunked");
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let (body, rest) = match length {
        _ if bodiless => (&b""[..], rest),
        Some(length) => rest.split_at_checked(length).unwrap_or_else(|| panic!("half a body: {text}")),
        None if chunked => (&b""[..], after_chunks(rest).unwrap_or_else(|| panic!("half a body: {text}"))),
        // A scrape, for a client that does not support chunks.
        None if kind.starts_with(SCRAPE) => (rest, &b""[..]),
        None => panic!("no length: {text}"),
    };
    if status == 200 {
        let json = serde_json::from_slice::<Value>(body).is_ok_and(|body| body.is_object());
        let fits = if kind == "application/json" {
            bodiless || json
        } else {
            kind.starts_with(SCRAPE) || PAGE.contains(&kind)
        };
        assert!(fits, "{kind}: {text}");
    } else {
        assert_eq!(kind, "application/problem+json", "{text}");
        assert!(bodiless || is_problem(status, body), "no problem of the contract: {text}");
    }
    rest
}

/// Returns what follows a chunked body.
fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        bytes = bytes.get(end + 2 + size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(bytes);
        }
    }
}

/// Whether `body` is a valid problem document. A panic would become `internal`.
fn is_problem(status: u16, body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let code = body["code"].as_str().unwrap_or_default();
    assert_ne!(code, "internal", "a handler has panicked");
    let later = status == 503;
    CODES.contains(&code)
        && body["status"] == status
        && body["detail"].as_str().is_some_and(|detail| !detail.is_empty())
        && body.get("state").is_some() == later
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn client(key: &str, accounts: &[&str], allow: Allow) -> Client {
    Client {
        name: key.to_owned(),
        key_sha256: Secret::new(key).sha256(),
        accounts: Grants::new(accounts.iter().copied()).expect("grants"),
        allow,
        urls: Vec::new(),
        paths: Vec::new(),
        promise_at_most: None,
    }
}

/// Stores a token as if it had been fetched earlier.
async fn store_a_token(config: &Config) {
    let clock = SystemClock::new();
    let (now, century_ms) = (clock.now(), 36_500 * 86_400_000_i64);
    let moment = |after_ms: i64| serde_json::json!({ "wall_ms": now.wall_ms + after_ms, "boot_ms": now.boot_ms + after_ms });
    let record = serde_json::json!({
        "boot": clock.boot_id(),
        "version": 7,
        "token": {
            "value": TOKEN,
            "version": 7,
            "endpoint": "stable_token",
            "issued_at": moment(0),
            "expires_at": moment(century_ms),
            "overlap": { "secs": 300, "nanos": 0 },
            "refresh_at": moment(century_ms - 1000),
            "standing": "good",
        },
        "doubt": null,
        "intent": null,
        "ledger": { "main": null, "on_request": null },
        "forced": [],
    });
    let store = RedbBackend::open(&config.store.path).expect("a new store");
    let records =
        vec![(Credential::token(Appid::new("wx1").expect("an appid")), record.to_string().into_bytes())];
    let batch = Batch { records, hosts: Some(vec![NOWHERE.to_owned()]) };
    store.write(batch).await.expect("a write");
}
