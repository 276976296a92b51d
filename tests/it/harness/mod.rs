//! The harness: starts the program and the sandbox, calls the API over HTTP, and waits without blind sleeps.

mod answer;
mod bad_host;
mod browser;
mod daemon;
mod lab;
mod link;
mod log;
mod nginx;
mod packages;
mod port;
mod prometheus;
mod reader;
mod redis;
mod tool;
mod vitals;
mod wechat;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub(crate) use answer::{Answer, Http};
pub(crate) use bad_host::{BadHost, Behaviour, CERTIFICATE, Call, KEY, SMUGGLED, Step, answer, tls_before};
pub(crate) use browser::{Browser, DOWN, ENTER, ESCAPE, Screen};
pub(crate) use daemon::Daemon;
pub(crate) use lab::{Ended, Lab, ended, secret_of};
pub(crate) use link::Link;
pub(crate) use log::Log;
pub(crate) use nginx::Nginx;
pub(crate) use packages::{node_packages, python_with};
pub(crate) use port::Port;
pub(crate) use prometheus::{Prometheus, QueryResult};
pub(crate) use reader::Reader;
pub(crate) use redis::Redis;
pub(crate) use tool::{said, tool, words};
pub(crate) use vitals::Vitals;
pub(crate) use wechat::{WeChat, appid};

/// Far longer than anything here takes, even on the slowest machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(15);

/// Waits until `holds` is true. Panics with `what` after [`TIMEOUT`].
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    find(what, async || holds().await.then_some(())).await;
}

/// Waits until `attempt` returns something.
pub(crate) async fn find<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < TIMEOUT, "waited {TIMEOUT:?} in vain: {what}");
        sleep(PAUSE).await;
    }
}
