//! The byte stream to and from a Redis.

use std::io::{self, Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::certificates::Certificates;

/// A limit on all that answers one batch of commands; the client would buffer any amount. No real answer is
/// as long.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// A connection, with TLS or without.
pub(crate) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for S {}

/// Whether the connection uses TLS.
pub(crate) fn is_tls(to: &ConnectionAddr) -> bool {
    matches!(to, ConnectionAddr::TcpTls { .. })
}

/// Connects to the address in the URL; a host with TLS is verified with `certificates`.
pub(crate) async fn connect(
    to: &ConnectionAddr,
    certificates: Certificates,
) -> io::Result<Box<dyn RedisStream>> {
    let (host, port, with_tls) = match to {
        ConnectionAddr::Tcp(host, port) => (host, *port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
        _ => return Err(Error::new(ErrorKind::Unsupported, "it is neither redis:// nor rediss://")),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    if !with_tls {
        return Ok(Box::new(stream));
    }
    // Fails when the program has already installed a provider, which is used then.
    let _ = ring::default_provider().install_default();
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates);
    let trusted = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    let name = ServerName::try_from(host.clone()).map_err(Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(trusted)).connect(name, stream).await?))
}

/// Fails when more than [`LONGEST_ANSWER`] arrives without anything being sent meanwhile.
pub(crate) struct BoundedReader<S> {
    stream: S,
    left: usize,
}

impl<S> BoundedReader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, left: LONGEST_ANSWER }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        match self.left.checked_sub(into.filled().len() - before) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(Error::other("an answer is longer than 1 MiB"))),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedReader<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.left = LONGEST_ANSWER;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
