//! Debian's Redis, on a port and in a folder of its own. It can be killed and started again.

use std::path::PathBuf;

use redis::{AsyncConnectionConfig, Client, FromRedisValue, cmd};
use tokio::process::Child;

use super::log::Log;
use super::{CERTIFICATE, KEY, Lab, Port, TIMEOUT, find, tool};

/// A Redis without persistence, killed when it is dropped.
pub(crate) struct Redis {
    /// Reserved even while the Redis is down.
    port: Port,
    password: &'static str,
    child: Option<Child>,
}

impl Redis {
    /// Starts a Redis without a password.
    pub(crate) async fn start(lab: &Lab) -> Self {
        Self::start_with(lab, "", &[]).await
    }

    /// Starts a Redis with `password`, unless that is empty, and with more arguments.
    pub(crate) async fn start_with(lab: &Lab, password: &'static str, more: &[&str]) -> Self {
        let port = Port::reserve();
        let mut redis = Self { port, password, child: None };
        let port = redis.number();
        redis.run(lab, &["--port", &port], more).await;
        redis
    }

    /// Starts a Redis that accepts only TLS, with the tests' certificate.
    pub(crate) async fn start_with_tls(lab: &Lab) -> Self {
        let port = Port::reserve();
        let files: [PathBuf; 2] =
            [("redis-cert.pem", CERTIFICATE), ("redis-key.pem", KEY)].map(|(name, text)| {
                std::fs::write(lab.path(name), text).unwrap();
                lab.path(name)
            });
        let mut redis = Self { port, password: "", child: None };
        let port = redis.number();
        let [cert, key] = files.each_ref().map(|path| path.to_str().unwrap());
        let tls = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no"];
        redis.run(lab, &["--port", "0", "--tls-port", &port], &tls).await;
        redis
    }

    fn number(&self) -> String {
        self.port.address.port().to_string()
    }

    async fn run(&mut self, lab: &Lab, port: &[&str], more: &[&str]) {
        let mut command = tool("redis-server", "redis-server").await;
        command.args(port).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(more);
        if !self.password.is_empty() {
            command.args(["--requirepass", self.password]);
        }
        let mut child = lab.prepared(command).spawn().unwrap();
        let log = Log::of(child.stdout.take().unwrap());
        find("redis-server is ready", async || {
            assert!(child.try_wait().unwrap().is_none(), "redis-server ended:\n{}", log.text());
            log.text().contains("Ready to accept connections").then_some(())
        })
        .await;
        self.child = Some(child);
    }

    /// Kills the Redis, which loses all data.
    pub(crate) async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// Starts the Redis again, empty, on the same port.
    pub(crate) async fn restart(&mut self, lab: &Lab) {
        self.run(lab, &["--port", &self.number()], &[]).await;
    }

    /// The URL, including the password.
    pub(crate) fn url(&self) -> String {
        match self.password {
            "" => format!("redis://127.0.0.1:{}", self.port.address.port()),
            password => format!("redis://:{password}@127.0.0.1:{}", self.port.address.port()),
        }
    }

    /// Sends a command and returns the reply.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let client = Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection_with_config(&limits).await.unwrap();
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }

    /// The unix time in seconds.
    pub(crate) async fn now_s(&self) -> i64 {
        self.ask::<(i64, i64)>(&["TIME"]).await.0
    }

    /// The value of a key.
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.ask(&["GET", key]).await
    }

    /// Waits until a key has this value.
    pub(crate) async fn until(&self, key: &str, value: Option<&str>) {
        super::until(&format!("{value:?} stands at {key}"), async || self.get(key).await.as_deref() == value)
            .await;
    }
}
