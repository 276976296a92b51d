//! A host in WeChat's place that speaks raw TCP, and badly.
//!
//! The simulated WeChat stands behind it: a call takes effect there, as it does when a real answer is lost on its way.
//! What the caller gets to see of the answer is up to a script.

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

/// For 127.0.0.1, signed by itself, and with a key that everybody may know.
pub(crate) const CERTIFICATE: &str = include_str!("tls/cert.pem");
pub(crate) const KEY: &str = include_str!("tls/key.pem");

/// What must never be taken for the answer to another call.
pub(crate) const SMUGGLED: &str = "smuggled-token";

const BETWEEN_BYTES: Duration = Duration::from_millis(50);

/// A step of an answer. An answer that ends without [`Act::Close`], [`Act::Hold`] or [`Act::Reset`] leaves the
/// connection open for the next call.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// A byte at a time.
    Trickle(Vec<u8>),
    /// Over and over.
    Flood(Vec<u8>),
    /// Silence.
    Hold,
    Close,
    Reset,
}

/// One call, and the body that WeChat answered it by.
pub(crate) struct Call {
    pub(crate) request: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// What is made of an answer.
pub(crate) type Script = fn(&Call) -> Vec<Act>;

/// How the host treats whoever connects, before anything was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Resets connections at once.
    Resets,
    /// Accepts them and does nothing else.
    Silent,
    /// Says something before it is asked, as hosts of other protocols do.
    SpeaksFirst,
    /// Resets a connection when a second call comes in by it.
    OneCall,
    /// Answers a second call on the same connection by what is left over from the first.
    LeftOver,
}

/// Clones share the host.
#[derive(Clone)]
pub(crate) struct BadHost {
    pub(crate) address: SocketAddr,
    manners: Arc<Mutex<Manners>>,
}

struct Manners {
    door: Door,
    /// By appid.
    scripts: HashMap<String, Script>,
}

impl BadHost {
    /// A host that behaves, for now, as the WeChat behind it.
    pub(crate) async fn before(wechat: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manners = Manners { door: Door::Open, scripts: HashMap::new() };
        let address = listener.local_addr().unwrap();
        let host = Self { address, manners: Arc::new(Mutex::new(manners)) };
        let manners = Arc::clone(&host.manners);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let manners = Arc::clone(&manners);
                tokio::spawn(async move {
                    // Whoever ends it ends it.
                    let _ = receive(stream, wechat, &manners).await;
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
        self.manners.lock().unwrap().scripts.insert(appid.to_owned(), script);
    }

    /// Behaves towards `appid` again.
    pub(crate) fn behave(&self, appid: &str) {
        self.manners.lock().unwrap().scripts.remove(appid);
    }

    pub(crate) fn set_door(&self, door: Door) {
        self.manners.lock().unwrap().door = door;
    }
}

async fn receive(mut stream: TcpStream, wechat: SocketAddr, manners: &Mutex<Manners>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let door = manners.lock().unwrap().door;
    match door {
        Door::Open | Door::OneCall | Door::LeftOver => {}
        Door::Resets => return stream.set_zero_linger(),
        Door::Silent => return until_gone(&mut stream).await,
        Door::SpeaksFirst => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.7\r\n").await?;
            return until_gone(&mut stream).await;
        }
    }
    let mut calls = 0;
    loop {
        if door == Door::OneCall && calls == 1 {
            stream.peek(&mut [0]).await?;
            return stream.set_zero_linger();
        }
        let Some(request) = request(&mut stream).await? else { return Ok(()) };
        if door == Door::LeftOver && calls > 0 {
            let body = json!({ "access_token": SMUGGLED, "expires_in": 7200 }).to_string();
            stream.write_all(&answer("200 OK", body.as_bytes())).await?;
            continue;
        }
        calls += 1;
        let (status, body) = forward(wechat, &request).await?;
        let script = asker(&request).and_then(|appid| manners.lock().unwrap().scripts.get(&appid).copied());
        let acts = match script {
            Some(script) => script(&Call { request, body }),
            None => vec![Act::Send(answer(&status, &body))],
        };
        for act in acts {
            match act {
                Act::Send(bytes) => stream.write_all(&bytes).await?,
                Act::Trickle(bytes) => {
                    for byte in bytes {
                        stream.write_all(&[byte]).await?;
                        sleep(BETWEEN_BYTES).await;
                    }
                }
                Act::Flood(bytes) => loop {
                    stream.write_all(&bytes).await?;
                },
                Act::Hold => return until_gone(&mut stream).await,
                Act::Close => return Ok(()),
                Act::Reset => return stream.set_zero_linger(),
            }
        }
    }
}

async fn until_gone(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

/// A whole request; `None` at the end of the connection.
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

/// Has WeChat answer, on a connection of its own: status and body.
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
fn asker(request: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let (_, rest) = text.split_once("&appid=").or_else(|| text.split_once("\"appid\":\""))?;
    Some(rest.split(['&', '"', ' ']).next()?.to_owned())
}

/// A whole, right answer.
pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Speaks TLS in front of `wechat`, by [`CERTIFICATE`].
pub(crate) async fn tls_before(wechat: SocketAddr) -> SocketAddr {
    // Fails when another test was first.
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
                    // Whoever ends it ends it.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    address
}
