//! Plain kernel sockets, for exchanges that no program offers: who closes first, and how.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::netns::Namespace;

/// A listener inside `namespace`, usable from the calling thread.
///
/// # Panics
/// When the address cannot be bound.
#[must_use]
pub fn listen(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("cannot listen on {at}: {error}"))
}

/// Ends a connection with a RST, whatever is queued.
///
/// # Panics
/// When the socket option is refused.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket lingers");
}
