//! Serves the simulated WeChat on a socket.
//!
//! hyper speaks HTTP as long as all is well. To reset a connection, or to end it in the middle of an answer,
//! the handler says so over a side channel and never answers; the connection's task then takes the socket
//! back from hyper and does it by hand. A hanging call is simply never answered: it ends with its connection.

mod download;
mod echo;
mod socket;
#[cfg(test)]
mod tests;
mod upload;

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, extract};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket::Socket;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::ServiceExt;
use upload::{Pace, Upload};

use super::canned::{CannedAnswer, CannedBody};
use super::control;
use super::handle::Sandbox;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::wire::{Answer, Request, Wire};

/// Header with which a test sets the source address that whitelists see.
const SOURCE_IP: &str = "x-sandbox-source-ip";

/// Pause after a failed accept, so that running out of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connection that a request arrived on.
#[derive(Clone)]
struct Line {
    peer: IpAddr,
    ending: mpsc::Sender<Ending>,
}

/// An ending that HTTP cannot express.
enum Ending {
    Reset,
    AfterBytes(Vec<u8>),
}

impl Sandbox {
    /// Serves WeChat's API and the control API until `shutdown`, then cuts every connection.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.serve_over(listener, |stream| ready(Some(stream)), shutdown).await;
    }

    /// The same over TLS.
    #[cfg(feature = "tls")]
    pub async fn serve_tls(&self, listener: TcpListener, tls: &Tls, shutdown: impl Future<Output = ()>) {
        let acceptor = tls.acceptor();
        let open = move |stream| {
            let handshake = acceptor.accept(stream);
            async move { handshake.await.ok() }
        };
        self.serve_over(listener, open, shutdown).await;
    }

    /// Serves connections that `open` has opened; those for which it returns `None` are closed.
    async fn serve_over<S: Socket, Opening: Future<Output = Option<S>> + Send + 'static>(
        &self,
        listener: TcpListener,
        open: impl Fn(TcpStream) -> Opening,
        shutdown: impl Future<Output = ()>,
    ) {
        let router = control::router().fallback(wechat).with_state(self.clone());
        let mut shutdown = pin!(shutdown);
        // Dropped at the end, which cuts the connections, including hanging ones.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (opening, router) = (open(stream), router.clone());
                        connections.spawn(async move {
                            if let Some(stream) = opening.await {
                                connection(stream, peer.ip(), router).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the sandbox failed to accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(stream: impl Socket, peer: IpAddr, router: Router) {
    let (ending, mut endings) = mpsc::channel(1);
    let line = Line { peer, ending };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(line.clone());
        let mut answer = Box::pin(router.clone().oneshot(request.map(Body::new)));
        // Polled once here, since hyper drops the future when the client hangs up: a request that has arrived
        // is carried out.
        let begun = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        async move {
            match begun {
                Poll::Ready(answered) => answered,
                Poll::Pending => answer.await,
            }
        }
    });
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ending = tokio::select! {
        // An error here is a client that went away.
        _ = &mut http => return,
        Some(ending) = endings.recv() => ending,
    };
    let mut stream = http.into_parts().io.into_inner();
    let outcome = match ending {
        Ending::Reset => stream.tcp().set_zero_linger(),
        Ending::AfterBytes(bytes) => send(&mut stream, &bytes).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "the sandbox failed to end a connection as told");
    }
}

async fn send(stream: &mut impl Socket, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

/// Passes a request to the world and carries out its reaction.
async fn wechat(
    State(sandbox): State<Sandbox>,
    Extension(line): Extension<Line>,
    request: extract::Request,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let mut request = without_body(&head, line.peer);
    let canned = sandbox.with(|world, _| world.answer_set_for(&request).cloned());
    let Some(upload) = Upload::read(body, pace(canned.as_deref())).await else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    request.body.clone_from(&upload.kept);
    let (reaction, date, account) = sandbox.react(&request, upload.length);
    tokio::time::sleep(reaction.delay).await;
    let ending = match reaction.wire {
        Wire::Answer(answer) if needs_raw_write(&answer) => {
            Some(Ending::AfterBytes(raw_answer_bytes(&answer, answer.body.len(), &date)))
        }
        Wire::Answer(answer) => return Ok(response(answer, &date)),
        Wire::Canned(canned) => {
            let echo =
                (canned.body == CannedBody::Echo).then(|| echo::echo(&head, &upload, account.as_ref()));
            return Ok(download::response(&canned, echo, &date).await);
        }
        Wire::HalfAnswer { answer, sent } => Some(Ending::AfterBytes(raw_answer_bytes(&answer, sent, &date))),
        Wire::Reset | Wire::Refuse => Some(Ending::Reset),
        Wire::Hang => None,
    };
    if let Some(ending) = ending {
        // Fails only if the connection is already gone.
        let _ = line.ending.send(ending).await;
    }
    std::future::pending().await
}

/// How the body of a request is read whose answer is `canned`.
fn pace(canned: Option<&CannedAnswer>) -> Pace {
    canned.map_or_else(Pace::default, |canned| Pace {
        bytes_per_s: canned.upload_bytes_per_s,
        hashes: canned.body == CannedBody::Echo,
    })
}

/// The request as the world sees it, but for its body.
fn without_body(head: &Parts, source_ip: IpAddr) -> Request {
    let Query(query) = Query::try_from_uri(&head.uri).unwrap_or_default();
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let given = head.headers.get(SOURCE_IP).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query,
        content_length: length,
        body: Vec::new(),
        source_ip: given.unwrap_or(source_ip),
    }
}

fn response(answer: Answer, date: &str) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Ok(date) = HeaderValue::from_str(date) {
        response.headers_mut().insert(header::DATE, date);
    }
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Whether hyper would not send the answer as it is: it brings its own framing, or its status does not end a
/// call.
fn needs_raw_write(answer: &Answer) -> bool {
    let framing = ["Content-Length", "Transfer-Encoding", "Connection"];
    !(200..600).contains(&answer.status) || framing.iter().any(|name| answer.header(name).is_some())
}

/// Builds the head and the first `sent` bytes of the body, after which the connection ends.
fn raw_answer_bytes(answer: &Answer, sent: usize, date: &str) -> Vec<u8> {
    let length = answer.body.len();
    let mut head = format!("HTTP/1.1 {} OK\r\n", answer.status);
    let given = answer.headers.iter().map(|(name, value)| (&**name, value.to_string()));
    let mut headers: Vec<(&str, String)> = given.collect();
    let is_framed = answer.header("Content-Length").or_else(|| answer.header("Transfer-Encoding")).is_some();
    if answer.header("Date").is_none() {
        headers.push(("Date", date.to_owned()));
    }
    if !is_framed {
        headers.push(("Content-Length", length.to_string()));
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    [head.as_bytes(), b"\r\n", &answer.body[..sent.min(length)]].concat()
}
