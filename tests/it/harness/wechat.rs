//! The sandbox on a loopback port, which can be closed and opened again.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wxtokend_core::account::Appid;
use wxtokend_sandbox::{Sandbox, Settings, Switches};

use super::{find, until};

/// The sandbox and its server.
pub(crate) struct WeChat {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: SocketAddr,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Deref for WeChat {
    type Target = Sandbox;
    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl WeChat {
    /// Starts a sandbox that behaves as badly as is not ruled out for WeChat.
    pub(crate) async fn start(token_lifetime: Duration, overlap: Duration) -> Self {
        let switches = Switches {
            second_mint_kills_first: true,
            forced_kills_at_once: true,
            failed_calls_count: true,
            hostile_tokens: true,
            ..Switches::default()
        };
        let sandbox = Sandbox::new(Settings { token_lifetime, overlap, switches, ..Settings::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut wechat = Self { sandbox, address, serving: None };
        wechat.serve(listener);
        wechat
    }

    /// From now on normal mode replaces a dead stable token. Needed where tokens die more often than calls
    /// may be forced.
    pub(crate) fn replace_dead_stable_tokens(&self) {
        self.set_switches(Switches { dead_stable_replaced: true, ..self.switches() });
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let sandbox = self.sandbox.clone();
        let task = tokio::spawn(async move {
            sandbox.serve(listener, async { drop(stopped.await) }).await;
        });
        self.serving = Some((stop, task));
    }

    /// Closes the port and cuts all connections.
    pub(crate) async fn close(&mut self) {
        let (stop, task) = self.serving.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    /// Listens on the same port again.
    pub(crate) async fn reopen(&mut self) {
        let address = self.address;
        let listener = find("the port is free again", async || TcpListener::bind(address).await.ok()).await;
        self.serve(listener);
    }

    /// Listens on another socket instead.
    pub(crate) async fn move_to(&mut self, listener: TcpListener) {
        self.close().await;
        self.address = listener.local_addr().unwrap();
        self.serve(listener);
    }

    /// Token calls for an account that have arrived, on either endpoint.
    pub(crate) fn calls(&self, appid: &str) -> u64 {
        let counters = self.counters(&self::appid(appid));
        counters.token_calls + counters.stable_token_calls
    }

    /// Tokens minted for an account, on either endpoint.
    pub(crate) fn mints(&self, appid: &str) -> u64 {
        let counters = self.counters(&self::appid(appid));
        counters.token_mints + counters.stable_token_mints
    }

    /// Waits until `calls` token calls have arrived.
    pub(crate) async fn until_called(&self, appid: &str, calls: u64) {
        until(&format!("{calls} calls for {appid}"), async || self.calls(appid) >= calls).await;
    }
}

/// Parses an appid.
pub(crate) fn appid(text: &str) -> Appid {
    Appid::new(text).unwrap()
}
