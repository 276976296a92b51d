//! Starts the program, simulates WeChat, asks over HTTP, and waits without sleeping blindly.

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
pub(crate) use bad_host::{Act, BadHost, CERTIFICATE, Call, Door, KEY, SMUGGLED, answer, tls_before};
pub(crate) use browser::{Browser, DOWN, ENTER, ESCAPE, Screen};
pub(crate) use daemon::Daemon;
pub(crate) use lab::{Ended, Lab, ended, secret_of};
pub(crate) use link::Link;
pub(crate) use log::Log;
pub(crate) use nginx::Nginx;
pub(crate) use packages::{node_packages, python_with};
pub(crate) use port::Port;
pub(crate) use prometheus::{Prometheus, Told};
pub(crate) use reader::Reader;
pub(crate) use redis::Redis;
pub(crate) use tool::{said, tool, words};
pub(crate) use vitals::Vitals;
pub(crate) use wechat::{WeChat, appid};

/// Far longer than anything here takes, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(15);

/// Waits until `holds`, or fails by saying that `what` never came.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    find(what, async || holds().await.then_some(())).await;
}

/// Waits until `look` finds something.
pub(crate) async fn find<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        sleep(PAUSE).await;
    }
}
