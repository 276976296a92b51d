//! Accepts connections, bounds their number, time and size, and shuts them down in order.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::io::ioctl_fionread;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::api_service::ApiService;
use super::app_state::AppState;
use super::connection::{PendingIo, TrackedBody, is_kept, set_close};
use super::paths::needs_no_key;
use super::peer::{CURRENT, Peer};
use super::slots::{ConnectionSlot, LONGEST_DELAY, Slots};
use super::timed_io::TimedIo;
use super::unread_body::lend;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Connections at once, where the limit of open files allows it; [`Slots`] decides which clients may have
/// them.
const MAX_CONNECTIONS: usize = 10_000;
/// Length of the accept queue, where the system allows it (Linux' own default limit).
const BACKLOG: u32 = 4096;
/// Open files reserved for the rest of the program, or half of all if that is less: clients must not keep us
/// from WeChat.
const RESERVED_FILES: usize = 512;
/// Connections at once on a listener for metrics alone, taken from the reserved files.
pub(super) const MAX_SCRAPERS: usize = 32;
/// How long a connection is kept without a request. Longer than clients that ignore our `Keep-Alive` header
/// keep theirs, such as nginx (60 s) and most connection pools.
pub(super) const IDLE: Duration = Duration::from_secs(80);
/// Size of a connection's buffer, which limits a request head.
const MAX_HEAD: usize = 32 * 1024;
/// How long connections may take to end when the server stops, before they are cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// How long an evicted connection may take to finish the current answer.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// How long a client may go on sending after its connection has ended; the second applies when the server
/// stops.
const LINGER: Duration = Duration::from_secs(2);
const SHUTDOWN_LINGER: Duration = Duration::from_millis(500);
/// Pause after a failed accept, so that a lack of file descriptors does not cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens as tokio's `TcpListener::bind` does, but with an accept queue long enough for a thundering herd. A
/// client that finds the queue full retries only after a second, and then after two.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Lets a restarted server take the port again at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and serves `service` on them until `stopping` is cancelled, then waits for open
/// connections.
///
/// `slots` bounds their number, and each is kept for `idle` without a request.
pub(super) async fn serve(
    listener: TcpListener,
    service: ApiService,
    slots: Arc<Slots>,
    idle: Duration,
    stopping: CancellationToken,
) {
    // Dropped at the end, which cuts the connections that are still open.
    let mut connections = JoinSet::new();
    let mut failing = false;
    while let Some(permit) = stopping.run_until_cancelled(slots.acquire()).await {
        let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let slot = slots.register(permit, peer.ip());
                connections.spawn(connection(stream, slot, service.clone(), idle, stopping.clone()));
            }
            Err(error) if is_client_abort(&error) => {}
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
    let _ = timeout(SHUTDOWN_GRACE, all_ended).await;
}

/// Connection limit of the API.
pub(super) fn max_connections() -> usize {
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    MAX_CONNECTIONS.min(files - RESERVED_FILES.min(files / 2))
}

async fn connection(
    stream: TcpStream,
    slot: ConnectionSlot,
    service: ApiService,
    idle: Duration,
    stopping: CancellationToken,
) {
    // Answers are small and written whole. A failure means that the client is gone, which the next read or
    // write shows.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&slot.place.connection);
    let stream = SharedStream(Arc::new(Mutex::new(stream)));
    connection.set_socket(&stream.0);
    let peer = Arc::new(Peer::at(&slot));
    let stream = converse(stream, SharedStream::has_unread, service, idle, peer, &stopping).await;
    let Some(stream) = stream.into_inner() else { return };
    connection.set_pending_io(PendingIo::Read);
    let stopped = async {
        stopping.cancelled().await;
        sleep(SHUTDOWN_LINGER).await;
    };
    let evicted = async {
        connection.until_evicted().await;
        while !slot.is_nearly_full() {
            sleep(SHUTDOWN_LINGER).await;
        }
    };
    tokio::select! {
        () = drain_until_eof(&stream) => {}
        () = sleep(LINGER) => {}
        () = stopped => {}
        () = evicted => {}
    }
}

/// Serves requests on `stream` until the connection ends, then returns the stream. See [`TimedIo::new`].
pub(super) async fn converse<S>(
    stream: S,
    has_unread: fn(&S) -> bool,
    service: ApiService,
    idle: Duration,
    peer: Arc<Peer>,
    stopping: &CancellationToken,
) -> S
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = Arc::clone(&peer.connection);
    let io = TimedIo::new(stream, has_unread, Arc::clone(&connection), idle);
    let keep_alive_header = keep_alive_value(idle);
    let served = Arc::clone(&peer);
    let service = service_fn(move |request| {
        let under_way = served.connection.begin();
        let keep_alive_header =
            keep_alive_header.clone().filter(|_| is_kept(request.version(), request.headers()));
        let (service, peer) = (service.clone(), Arc::clone(&served));
        let app = AppState::clone(&service.app);
        async move {
            if !peer.key_waits().is_zero() && !needs_no_key(request.uri().path()) {
                Box::pin(delay_key_check(&peer, &app)).await?;
            }
            let (request, unread) = lend(request);
            let Ok(mut response) = service.answer(request).await;
            if peer.take_guess() {
                app.wrong_keys.note(peer.address());
            }
            let is_reusable = match unread {
                Some(unread) => Box::pin(unread.drain()).await,
                None => true,
            };
            if !is_reusable || peer.connection.should_close() {
                set_close(response.headers_mut());
            } else if let Some(keep_alive_header) = keep_alive_header {
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
                headers.insert(KEEP_ALIVE, keep_alive_header);
            }
            Ok::<_, io::Error>(response.map(|body| TrackedBody { body, _under_way: under_way }))
        }
    });
    let mut http = http1::Builder::new()
        // A client that has closed its side may still wait for an answer. One that is gone shows when the
        // answer is sent, and every wait has a time limit.
        .half_close(true)
        // `TimedIo` has limits of its own.
        .header_read_timeout(None)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    {
        let mut conversation = pin!(CURRENT.scope(peer, &mut http));
        let ended = tokio::select! {
            biased;
            ended = &mut conversation => Some(ended),
            () = stopping.cancelled() => {
                // Not by hyper's graceful shutdown, which discards bytes that have arrived but were not read.
                connection.close();
                Some(conversation.await)
            }
            () = connection.until_evicted() => timeout(EVICTION_GRACE, conversation).await.ok(),
        };
        if let Some(Err(error)) = ended {
            debug!(%error, "a connection ended badly");
        }
    }
    http.into_parts().io.close().await
}

/// Delays a client that guesses keys. The delay comes before the key is checked, since silence must not
/// reveal that the key is wrong. While delayed, the connection may be evicted to make room for others.
///
/// # Errors
/// When the connection ends first; the key is then not checked.
async fn delay_key_check(peer: &Peer, app: &AppState) -> io::Result<()> {
    let connection = &peer.connection;
    connection.set_pending_io(PendingIo::Read);
    let checkable = async {
        // Repeat: meanwhile other connections of the same address may have shown wrong keys.
        loop {
            match peer.key_waits() {
                Duration::ZERO => return,
                delay => sleep(delay).await,
            }
        }
    };
    tokio::select! {
        _ = timeout(LONGEST_DELAY, checkable) => {}
        () = connection.until_evicted() => return Err(io::ErrorKind::ConnectionAborted.into()),
        () = app.stopping.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
    }
    connection.set_pending_io(PendingIo::None);
    Ok(())
}

/// The `Keep-Alive` header. It announces less time than `idle`, so that clients close the connection first.
fn keep_alive_value(idle: Duration) -> Option<HeaderValue> {
    let seconds = (idle - idle / 16).as_secs();
    (seconds > 0).then(|| HeaderValue::try_from(format!("timeout={seconds}")).ok()).flatten()
}

/// A socket that the connection's own task can also look at while it is served.
struct SharedStream(Arc<Mutex<TcpStream>>);

impl SharedStream {
    /// Whether bytes have arrived. Asks the system, since the runtime may not have been notified yet.
    fn has_unread(&self) -> bool {
        ioctl_fionread(&*self.lock()).is_ok_and(|bytes| bytes > 0)
    }

    /// The socket, once nobody else holds it.
    fn into_inner(self) -> Option<TcpStream> {
        Arc::into_inner(self.0).map(|stream| stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

/// Reads and discards until the client closes its side. Closing a socket while the client still sends resets
/// it, and the client may lose the answer that asked it to stop.
async fn drain_until_eof(stream: &TcpStream) {
    let mut buffer = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether the client gave up the connection before it was accepted.
fn is_client_abort(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
