//! HTTP client for a running daemon.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use wxtokend_core::secret::Secret;

use super::args::Server;
use super::failure::{Failure, chain};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a request. A refresh may take a check and two calls of WeChat, each with a second host.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// In effect no timeout, as a value that reqwest accepts.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
const EVENT_STREAM: &str = "text/event-stream";

/// The address of a daemon, and the key for it.
pub(super) struct DaemonClient {
    http: reqwest::Client,
    server: Url,
    key: Option<Secret>,
}

/// An error response of the daemon (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RemoteProblem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    last_fault: Option<LastFault>,
}

/// Why the last call to WeChat failed, and what to do.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LastFault {
    pub(super) kind: String,
    pub(super) errcode: Option<i64>,
    pub(super) message: String,
    pub(super) advice: String,
}

impl DaemonClient {
    /// Reads the key from the given file, otherwise from `WXTOKEND_KEY`.
    pub(super) fn new(args: Server) -> Result<Self, Failure> {
        let key = match args.key_file {
            Some(path) => {
                let read = std::fs::read_to_string(&path);
                let text = read.map_err(|error| Failure::to(&format!("read {}", path.display()), &error))?;
                Some(
                    text.strip_suffix('\n')
                        .map_or(text.as_str(), |key| key.trim_end_matches('\r'))
                        .to_owned(),
                )
            }
            None => std::env::var("WXTOKEND_KEY").ok(),
        };
        let key = key.filter(|key| !key.is_empty()).map(Secret::new);
        // The only crypto provider that is compiled in. Fails if it is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("wxtokend/", env!("CARGO_PKG_VERSION")));
        // A machine without CA certificates can still reach its own daemon.
        let builder = match args.server.scheme() {
            "http" => builder.no_proxy().tls_certs_only([]),
            _ => builder,
        };
        let http = builder.build().map_err(|error| Failure::to("set up the HTTP client", &error))?;
        Ok(Self { http, server: args.server, key })
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.answer(self.http.get(self.url(path, query))).await
    }

    pub(super) async fn post(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.answer(self.http.post(self.url(path, query))).await
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Opens a response without a time limit.
    pub(super) async fn stream(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        last_event: Option<&str>,
    ) -> Result<Response, Failure> {
        let request = self.http.get(self.url(path, query)).timeout(FOREVER).header(ACCEPT, EVENT_STREAM);
        let request = match last_event {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let answer = self.send(request).await?;
        let kind = answer.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(EVENT_STREAM.as_bytes()) {
            Ok(answer)
        } else {
            Err(self.not_a_daemon(answer.status()))
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let answer = self.send(request).await?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error.without_url()))?;
        serde_json::from_slice(&body).map_err(|_| self.not_a_daemon(status))
    }

    /// Sends a request and returns the answer if it has a success status.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, bearer(key)?),
            None => request,
        };
        let answer = request.send().await.map_err(|error| self.unreachable(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error.without_url()))?;
        let problem = serde_json::from_slice::<RemoteProblem>(&body).unwrap_or_default();
        let message = self.explain(status, &problem);
        Err(if status.is_server_error() { Failure::Later(message) } else { Failure::Failed(message) })
    }

    fn explain(&self, status: StatusCode, problem: &RemoteProblem) -> String {
        let Some(code) = &problem.code else { return self.not_a_daemon(status).to_string() };
        if code == "unauthorized" {
            return self.locked_out();
        }
        let mut text = problem.detail.as_deref().or(problem.title.as_deref()).unwrap_or(code).to_owned();
        if let Some(LastFault { message, advice, .. }) = &problem.last_fault {
            // The detail may contain it already.
            for (label, part) in [("", message), ("→ ", advice)] {
                if !text.contains(part.as_str()) {
                    let _ = write!(text, "\n  {label}{part}");
                }
            }
        }
        text
    }

    fn locked_out(&self) -> String {
        let server = &self.server;
        match self.key {
            None => format!("{server} wants a client key: put it into the environment variable WXTOKEND_KEY"),
            Some(_) => format!("{server} does not know the key in WXTOKEND_KEY (or --key-file)"),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() { "timed out".to_owned() } else { root_cause(error) };
        Failure::Later(format!(
            "no answer from {}: {why}\n  is the daemon running? To ask another: --server URL, or WXTOKEND_SERVER",
            self.server
        ))
    }

    fn not_a_daemon(&self, status: StatusCode) -> Failure {
        Failure::Failed(format!(
            "{} answered HTTP {status}, but not as wxtokend does\n  to ask another: --server URL, or WXTOKEND_SERVER",
            self.server
        ))
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, Failure> {
    let header = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
    let mut header = header.map_err(|_| {
        Failure::Usage(
            "the key in WXTOKEND_KEY (or --key-file) has characters that no header can carry".to_owned(),
        )
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// The innermost cause, which is the most specific: `Connection refused (os error 111)`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    chain(cause)
}

/// Deserialises the answer. A daemon of another version may send something else.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: Value) -> Result<T, Failure> {
    let unreadable = |error| Failure::to("read the daemon's answer (is it of another version?)", &error);
    // serde would accept an array for a struct, by the order of the fields.
    let object: serde_json::Map<_, _> = serde_json::from_value(answer).map_err(unreadable)?;
    serde_json::from_value(Value::Object(object)).map_err(unreadable)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::daemon::cli) fn client(server: &str, key: Option<&str>) -> DaemonClient {
        let server = Server { server: Url::parse(server).unwrap(), key_file: None };
        DaemonClient { key: key.map(Secret::new), ..DaemonClient::new(server).unwrap() }
    }

    fn explained(client: &DaemonClient, status: u16, body: &str) -> String {
        client.explain(StatusCode::from_u16(status).unwrap(), &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_path_is_appended_to_the_servers_own() {
        for (server, url) in [
            ("http://h:1", "http://h:1/v1/accounts/a%2Fb?after=wx%26"),
            ("http://h/wx/", "http://h/wx/v1/accounts/a%2Fb?after=wx%26"),
        ] {
            let built = client(server, None).url(&["v1", "accounts", "a/b"], &[("after", "wx&")]);
            assert_eq!(built.as_str(), url);
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let unauthorized = r#"{"code":"unauthorized","title":"Unauthorized","detail":"no key"}"#;
        let message = explained(&client("http://h", None), 401, unauthorized);
        assert!(
            message.contains("http://h/ wants a client key: put it into") && message.contains("WXTOKEND_KEY"),
            "{message}"
        );
        let message = explained(&client("http://h", Some("hunter2")), 401, unauthorized);
        assert!(message.contains("does not know the key") && !message.contains("hunter2"), "{message}");

        let unavailable = r#"{"code":"token_unavailable","detail":"no valid token: invalid ip","state":"parked",
            "last_fault":{"kind":"parked","errcode":40164,"message":"invalid ip","advice":"add IP 1.2.3.4","at":"x"}}"#;
        let message = explained(&client("http://h", None), 503, unavailable);
        assert_eq!(message, "no valid token: invalid ip\n  → add IP 1.2.3.4");

        let message = explained(&client("http://h", None), 404, "{}");
        assert!(
            message.starts_with("http://h/ answered HTTP 404 Not Found, but not as wxtokend does"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_is_named_with_its_address_and_the_way_to_change_it() {
        // Bound so that no other program listens there.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.set_reuseaddr(true).unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = format!("http://{}", silent.local_addr().unwrap());
        let message = client(&server, None).get(&["v1"], &[]).await.unwrap_err().to_string();
        assert!(message.starts_with(&format!("no answer from {server}/: Connection refused")), "{message}");
        assert!(message.contains("--server") && message.contains("WXTOKEND_SERVER"), "{message}");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_not_printed() {
        let message = bearer(&Secret::new("hunter2\n")).unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
        assert!(bearer(&Secret::new("k")).unwrap().is_sensitive());
    }
}
