//! The real transport: reqwest with rustls.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use rustls::CertificateError;
use tokio::net::lookup_host;
use wxtokend_core::clock::{Clock, SystemClock};

use super::date;
use super::hosts::host_label;
use super::transport::{Lost, Method, Request, Response, ResponseFuture, Transport};
use crate::certificates::{self, Missing};

/// WeChat's answers are under 2 KiB; a longer one is not WeChat's.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Added to the error when a certificate's issuer is unknown.
const WECHATS_ROOT: &str = "WeChat's is signed by DigiCert Global Root G2 since 2024-10-22, which an old CA bundle \
    and a bare image lack, and a proxy that opens TLS does not have";

/// HTTP/1.1 over TCP or TLS, with a connection for each call.
///
/// Calls are rare: ten thousand accounts make one or two a second. A kept connection may close just as the
/// next call goes out, which on `token` leaves a doubt; and what a broken gateway sends late on it would be
/// taken for the answer to the next call, which is another account's.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client,
    /// Shows how far off a date is.
    clock: Clock,
}

/// Why the HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A host uses TLS, and there are no certificates to verify it with.
    #[error(
        "load the CA certificates by which {host} (upstream.base_urls) is known: {looked_at}; install them (the package \
         ca-certificates), or let SSL_CERT_FILE name a file of them or SSL_CERT_DIR a folder"
    )]
    NoCertificates {
        /// Which host.
        host: String,
        /// Where certificates were looked for.
        looked_at: String,
        /// Why there are none.
        #[source]
        cause: Missing,
    },
    /// Anything else.
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// A transport to the hosts of `base_urls` whose attempts end after `timeout`, connecting included.
    ///
    /// # Errors
    /// When one of them uses TLS and the system has no CA certificates, or does not deliver them within 5 s.
    pub async fn new(base_urls: &[Url], timeout: Duration) -> Result<Self, TransportError> {
        // Fails when the embedding program has already installed a provider, which is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = match base_urls.iter().find(|url| url.scheme() == "https") {
            Some(url) => certificates::system().await.map_err(|cause| TransportError::NoCertificates {
                host: host_label(url),
                looked_at: certificates::places(),
                cause,
            })?,
            // No certificate is verified, so a machine without any is no problem.
            None => Vec::new(),
        };
        let roots = roots.iter().map(|certificate| Certificate::from_der(certificate));
        let roots: Vec<_> = roots.collect::<Result<_, _>>().map_err(TransportError::Client)?;
        let client = Client::builder()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(timeout)
            // Slightly less than the whole, so that a host that accepts no connection shows as "not sent".
            .connect_timeout(timeout.mul_f64(0.9))
            // Without it the kernel continues to deliver a request for minutes after we have given it up.
            .tcp_user_timeout(timeout)
            .dns_resolver(Arc::new(SystemDns { timeout: timeout.mul_f64(0.8) }))
            .pool_max_idle_per_host(0)
            .user_agent(concat!("wxtokend/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(roots);
        let client = client.build().map_err(|error| TransportError::Client(error.without_url()))?;
        Ok(Self { client, clock: Arc::new(SystemClock::new()) })
    }
}

impl Transport for HttpTransport {
    fn send(&self, base: &Url, request: Request) -> ResponseFuture<Result<Response, Lost>> {
        let mut url = base.clone();
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let call = match request.method {
            Method::Get => self.client.get(url),
            Method::Post => {
                self.client.post(url).header("content-type", "application/json").body(request.body)
            }
        };
        // The side that closes a connection first keeps its port for a minute: better the host.
        let call = call.header("connection", "close");
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            let mut answer = call.send().await.map_err(lost)?;
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            let date = header("date").map(str::to_owned);
            let retry_after = header("retry-after")
                .and_then(|asked| retry_delay(asked, date.as_deref(), || clock.now().timestamp()));
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(lost)? {
                if body.len() + chunk.len() > LONGEST_ANSWER {
                    return Err(Lost::Cut(format!("it is longer than {LONGEST_ANSWER} bytes")));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Response { status, body, date, retry_after })
        })
    }
}

/// Reads a `Retry-After`: seconds, or a date, which is compared with the answer's `Date` where it has one.
fn retry_delay(asked: &str, date: Option<&str>, now: impl FnOnce() -> Timestamp) -> Option<Duration> {
    if let Ok(seconds) = asked.trim().parse::<f64>() {
        let is_pause = seconds >= 0.0;
        return is_pause.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let retry_delay = date::read(asked)?.duration_since(date.and_then(date::read).unwrap_or_else(now));
    Some(retry_delay.try_into().unwrap_or(Duration::ZERO))
}

fn lost(error: reqwest::Error) -> Lost {
    let error = error.without_url();
    if error.is_connect() {
        Lost::NotSent(root_cause(&error))
    } else if error.is_timeout() {
        Lost::TimedOut
    } else {
        Lost::Cut(root_cause(&error))
    }
}

/// The innermost cause, which is the informative one: "Connection refused (os error 111)". TLS is named,
/// since its errors do not name it.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause_of(cause) {
        cause = inner;
    }
    match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidMessage(_)) => "TLS: the host does not speak TLS on this port".to_owned(),
        Some(failure @ rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            format!("TLS: {failure}; {WECHATS_ROOT}")
        }
        Some(failure) => format!("TLS: {failure}"),
        None => cause.to_string(),
    }
}

/// The cause of `error`. The error inside an I/O error is not its source.
fn cause_of<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => wrapper.get_ref().map(|inner| inner as _),
        None => error.source(),
    }
}

/// The system's resolver, which reqwest would use as well, but without naming DNS when it fails.
struct SystemDns {
    /// Less than connecting may take, so that missing answers show as a DNS problem.
    timeout: Duration,
}

/// Why a host's name has no address.
#[derive(Debug, thiserror::Error)]
enum NoAddress {
    #[error("DNS: {0}")]
    Failed(String),
    #[error("DNS: no answer in time")]
    Late,
}

impl Resolve for SystemDns {
    fn resolve(&self, name: Name) -> Resolving {
        let limit = self.timeout;
        Box::pin(async move {
            let found = addresses(limit, lookup_host((name.as_str(), 0))).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

async fn addresses(
    limit: Duration,
    lookup: impl Future<Output = io::Result<impl Iterator<Item = SocketAddr>>>,
) -> Result<Vec<SocketAddr>, NoAddress> {
    match tokio::time::timeout(limit, lookup).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(NoAddress::Failed(error.to_string())),
        Err(_) => Err(NoAddress::Late),
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockFilter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What the transport returns for a server that answers any request with `answer`.
    async fn respond(answer: String) -> Result<Response, Lost> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = peer.read(&mut [0; 4096]).await;
            // A client that has read enough closes the connection.
            let _ = peer.write_all(answer.as_bytes()).await;
        });
        let request = Request { method: Method::Get, path: "/x", query: Vec::new(), body: Vec::new() };
        let result = transport(&base, Duration::from_secs(20)).await.send(&base, request).await;
        server.abort();
        result
    }

    async fn transport(base: &Url, timeout: Duration) -> HttpTransport {
        HttpTransport::new(std::slice::from_ref(base), timeout).await.unwrap()
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let redirect = answer("302 Found", "Location: http://127.0.0.1:1/elsewhere\r\n", "");
        assert_eq!(respond(redirect).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn an_answer_may_have_64_kib_and_not_a_byte_more() {
        let whole = respond(answer("200 OK", "", &"x".repeat(LONGEST_ANSWER))).await.unwrap();
        assert_eq!(whole.body.len(), LONGEST_ANSWER);
        let cut = respond(answer("200 OK", "", &"x".repeat(LONGEST_ANSWER + 1))).await.unwrap_err();
        assert!(matches!(&cut, Lost::Cut(why) if why.contains("longer than 65536")), "{cut}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_address_is_reported_as_a_dns_problem() {
        type Found = std::vec::IntoIter<SocketAddr>;
        let limit = Duration::from_secs(4);
        let silent = std::future::pending::<io::Result<Found>>();
        assert_eq!(addresses(limit, silent).await.unwrap_err().to_string(), "DNS: no answer in time");
        let failing = async { Err::<Found, _>(io::Error::other("Name or service not known")) };
        let result = addresses(limit, failing).await.unwrap_err().to_string();
        assert_eq!(result, "DNS: Name or service not known");
    }

    #[tokio::test]
    async fn the_pause_that_a_host_asks_for_is_read() {
        for (status, headers, asked) in [
            ("503 Service Unavailable", "Retry-After: 7\r\n", Some(7)),
            ("429 Too Many Requests", "retry-after:  90 \r\n", Some(90)),
            ("200 OK", "Retry-After: 7\r\n", None),
            ("502 Bad Gateway", "Retry-After: 7\r\n", None),
            ("503 Service Unavailable", "Retry-After: soon\r\n", None),
            ("503 Service Unavailable", "", None),
        ] {
            let result = respond(answer(status, headers, "")).await.unwrap();
            assert_eq!(result.asked_pause(), asked.map(Duration::from_secs), "{status} {headers}");
        }
    }

    #[test]
    fn a_pause_is_in_seconds_or_by_the_clock_of_the_host_that_asks_for_it() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let read = |asked, date| retry_delay(asked, date, || now);
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(read("Thu, 01 Jan 2026 12:02:00 GMT", None), seconds(120));
        assert_eq!(read("Thursday, 01-Jan-26 12:02:00 GMT", None), seconds(120));
        assert_eq!(read("Thu Jan  1 12:02:00 2026", Some("Thursday, 01-Jan-26 12:01:00 GMT")), seconds(60));
        let slow = Some("Thu, 01 Jan 2026 11:00:00 GMT");
        assert_eq!(read("Thu, 01 Jan 2026 11:00:30 GMT", slow), seconds(30), "its clock is an hour behind");
        assert_eq!(read("Thu, 01 Jan 2026 11:00:30 GMT", Some("yesterday")), seconds(0));
        assert_eq!(read("1e30", None), Some(Duration::MAX));
        assert_eq!(read("99999999999999999999999", None), Some(Duration::MAX));
        for nothing in ["", "-1", "NaN", "tomorrow"] {
            assert_eq!(read(nothing, None), None, "{nothing:?}");
        }
    }

    /// Offset of the flags in a TCP segment.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;

    /// Accepts connections but drops everything sent on them, like a link that is cut right afterwards.
    fn cut() -> [SockFilter; 5] {
        const LOAD_BYTE: u16 = 0x30;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, SYN),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, ACK),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ]
    }

    /// Whether the kernel keeps a TCP socket with the local port `port`, even one that its program has
    /// closed.
    fn is_kept(port: u16) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let own = format!("0100007F:{port:04X}");
        // The states TIME_WAIT and LISTEN.
        let is_over = |state| matches!(state, "06" | "07");
        sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|socket| {
            socket.get(1) == Some(&&*own) && !socket.get(3).is_some_and(|state| is_over(*state))
        })
    }

    #[tokio::test]
    async fn a_request_that_was_given_up_is_not_delivered_when_the_link_is_back() {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        listener.attach_filter(&cut()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();

        let request = Request { method: Method::Get, path: "/x", query: Vec::new(), body: Vec::new() };
        let transport = transport(&base, TIMEOUT).await;
        let (accepted, result) = tokio::join!(listener.accept(), transport.send(&base, request));
        let (mut far, near) = accepted.unwrap();
        assert!(matches!(result, Err(Lost::TimedOut | Lost::Cut(_))), "{result:?}");
        // The kernel would retry 6 s, 13 s and 26 s after the request.
        for _ in 0..200 {
            if !is_kept(near.port()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!is_kept(near.port()), "the kernel goes on delivering what was given up 20 s ago");
        socket2::SockRef::from(&far).detach_filter().unwrap();
        let read = tokio::time::timeout(Duration::from_secs(1), far.read(&mut [0; 1])).await;
        assert!(!matches!(read, Ok(Ok(1))), "the request was delivered");
    }
}
