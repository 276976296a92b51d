//! Connections: accepted, bounded in number, time and size, and ended in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::guard::Door;
use super::wire::Wire;

/// So many connections at once, where the limit of open files allows it; the others wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// So many may wait to be accepted, where the system allows it (Linux' own limit by default).
const CONNECTIONS_WAITING: u32 = 4096;
/// So many open files are left to the rest of the program, or half of all: whoever connects must not keep us from
/// WeChat.
const OTHER_FILES: usize = 512;
/// So many on a listener for metrics alone, out of those other files.
pub(super) const SCRAPERS: usize = 32;
/// A request's head must have come within this, which is also how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// What a connection may buffer: a head must fit in.
const LARGEST_HEAD: usize = 32 * 1024;
/// How long connections may take to end when the server stops; then they are cut.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long a client may go on sending after its connection has ended.
const LINGER: Duration = Duration::from_secs(2);
/// A pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As tokio does it, but with room for a crowd that comes at once: who finds none tries again only a second later, and
/// then after two.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port is taken again at once after a restart.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(CONNECTIONS_WAITING)
}

/// Serves what is behind `door`, on at `most` so many connections at once, until `stopping`, and then until the last connection has ended.
pub(super) async fn serve(listener: TcpListener, door: Door, most: usize, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(most));
    // Dropped at the end: that cuts what has not ended by then.
    let mut connections = JoinSet::new();
    let mut failing = false;
    while let Some(Ok(slot)) = stopping.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
        let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let connection = connection(stream, door.clone(), stopping.clone());
                connections.spawn(async move {
                    connection.await;
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
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(LAST_ANSWERS, all_ended).await;
}

/// How many connections the API may have at once.
pub(super) fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    CONNECTIONS.min(files - OTHER_FILES.min(files / 2))
}

async fn connection(stream: TcpStream, door: Door, stopping: CancellationToken) {
    // Answers are small and written whole; a failure means that the client is gone, which shows soon enough.
    let _ = stream.set_nodelay(true);
    let stream = converse(stream, door, &stopping).await;
    let _ = stopping.run_until_cancelled(timeout(LINGER, until_the_client_ends(&stream))).await;
}

/// Answers what comes over `stream`, and gives it back when no more is said.
pub(super) async fn converse<S>(stream: S, door: Door, stopping: &CancellationToken) -> S
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_header_size(LARGEST_HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(Wire::new(stream), service_fn(move |request| door.clone().answer(request)));
    let ended = tokio::select! {
        ended = &mut http => ended,
        () = stopping.cancelled() => {
            std::pin::Pin::new(&mut http).graceful_shutdown();
            (&mut http).await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended badly");
    }
    http.into_parts().io.into_inner()
}

/// A socket that is closed while its client still sends is reset, and the client may lose the answer that told it
/// to stop.
async fn until_the_client_ends(stream: &TcpStream) {
    let mut nowhere = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut nowhere) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// The connection was given up before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
