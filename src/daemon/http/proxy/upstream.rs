//! Connections to WeChat for calls that are passed on.
//!
//! They are kept and shared, unlike those for tokens. There a connection that closes just as the next call goes
//! out leaves a doubt about the token; here it costs the client one call, as it would with connections of its
//! own. And what a broken gateway sends late, when no call waits, ends the connection rather than being taken for
//! the answer to the next.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::upload::{Upload, UploadBody};
use crate::certificates;

/// How long a connection is kept without a call. Shorter than servers keep theirs, so that ours is the side that
/// closes.
const IDLE: Duration = Duration::from_secs(20);

/// The connections to WeChat's hosts, and their limits.
pub(super) struct Upstream {
    plain: OnceCell<Pool>,
    secure: OnceCell<Pool>,
    max_connections: usize,
    connect_timeout: Duration,
    /// By host.
    slots: Mutex<HashMap<String, Arc<Semaphore>>>,
}

type Pool = Client<HttpsConnector<HttpConnector>, UploadBody>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nothing was sent.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The call may have reached WeChat.
    #[error("the connection broke before the answer: {0}")]
    Cut(String),
    /// The client's body ended early.
    #[error("the client's body broke off")]
    Client,
}

/// What is sent, but for its body.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path_and_query: PathAndQuery,
    pub(super) headers: axum::http::HeaderMap,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

impl Upstream {
    pub(super) fn new(max_connections: u32, connect_timeout: Duration) -> Self {
        Self {
            plain: OnceCell::new(),
            secure: OnceCell::new(),
            max_connections: usize::try_from(max_connections).unwrap_or(Semaphore::MAX_PERMITS),
            connect_timeout,
            slots: Mutex::default(),
        }
    }

    /// Sends a call to the first of `hosts` that can be reached, and returns the head of the answer, with what
    /// holds the connection's slot.
    pub(super) async fn send(
        &self,
        hosts: &[Url],
        head: &Head,
        upload: &Arc<Upload>,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Failed> {
        let mut failed = Failed::NotSent("no host is configured".to_owned());
        for host in hosts {
            match self.send_to(host, head, upload.body()).await {
                // Nothing was sent, so the next host may be tried.
                Err(not_sent @ Failed::NotSent(_)) => failed = not_sent,
                ended => return ended,
            }
        }
        Err(failed)
    }

    /// Sends a call whose body was kept.
    pub(super) async fn send_again(
        &self,
        hosts: &[Url],
        head: &Head,
        upload: &Upload,
    ) -> Option<Result<(Response<Incoming>, OwnedSemaphorePermit), Failed>> {
        let body = upload.again()?;
        Some(self.send_to(hosts.first()?, head, body).await)
    }

    async fn send_to(
        &self,
        host: &Url,
        head: &Head,
        body: UploadBody,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Failed> {
        let uri = uri(host, &head.path_and_query).ok_or_else(|| Failed::NotSent("not a URL".to_owned()))?;
        let pool = self.pool(host).await.map_err(Failed::NotSent)?;
        let slots = self.slots(host);
        // Fails only for a closed semaphore, and this one is never closed.
        let slot = slots.acquire_owned().await.map_err(|_| Failed::NotSent("closed".to_owned()))?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers.clone();
        match pool.request(request).await {
            Ok(answer) => Ok((answer, slot)),
            Err(error) if error.is_connect() => Err(Failed::NotSent(innermost(&error))),
            Err(error) => {
                let is_clients = error
                    .source()
                    .and_then(|source| source.downcast_ref::<hyper::Error>())
                    .is_some_and(hyper::Error::is_user);
                Err(if is_clients { Failed::Client } else { Failed::Cut(innermost(&error)) })
            }
        }
    }

    async fn pool(&self, host: &Url) -> Result<&Pool, String> {
        if host.scheme() == "http" {
            return Ok(self.plain.get_or_init(async || self.build(RootCertStore::empty())).await);
        }
        let secure = async || {
            let found =
                certificates::system().await.map_err(|missing| format!("CA certificates: {missing}"))?;
            let mut roots = RootCertStore::empty();
            let (_, _) = roots.add_parsable_certificates(found);
            Ok(self.build(roots))
        };
        self.secure.get_or_try_init(secure).await
    }

    fn build(&self, roots: RootCertStore) -> Pool {
        // Fails when the embedding program has already installed a provider, which is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(self.max_connections)
            .build(connector)
    }

    fn slots(&self, host: &Url) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let name = host.authority();
        if let Some(slots) = slots.get(name) {
            return Arc::clone(slots);
        }
        let new = Arc::new(Semaphore::new(self.max_connections));
        slots.insert(name.to_owned(), Arc::clone(&new));
        new
    }
}

/// The address of a call at `host`, whose path ends in a slash.
fn uri(host: &Url, call: &PathAndQuery) -> Option<Uri> {
    let base = host.path().trim_end_matches('/');
    let call = match base {
        "" => call.clone(),
        base => PathAndQuery::try_from(format!("{base}{call}")).ok()?,
    };
    let port = host.port().map_or_else(String::new, |port| format!(":{port}"));
    let authority = format!("{}{port}", host.host_str()?);
    Uri::builder().scheme(host.scheme()).authority(authority).path_and_query(call).build().ok()
}

/// The innermost cause, which says most; it holds no part of the call.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    loop {
        let inner = match cause.downcast_ref::<std::io::Error>() {
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
        match inner {
            Some(inner) => cause = inner,
            None => return cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_below_the_hosts_path_byte_for_byte() {
        for (host, call, expected) in [
            (
                "https://api.weixin.qq.com/",
                "/cgi-bin/x?a=%20+b",
                "https://api.weixin.qq.com/cgi-bin/x?a=%20+b",
            ),
            ("http://127.0.0.1:80/wx/", "/%E5%BE%AE?", "http://127.0.0.1/wx/%E5%BE%AE?"),
            ("http://[::1]:8080/", "/x", "http://[::1]:8080/x"),
        ] {
            let call = PathAndQuery::from_static(call);
            assert_eq!(uri(&host.parse().unwrap(), &call).unwrap().to_string(), expected);
        }
    }
}
