//! A reserved port, which no other process can take while nothing listens on it.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that refuses connections until a program listens on it with `SO_REUSEADDR`, as all of
/// ours do. It is held by a socket that does not listen. While that socket lives, the kernel gives the port
/// to no process that asks for any free port, so a test that runs at the same time cannot take it.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _holds: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { address: socket.local_addr().unwrap(), _holds: socket }
    }
}
