//! A gateway between the server under test and the sandbox, which answers business calls as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the gateway does with a business call.
pub(crate) enum Reply {
    /// Lets the sandbox answer.
    Sandbox,
    /// Sends these bytes, and awaits the next call.
    Bytes(Vec<u8>),
    /// Sends these bytes, and closes the connection.
    Cut(Vec<u8>),
    /// Never answers.
    Hang,
}

/// Clones share the script and what was received.
#[derive(Clone, Default)]
pub(crate) struct Gateway(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    replies: VecDeque<Reply>,
    /// The business calls as they came.
    calls: Vec<String>,
    /// How many connections with a business call have ended.
    ended: usize,
}

/// An answer with this body.
pub(crate) fn ok(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

impl Gateway {
    /// Says what the next business call is answered. Without a word the sandbox answers.
    pub(crate) fn then(&self, reply: Reply) {
        self.0.lock().unwrap().replies.push_back(reply);
    }

    /// The business calls as they came, since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    pub(crate) fn ended(&self) -> usize {
        self.0.lock().unwrap().ended
    }

    /// Listens before the sandbox at `behind`.
    pub(crate) async fn serve_before(&self, behind: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(gateway.clone().converse(stream, behind));
            }
        });
        address
    }

    async fn converse(self, mut client: TcpStream, behind: SocketAddr) {
        let mut had_business = false;
        while let Some(call) = read_message(&mut client).await {
            let text = String::from_utf8_lossy(&call).into_owned();
            let is_own = ["/cgi-bin/token?", "/cgi-bin/stable_token ", "/cgi-bin/get_api_domain_ip?"];
            let reply = if is_own.iter().any(|own| text.contains(own)) {
                Reply::Sandbox
            } else {
                had_business = true;
                let mut state = self.0.lock().unwrap();
                state.calls.push(text);
                state.replies.pop_front().unwrap_or(Reply::Sandbox)
            };
            match reply {
                Reply::Sandbox => {
                    let mut sandbox = TcpStream::connect(behind).await.unwrap();
                    sandbox.write_all(&call).await.unwrap();
                    match read_message(&mut sandbox).await {
                        Some(answer) => drop(client.write_all(&answer).await),
                        None => break,
                    }
                }
                Reply::Bytes(bytes) => drop(client.write_all(&bytes).await),
                Reply::Cut(bytes) => {
                    drop(client.write_all(&bytes).await);
                    break;
                }
                Reply::Hang => drop(client.read(&mut [0]).await),
            }
        }
        if had_business {
            self.0.lock().unwrap().ended += 1;
        }
    }
}

/// A whole call or answer, with its body; `None` at the connection's end.
async fn read_message(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut call = Vec::new();
    let head = loop {
        if let Some(end) = call.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut call).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&call[..head]).to_ascii_lowercase();
    let length = text
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let is_whole = |call: &[u8]| match text.contains("transfer-encoding: chunked") {
        true => call.ends_with(b"0\r\n\r\n"),
        false => call.len() >= head + length,
    };
    while !is_whole(&call) {
        if client.read_buf(&mut call).await.ok()? == 0 {
            return None;
        }
    }
    Some(call)
}
