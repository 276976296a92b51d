//! The real transport: reqwest with rustls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::net::lookup_host;

use super::transport::{Lost, Method, Pending, Request, Response, Transport};

/// WeChat's answers are under 2 KiB; what is longer is none of them.
const LONGEST_ANSWER: usize = 64 * 1024;

/// HTTP/1.1 over TCP or TLS, a connection for each call.
///
/// Calls are rare: ten thousand accounts make one or two a second. A connection that is kept may end just as the next
/// call goes out, which on `token` leaves a doubt; and what a broken gateway sends late on it would be taken for the
/// answer to the next call, which is another account's.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: Client,
}

/// The HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("set up the HTTP client (are the system's CA certificates installed?)")]
pub struct TransportError(#[source] reqwest::Error);

impl HttpTransport {
    /// A transport whose tries end after `timeout`, connecting included.
    ///
    /// # Errors
    /// When TLS cannot be set up, which happens where the system has no CA certificates.
    pub fn new(timeout: Duration) -> Result<Self, TransportError> {
        // Fails when the program that embeds us has chosen a provider already; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(timeout)
            // A shade less than the whole, so that a host that accepts nobody shows as "not sent".
            .connect_timeout(timeout.mul_f64(0.9))
            .dns_resolver(Arc::new(SystemDns { timeout: timeout.mul_f64(0.8) }))
            .pool_max_idle_per_host(0)
            .user_agent(concat!("wxtokend/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(|client| Self { client })
            .map_err(|error| TransportError(error.without_url()))
    }
}

impl Transport for HttpTransport {
    fn send(&self, base: &Url, request: Request) -> Pending<Result<Response, Lost>> {
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
        // Whoever ends a connection first keeps its port for a minute: better the host.
        let call = call.header("connection", "close");
        Box::pin(async move {
            let mut answer = call.send().await.map_err(lost)?;
            let date = answer.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(lost)? {
                if body.len() + chunk.len() > LONGEST_ANSWER {
                    return Err(Lost::Cut(format!("it is longer than {LONGEST_ANSWER} bytes")));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Response { status, body, date })
        })
    }
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

/// The innermost cause, which is the one that tells: "Connection refused (os error 111)". TLS is named, as it does
/// not name itself.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = within(cause) {
        cause = inner;
    }
    match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidMessage(_)) => "TLS: the host does not speak TLS on this port".to_owned(),
        Some(failure) => format!("TLS: {failure}"),
        None => cause.to_string(),
    }
}

/// What caused `error`; what an I/O error was made of does not count as its source.
fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => wrapper.get_ref().map(|inner| inner as _),
        None => error.source(),
    }
}

/// The system's resolver, which reqwest would ask, too, but without saying so when it fails.
struct SystemDns {
    /// Less than connecting may take, so that a lack of answers shows as one of the DNS.
    timeout: Duration,
}

/// A host's name leads nowhere.
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What the transport makes of a server that answers any request by `answer`.
    async fn told(answer: String) -> Result<Response, Lost> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = peer.read(&mut [0; 4096]).await;
            // A client that has read enough hangs up.
            let _ = peer.write_all(answer.as_bytes()).await;
        });
        let request = Request { method: Method::Get, path: "/x", query: Vec::new(), body: Vec::new() };
        let told = HttpTransport::new(Duration::from_secs(20)).unwrap().send(&base, request).await;
        server.abort();
        told
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let redirect = answer("302 Found", "Location: http://127.0.0.1:1/elsewhere\r\n", "");
        assert_eq!(told(redirect).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn an_answer_may_have_64_kib_and_not_a_byte_more() {
        let whole = told(answer("200 OK", "", &"x".repeat(LONGEST_ANSWER))).await.unwrap();
        assert_eq!(whole.body.len(), LONGEST_ANSWER);
        let cut = told(answer("200 OK", "", &"x".repeat(LONGEST_ANSWER + 1))).await.unwrap_err();
        assert!(matches!(&cut, Lost::Cut(why) if why.contains("longer than 65536")), "{cut}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_address_is_told_as_trouble_of_the_dns() {
        type Found = std::vec::IntoIter<SocketAddr>;
        let limit = Duration::from_secs(4);
        let silent = std::future::pending::<io::Result<Found>>();
        assert_eq!(addresses(limit, silent).await.unwrap_err().to_string(), "DNS: no answer in time");
        let failing = async { Err::<Found, _>(io::Error::other("Name or service not known")) };
        let told = addresses(limit, failing).await.unwrap_err().to_string();
        assert_eq!(told, "DNS: Name or service not known");
    }
}
