//! Tests of the real API on real sockets, with a real fleet that uses the sandbox as WeChat.

mod access;
mod accounts;
mod cgi_bin;
mod connections;
mod events;
mod half_close;
mod idle;
mod keys;
mod mount;
mod page;
mod promise;
mod proxy;
mod proxy_gateway;
mod refusals;
mod rejection;
mod resolve;
mod routes;
mod scrape;
mod session;
mod slots;
mod stopping;
mod streams;
mod tickets;
mod token;
mod transparent;
mod unread_body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Fault, Sandbox, Settings, Switches};

use super::{ApiServer, Clients, Proxy};
use crate::config::{Allow, Client, Config, Defaults, Grants, ProxyConfig};
use crate::daemon::telemetry::metrics::Metrics;
use crate::fleet::Fleet;
use proxy_gateway::Gateway;

/// The AppSecret of every account.
pub(crate) const SECRET: &str = "appsecret-canary-4711";
/// Time limit of waits, longer than anything here takes; only a failing test waits as long.
const LONG: Duration = Duration::from_secs(120);

pub(crate) fn id(appid: &str) -> Appid {
    Appid::new(appid).unwrap()
}

pub(crate) fn account(appid: &str) -> Account {
    Defaults::default().account(id(appid), Secret::new(SECRET))
}

pub(crate) fn client(key: &str, accounts: &[&str], allow: Allow) -> Client {
    Client {
        name: key.to_owned(),
        key_sha256: Secret::new(key).sha256(),
        accounts: Grants::new(accounts.iter().copied()).unwrap(),
        allow,
        urls: Vec::new(),
        paths: Vec::new(),
        promise_at_most: None,
    }
}

pub(crate) const READ: Allow = Allow { read: true, ..Allow::NONE };
pub(crate) const REFRESH: Allow = Allow { refresh: true, ..Allow::NONE };
pub(crate) const ADMIN: Allow = Allow { admin: true, ..Allow::NONE };
pub(crate) const CALL: Allow = Allow { call: true, ..Allow::NONE };

/// A running server and what it runs on.
pub(crate) struct Rig {
    pub(crate) sandbox: Sandbox,
    pub(crate) fleet: Fleet,
    pub(crate) metrics: Metrics,
    pub(crate) config: Config,
    pub(crate) clients: Clients,
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    http: reqwest::Client,
    _folder: TempDir,
}

/// Options of the server under test.
pub(crate) struct TestApi {
    pub(crate) accounts: Vec<Account>,
    pub(crate) clients: Vec<Client>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) wechat_path: String,
    pub(crate) timeout: Duration,
    /// How long idle connections are kept; `None` for the default of 80 s.
    pub(crate) idle: Option<Duration>,
    /// What stands between us and the sandbox, if anything.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) proxy: ProxyConfig,
    /// Faults injected before the start.
    pub(crate) faults: Vec<(&'static str, Fault)>,
}

impl Default for TestApi {
    fn default() -> Self {
        Self {
            accounts: vec![account("wx1"), account("wx2")],
            clients: Vec::new(),
            metrics_listen: None,
            wechat_path: "/".to_owned(),
            timeout: Duration::from_secs(5),
            idle: None,
            gateway: None,
            proxy: ProxyConfig::default(),
            faults: Vec::new(),
        }
    }
}

impl Rig {
    /// Starts the server and waits until every account has a token or a fault.
    pub(crate) async fn start(options: TestApi) -> Self {
        let rig = Self::start_at_once(options).await;
        until("ready", || rig.fleet.is_ready()).await;
        rig
    }

    pub(crate) async fn start_at_once(options: TestApi) -> Self {
        let accounts = options.accounts.iter().map(|account| (account.appid.clone(), account.secret.clone()));
        let sandbox = Sandbox::new(Settings { accounts: accounts.collect(), ..Settings::default() });
        for (appid, fault) in options.faults {
            sandbox.inject(Some(&id(appid)), fault);
        }
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(options.accounts);
        config.api.listen = "127.0.0.1:0".parse().unwrap();
        config.api.clients = options.clients;
        config.metrics.listen = options.metrics_listen;
        config.api.wechat_path = options.wechat_path;
        config.store.path = folder.path().join("wxtokend.redb");
        config.upstream.timeout = options.timeout;
        config.proxy = options.proxy;
        let mut upstream_address = upstream.local_addr().unwrap();
        if let Some(gateway) = &options.gateway {
            upstream_address = gateway.serve_before(upstream_address).await;
        }
        let url = format!("http://{upstream_address}/");
        config.upstream.base_urls = vec![url.parse().unwrap()];
        let wechat = sandbox.clone();
        drop(tokio::spawn(async move { wechat.serve(upstream, std::future::pending()).await }));
        let fleet = Fleet::start(config.clone()).await.unwrap();
        let metrics = Metrics::detached();
        let api = ApiServer::bind(&config, fleet.clone(), metrics.clone()).await.unwrap();
        let api = match options.idle {
            Some(idle) => api.keep_idle(idle),
            None => api,
        };
        let stop = CancellationToken::new();
        Self {
            sandbox,
            fleet,
            metrics,
            config,
            clients: api.clients(),
            proxy: api.proxy(),
            address: api.address(),
            metrics_address: api.metrics_address(),
            served: tokio::spawn(api.serve(stop.clone().cancelled_owned())),
            stop,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _folder: folder,
        }
    }

    /// Reloads the fleet with other accounts and the same settings.
    pub(crate) async fn reload(&self, accounts: Vec<Account>) {
        let accounts = accounts.into_iter().map(Arc::new).collect();
        self.fleet.reload(Config { accounts, ..self.config.clone() }).await.unwrap();
        self.fleet.note_reload(true);
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.call("POST", path, &[], "").await
    }

    pub(crate) async fn get_as(&self, key: &str, path: &str) -> Answer {
        self.call("GET", path, &[("authorization", &format!("Bearer {key}"))], "").await
    }

    pub(crate) async fn reject(&self, appid: &str, token: &str) -> Answer {
        let body = serde_json::json!({ "access_token": token }).to_string();
        let json = [("content-type", "application/json")];
        self.call("POST", &format!("/v1/accounts/{appid}/token/reject"), &json, &body).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let mut call = self.http.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        if !body.is_empty() {
            call = call.body(body.to_owned());
        }
        let answer = timeout(LONG, call.send()).await.expect("an answer").unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, body: answer.text().await.unwrap() }
    }

    /// The access_token of an account, which must have one.
    pub(crate) async fn token_of(&self, appid: &str) -> String {
        self.fleet.token(appid).await.unwrap().access_token().to_owned()
    }

    /// Whether `text` contains a secret, a token or a ticket.
    pub(crate) fn leaks(&self, text: &str) -> bool {
        let tokens = self.config.accounts.iter().filter_map(|account| self.sandbox.truth(&account.appid));
        let mut living = tokens.flat_map(|truth| {
            truth.living_tokens.into_iter().map(|token| token.access_token).chain(truth.living_tickets)
        });
        text.contains(SECRET) || living.any(|value| text.contains(value.expose()))
    }

    /// Asserts that `answer` is a complete problem with this code and without secrets.
    #[track_caller]
    pub(crate) fn is_problem(&self, answer: &Answer, code: &str) {
        answer.is_problem(code);
        assert!(!self.leaks(&answer.body), "{answer:?}");
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is_problem(&self, code: &str) {
        let status = match code {
            "bad_request" => 400,
            "unauthorized" => 401,
            "forbidden" | "path_not_allowed" => 403,
            "unknown_account" | "not_found" => 404,
            "method_not_allowed" => 405,
            "too_large" => 413,
            "unsupported_media_type" => 415,
            "internal" => 500,
            "bad_gateway" => 502,
            "gateway_timeout" => 504,
            "token_unavailable" | "budget_exhausted" | "shutting_down" => 503,
            other => panic!("{other} is not in the contract"),
        };
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        for text in ["type", "title", "detail"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {self:?}");
        }
        let has = |key| problem.as_object().unwrap().contains_key(key);
        assert_eq!((has("state"), has("last_fault")), (status == 503, status == 503), "{self:?}");
        if status == 503 {
            assert!(self.header("retry-after").parse::<u64>().unwrap() >= 1, "{self:?}");
        }
        if status == 401 {
            assert_eq!(self.header("www-authenticate"), "Bearer");
        }
        assert!(status != 405 || !self.header("allow").is_empty(), "{self:?}");
    }
}

/// Sends `request` and returns everything that the server sends until it ends the connection.
pub(crate) async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text)).await.expect("an end").unwrap();
    text
}

/// Sends `request` as [`raw`] does, with `Connection: close`, and parses the answer.
pub(crate) async fn raw_answer(address: SocketAddr, request: &str) -> Answer {
    let text = raw(address, &request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Answer { status: head[9..12].parse().unwrap(), headers, body: body.to_owned() }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LONG, poll).await.is_ok(), "not within {LONG:?}: {what}");
}
