//! Connections: accepted, bounded in number, time and size, and ended in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// So many connections at once; the others wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// A request's head must have come within this, which is also how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// What a connection may buffer: a head must fit in.
const LARGEST_HEAD: usize = 32 * 1024;
/// How long connections may take to end when the server stops; then they are cut.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// A pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping`, and then until the last connection has ended.
pub(super) async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    // Dropped at the end: that cuts what has not ended by then.
    let mut connections = JoinSet::new();
    let service = TowerToHyperService::new(router);
    let mut failing = false;
    while let Some(Ok(slot)) = stopping.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
        let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let connection = graceful.watch(http(stream, service.clone()));
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%error, "a connection ended badly");
                    }
                    drop(slot);
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(event = "accept_failed", %error, "failed to accept connections; tried on and on");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

fn http(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    // Answers are small and written whole; a failure means that the client is gone, which shows soon enough.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
}

/// The connection was given up before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
