//! A port that is nobody else's, before anybody listens there and after.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 at which connections are refused until a program listens there that sets `SO_REUSEADDR`, as all
/// of ours do. Held by a socket that does not listen: while it lives, the kernel gives the port to nobody who asks for
/// any, and a test that runs beside this one cannot come to stand there.
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
