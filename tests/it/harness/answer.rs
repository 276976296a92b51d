//! HTTP client of a daemon.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// A client of a daemon's API. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    address: SocketAddr,
    key: Option<String>,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn to(address: SocketAddr) -> Self {
        // Fails if another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(80));
        // The daemon closes idle connections after 80 s; the client closes its own earlier.
        let client = client.pool_idle_timeout(Duration::from_secs(60));
        Self { client: client.build().unwrap(), address, key: None }
    }

    /// The same client with a client's key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request; `None` if the daemon is gone.
    pub(crate) async fn try_send(request: RequestBuilder) -> Option<Answer> {
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
        };
        let headers = answer.headers().iter().map(header).collect();
        Some(Answer { status, headers, body: answer.text().await.ok()? })
    }

    pub(crate) async fn try_get(&self, path: &str) -> Option<Answer> {
        Self::try_send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.expect("an answer from the daemon")
    }

    pub(crate) async fn try_token(&self, appid: &str) -> Option<Answer> {
        self.try_get(&format!("/v1/accounts/{appid}/token")).await
    }

    pub(crate) async fn token(&self, appid: &str) -> Answer {
        self.get(&format!("/v1/accounts/{appid}/token")).await
    }

    /// The value of the current token, which must exist.
    pub(crate) async fn token_value(&self, appid: &str) -> String {
        self.token(appid).await.access_token()
    }

    pub(crate) async fn view(&self, appid: &str) -> Value {
        self.get(&format!("/v1/accounts/{appid}")).await.json()
    }

    /// The state of an account.
    pub(crate) async fn state(&self, appid: &str) -> String {
        self.view(appid).await["state"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn until_state(&self, appid: &str, state: &str) {
        super::until(&format!("{appid} is {state}"), async || self.state(appid).await == state).await;
    }

    pub(crate) async fn try_reject(&self, appid: &str, token: &str) -> Option<Answer> {
        let body = json!({ "access_token": token }).to_string();
        let request = self.request(Method::POST, &format!("/v1/accounts/{appid}/token/reject"));
        Self::try_send(request.header("content-type", "application/json").body(body)).await
    }

    pub(crate) async fn reject(&self, appid: &str, token: &str) -> Answer {
        self.try_reject(appid, token).await.expect("an answer from the daemon")
    }

    pub(crate) async fn try_refresh(&self, appid: &str, force: bool) -> Option<Answer> {
        let path = format!("/v1/accounts/{appid}/token/refresh?force={force}");
        Self::try_send(self.request(Method::POST, &path)).await
    }

    pub(crate) async fn refresh(&self, appid: &str, force: bool) -> Answer {
        self.try_refresh(appid, force).await.expect("an answer from the daemon")
    }

    /// The value of the sample in `/metrics` that starts with `series`, labels included.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await.body;
        let line =
            text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn access_token(&self) -> String {
        self.json()["access_token"].as_str().unwrap_or_else(|| panic!("no token: {self:?}")).to_owned()
    }

    /// A string of the answer, such as `code` of a problem or `outcome` of a rejection.
    pub(crate) fn word(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap_or_else(|| panic!("no {key}: {self:?}")).to_owned()
    }
}
