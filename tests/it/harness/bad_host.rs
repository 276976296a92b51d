//! A misbehaving host in WeChat's place, which speaks raw TCP.
//!
//! The sandbox is behind it: a call takes effect there, as it does when a real answer is lost on its way. A
//! script decides what the caller gets to see of the answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Self-signed, for 127.0.0.1, with a public key file.
pub(crate) const CERTIFICATE: &str = include_str!("tls/cert.pem");
pub(crate) const KEY: &str = include_str!("tls/key.pem");

/// A token that must never be taken for the answer to another call.
pub(crate) const SMUGGLED: &str = "smuggled-token";

const BETWEEN_BYTES: Duration = Duration::from_millis(50);

/// A step of an answer. An answer that does not end with [`Step::Close`], [`Step::Hold`] or [`Step::Reset`]
/// leaves the connection open for the next call.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Sends one byte at a time.
    Trickle(Vec<u8>),
    /// Sends the bytes repeatedly, without an end.
    Flood(Vec<u8>),
    /// Sends nothing more.
    Hold,
    Close,
    Reset,
}

/// One call, and the body of WeChat's answer to it.
pub(crate) struct Call {
    pub(crate) request: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Turns a call into the steps of its answer.
pub(crate) type Script = fn(&Call) -> Vec<Step>;

/// How the host treats new connections, before any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Open,
    /// Resets connections at once.
    Resets,
    /// Accepts connections and does nothing else.
    Silent,
    /// Sends something before any request, as hosts of other protocols do.
    SpeaksFirst,
    /// Resets a connection when a second call arrives on it.
    OneCall,
    /// Answers a second call on the same connection with data left over from the first.
    LeftOver,
}

/// A handle to the host. Clones share it.
#[derive(Clone)]
pub(crate) struct BadHost {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<HostState>>,
}

struct HostState {
    behaviour: Behaviour,
    /// By appid.
    scripts: HashMap<String, Script>,
}

impl BadHost {
    /// Starts a host that behaves, for now, like the WeChat behind it.
    pub(crate) async fn before(wechat: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = HostState { behaviour: Behaviour::Open, scripts: HashMap::new() };
        let address = listener.local_addr().unwrap();
        let host = Self { address, state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&host.state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    // Either side may end the connection.
                    let _ = receive(stream, wechat, &state).await;
                });
            }
        });
        host
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the token calls of `appid` by `script` from now on.
    pub(crate) fn misbehave(&self, appid: &str, script: Script) {
        self.state.lock().unwrap().scripts.insert(appid.to_owned(), script);
    }

    /// Answers the token calls of `appid` correctly again.
    pub(crate) fn behave(&self, appid: &str) {
        self.state.lock().unwrap().scripts.remove(appid);
    }

    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = behaviour;
    }
}

async fn receive(mut stream: TcpStream, wechat: SocketAddr, state: &Mutex<HostState>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let behaviour = state.lock().unwrap().behaviour;
    match behaviour {
        Behaviour::Open | Behaviour::OneCall | Behaviour::LeftOver => {}
        Behaviour::Resets => return stream.set_zero_linger(),
        Behaviour::Silent => return until_gone(&mut stream).await,
        Behaviour::SpeaksFirst => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.7\r\n").await?;
            return until_gone(&mut stream).await;
        }
    }
    let mut calls = 0;
    loop {
        if behaviour == Behaviour::OneCall && calls == 1 {
            stream.peek(&mut [0]).await?;
            return stream.set_zero_linger();
        }
        let Some(request) = request(&mut stream).await? else { return Ok(()) };
        if behaviour == Behaviour::LeftOver && calls > 0 {
            let body = json!({ "access_token": SMUGGLED, "expires_in": 7200 }).to_string();
            stream.write_all(&answer("200 OK", body.as_bytes())).await?;
            continue;
        }
        calls += 1;
        let (status, body) = forward(wechat, &request).await?;
        let script = appid_of(&request).and_then(|appid| state.lock().unwrap().scripts.get(&appid).copied());
        let steps = match script {
            Some(script) => script(&Call { request, body }),
            None => vec![Step::Send(answer(&status, &body))],
        };
        for step in steps {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes).await?,
                Step::Trickle(bytes) => {
                    for byte in bytes {
                        stream.write_all(&[byte]).await?;
                        sleep(BETWEEN_BYTES).await;
                    }
                }
                Step::Flood(bytes) => loop {
                    stream.write_all(&bytes).await?;
                },
                Step::Hold => return until_gone(&mut stream).await,
                Step::Close => return Ok(()),
                Step::Reset => return stream.set_zero_linger(),
            }
        }
    }
}

async fn until_gone(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

/// Reads a whole request; `None` at the end of the connection.
async fn request(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut whole = usize::MAX;
    while bytes.len() < whole {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            whole = head.len() + 4 + length.map_or(0, |length| length.parse().unwrap());
        }
    }
    Ok(Some(bytes))
}

/// Forwards a request to WeChat on a connection of its own, and returns status and body.
async fn forward(wechat: SocketAddr, request: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(wechat).await?;
    let first_line = request.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    stream.write_all(&request[..first_line]).await?;
    stream.write_all(b"connection: close\r\n").await?;
    stream.write_all(&request[first_line..]).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::ConnectionReset)?;
    let status = head.lines().next().unwrap_or_default().split_once(' ').unwrap_or_default().1;
    Ok((status.to_owned(), body.as_bytes().to_vec()))
}

/// The appid in a token call on either endpoint.
fn appid_of(request: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let (_, rest) = text.split_once("&appid=").or_else(|| text.split_once("\"appid\":\""))?;
    Some(rest.split(['&', '"', ' ']).next()?.to_owned())
}

/// A complete and correct answer.
pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Terminates TLS in front of `wechat` with [`CERTIFICATE`].
pub(crate) async fn tls_before(wechat: SocketAddr) -> SocketAddr {
    // Fails if another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                if let Ok(mut far) = TcpStream::connect(wechat).await {
                    // Either side may end the connection.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    address
}
