//! Programs of the kernel's side: a web server, proxies, a byte pump, an echo request, plain sockets.

mod daemon;
mod nginx;
mod ping;
mod socat;
pub mod sockets;

pub use daemon::{Daemon, require};
pub use nginx::{HTTP_PORT, Nginx};
pub use ping::{Pinged, ping};
pub use socat::Socat;
pub use sockets::{SocketState, accept, connect, count, exchange, listen, reset};
