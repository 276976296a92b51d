//! docs/sdk/nginx.conf and nginx-resolve.conf in a real nginx, between SDKs, a daemon and the sandbox.

use std::net::SocketAddr;

use tokio::process::Child;

use super::{Daemon, Http, Lab, Log, Port, tool, until};

const SNIPPET: &str = include_str!("../../../docs/sdk/nginx.conf");
const RESOLVE_SNIPPET: &str = include_str!("../../../docs/sdk/nginx-resolve.conf");

/// A running nginx, killed when it is dropped.
pub(crate) struct Nginx {
    _child: Child,
    _port: Port,
    pub(crate) http: Http,
    pub(crate) log: Log,
}

/// The snippet with other addresses, inside a configuration that includes it.
fn configuration(folder: &str, snippet: &str, changes: &[(&str, String)]) -> String {
    let snippet = changes.iter().fold(snippet.to_owned(), |snippet, (from, to)| {
        assert_eq!(snippet.matches(from).count(), 1, "{from}");
        snippet.replace(from, to)
    });
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr info;\nevents {{}}\n\
         http {{\n{temporary}{snippet}}}\n"
    )
}

impl Nginx {
    /// Starts nginx in front of `daemon` and waits until it answers.
    pub(crate) async fn start(lab: &Lab, daemon: &Daemon) -> Self {
        Self::before(lab, daemon.address(), "60s").await
    }

    /// Starts nginx in front of an API, to which it keeps idle connections for `keeps`, and waits until it
    /// answers.
    pub(crate) async fn before(lab: &Lab, api: SocketAddr, keeps: &str) -> Self {
        let port = Port::reserve();
        let changes = [
            ("server 127.0.0.1:8787;", format!("server {api};")),
            ("keepalive_timeout 60s;", format!("keepalive_timeout {keeps};")),
            ("listen 8080;", format!("listen {};", port.address)),
            ("proxy_pass https://api.weixin.qq.com;", format!("proxy_pass http://{};", lab.wechat.address)),
        ];
        Self::with(lab, SNIPPET, &changes, port).await
    }

    /// Starts nginx in front of WeChat, which asks `daemon` with `key` whose tokens calls carry, and waits until
    /// it answers.
    pub(crate) async fn resolving(lab: &Lab, daemon: &Daemon, key: &str) -> Self {
        let port = Port::reserve();
        let changes = [
            ("server 127.0.0.1:8787;", format!("server {};", daemon.address())),
            ("listen 8081;", format!("listen {};", port.address)),
            ("server api.weixin.qq.com:443;", format!("server {};", lab.wechat.address)),
            ("proxy_pass https://wechat$rewritten;", "proxy_pass http://wechat$rewritten;".to_owned()),
            ("proxy_pass https://wechat$request_uri;", "proxy_pass http://wechat$request_uri;".to_owned()),
            ("Bearer KEY", format!("Bearer {key}")),
        ];
        Self::with(lab, RESOLVE_SNIPPET, &changes, port).await
    }

    async fn with(lab: &Lab, snippet: &str, changes: &[(&str, String)], port: Port) -> Self {
        let folder = lab.folder.path().to_str().unwrap();
        std::fs::write(lab.path("nginx.conf"), configuration(folder, snippet, changes)).unwrap();
        let mut command = tool("nginx", "nginx").await;
        command.args(["-p", folder, "-e", "stderr", "-c"]).arg(lab.path("nginx.conf"));
        let mut child = lab.prepared(command).spawn().unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        let http = Http::to(port.address);
        until("nginx answers", async || {
            assert!(child.try_wait().unwrap().is_none(), "{}", log.text());
            http.try_get("/cgi-bin/token").await.is_some()
        })
        .await;
        Self { _child: child, _port: port, http, log }
    }
}
