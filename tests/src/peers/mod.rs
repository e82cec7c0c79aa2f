//! Programs of the kernel's side: a web server, a byte pump, an echo request, plain sockets.

mod nginx;
mod ping;
mod socat;
pub mod sockets;

pub use nginx::{HTTP_PORT, Nginx};
pub use ping::{Pinged, ping};
pub use socat::Socat;
pub use sockets::{SocketState, accept, connect, count, exchange, listen, reset};
