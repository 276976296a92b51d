//! Connections: accepted, bounded in number, time and size, and ended in order.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::io::ioctl_fionread;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::api_service::ApiService;
use super::app_state::AppState;
use super::connection::{TrackedBody, WaitsFor, is_kept, say_last};
use super::paths::needs_no_key;
use super::peer::{CURRENT, Peer};
use super::slots::{ConnectionSlot, LONGEST_DELAY, Slots};
use super::timed_io::TimedIo;
use super::unread_body::lend;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// So many connections at once, where the limit of open files allows it; see [`Slots`] for who may have them.
const CONNECTIONS: usize = 10_000;
/// So many may wait to be accepted, where the system allows it (Linux' own limit by default).
const CONNECTIONS_WAITING: u32 = 4096;
/// So many open files are left to the rest of the program, or half of all: whoever connects must not keep us from
/// WeChat.
const OTHER_FILES: usize = 512;
/// So many on a listener for metrics alone, out of those other files.
pub(super) const SCRAPERS: usize = 32;
/// How long a connection is kept without a request: longer than those keep theirs who do not heed what they are told,
/// such as nginx (60 s) and most pools.
pub(super) const IDLE: Duration = Duration::from_secs(80);
/// What a connection may buffer: a head must fit in.
const LARGEST_HEAD: usize = 32 * 1024;
/// How long connections may take to end when the server stops; then they are cut.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long a connection that was told to end for others may take with the answer under way.
const EVICTED_WITHIN: Duration = Duration::from_secs(1);
/// How long a client may go on sending after its connection has ended; the second, when the server stops.
const LINGER: Duration = Duration::from_secs(2);
const LAST_LINGER: Duration = Duration::from_millis(500);
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

/// Serves what is behind `service`, on as many connections at once as `slots` has, each kept for `idle` without a request,
/// until `stopping`, and then until the last connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    service: ApiService,
    slots: Arc<Slots>,
    idle: Duration,
    stopping: CancellationToken,
) {
    // Dropped at the end: that cuts what has not ended by then.
    let mut connections = JoinSet::new();
    let mut failing = false;
    while let Some(room) = stopping.run_until_cancelled(slots.room()).await {
        let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let slot = slots.enter(room, peer.ip());
                connections.spawn(connection(stream, slot, service.clone(), idle, stopping.clone()));
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

async fn connection(
    stream: TcpStream,
    slot: ConnectionSlot,
    service: ApiService,
    idle: Duration,
    stopping: CancellationToken,
) {
    // Answers are small and written whole; a failure means that the client is gone, which shows soon enough.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&slot.place.connection);
    let stream = converse(stream, has_unread, service, idle, Arc::new(Peer::at(&slot)), &stopping).await;
    connection.wait(WaitsFor::ToRead);
    let stopped = async {
        stopping.cancelled().await;
        sleep(LAST_LINGER).await;
    };
    let in_others_way = async {
        connection.until_evicted().await;
        while !slot.is_crowded() {
            sleep(LAST_LINGER).await;
        }
    };
    tokio::select! {
        () = until_the_client_ends(&stream) => {}
        () = sleep(LINGER) => {}
        () = stopped => {}
        () = in_others_way => {}
    }
}

/// Answers what comes over `stream`, and gives it back when no more is said. See [`TimedIo::new`].
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
    let wire = TimedIo::new(stream, has_unread, Arc::clone(&connection), idle);
    let keep = keep_alive(idle);
    let served = Arc::clone(&peer);
    let service = service_fn(move |request| {
        let under_way = served.connection.begin();
        let keep = keep.clone().filter(|_| is_kept(request.version(), request.headers()));
        let (service, peer) = (service.clone(), Arc::clone(&served));
        let app = AppState::clone(&service.app);
        async move {
            if !peer.key_waits().is_zero() && !needs_no_key(request.uri().path()) {
                Box::pin(hold_back(&peer, &app)).await?;
            }
            let (request, leftover) = lend(request);
            let Ok(mut response) = service.answer(request).await;
            if peer.take_guess() {
                app.wrong_keys.note(peer.address());
            }
            let goes_on = match leftover {
                Some(leftover) => Box::pin(leftover.drain()).await,
                None => true,
            };
            if !goes_on || peer.connection.is_to_end() {
                say_last(response.headers_mut());
            } else if let Some(keep) = keep {
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
                headers.insert(KEEP_ALIVE, keep);
            }
            Ok::<_, io::Error>(response.map(|body| TrackedBody { body, _under_way: under_way }))
        }
    });
    let mut http = http1::Builder::new()
        // Who has ended its side may still wait for an answer. Who is gone shows when it is sent, and what is waited
        // for has an end.
        .half_close(true)
        // The wire has limits of its own.
        .header_read_timeout(None)
        .max_header_size(LARGEST_HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(wire, service);
    {
        let mut talk = pin!(CURRENT.scope(peer, &mut http));
        let ended = tokio::select! {
            biased;
            ended = &mut talk => Some(ended),
            () = stopping.cancelled() => {
                // Not by hyper's graceful shutdown, which throws away what has arrived and was not read.
                connection.end();
                Some(talk.await)
            }
            () = connection.until_evicted() => timeout(EVICTED_WITHIN, talk).await.ok(),
        };
        if let Some(Err(error)) = ended {
            debug!(%error, "a connection ended badly");
        }
    }
    http.into_parts().io.end().await
}

/// Slows those who guess keys: before the key is looked at, since silence must not tell that it is wrong. They keep nobody
/// from a connection meanwhile.
///
/// # Errors
/// When the connection ends first: then the key is not looked at.
async fn hold_back(peer: &Peer, app: &AppState) -> io::Result<()> {
    let connection = &peer.connection;
    connection.wait(WaitsFor::ToRead);
    let turn = async {
        // Again and again: others of its address that waited beside it may have had their turn, and been wrong.
        loop {
            match peer.key_waits() {
                Duration::ZERO => return,
                delay => sleep(delay).await,
            }
        }
    };
    tokio::select! {
        _ = timeout(LONGEST_DELAY, turn) => {}
        () = connection.until_evicted() => return Err(io::ErrorKind::ConnectionAborted.into()),
        () = app.stopping.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
    }
    connection.wait(WaitsFor::No);
    Ok(())
}

/// What clients are told of how long an idle connection is kept: less than it is, so that they end it first.
fn keep_alive(idle: Duration) -> Option<HeaderValue> {
    let told = (idle - idle / 16).as_secs();
    (told > 0).then(|| HeaderValue::try_from(format!("timeout={told}")).ok()).flatten()
}

/// Whether something has arrived. The system is asked, since the runtime may not have heard of it yet.
fn has_unread(stream: &TcpStream) -> bool {
    ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0)
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
