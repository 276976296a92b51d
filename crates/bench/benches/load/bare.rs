//! Baseline: what axum alone does with a fixed body of the same size and the same headers, for the same
//! requests.

use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Outcome;

/// An answer that is given over and over.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fixed {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Fixed {
    /// Takes the parts of `answer` that hyper does not add by itself.
    pub(crate) fn of(answer: &str) -> Outcome<Self> {
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let ours = headers.filter(|(name, _)| !["content-length", "date", "connection"].contains(name));
        let headers = ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { headers, body: body.to_owned() })
    }
}

/// Serves the answer in `file`, with a runtime like the daemon's.
pub(crate) fn serve(file: &Path) -> Outcome<()> {
    let Fixed { headers, body } = serde_json::from_slice(&std::fs::read(file)?)?;
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| Ok((HeaderName::try_from(name)?, HeaderValue::try_from(value)?)))
        .collect::<Outcome<_>>()?;
    let body = Bytes::from(body);
    let answer = move || {
        let (headers, body) = (headers.clone(), body.clone());
        async move { (headers, body) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("{{\"bare\":\"{}\"}}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let router = Router::new().route("/v1/accounts/{appid}/token", get(answer));
        Ok(axum::serve(listener, router).await?)
    })
}

/// Serves what WeChat would: a token for each token call, and an answer of `length` bytes for every other.
pub(crate) fn serve_wechat(length: usize) -> Outcome<()> {
    let token = Bytes::from(format!("{{\"access_token\":\"{}\",\"expires_in\":7200}}", "t".repeat(157)));
    let front = "{\"subscribe\":1,\"openid\":\"oLVPpjqs9BhvzwPj5A-vTYAX3GLc\",\"remark\":\"";
    let body = Bytes::from(format!("{front}{}\"}}", "r".repeat(length.saturating_sub(front.len() + 2))));
    let answer =
        move |body: Bytes| async move { ([("content-type", "application/json; encoding=utf-8")], body) };
    let mint = move || answer(token.clone());
    let router =
        Router::new().route("/cgi-bin/stable_token", post(mint)).fallback(move || answer(body.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("{{\"bare\":\"{}\"}}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        Ok(axum::serve(listener, router).await?)
    })
}
