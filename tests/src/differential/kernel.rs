//! The kernel's end of a connection: a socket that never blocks, looked at in turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
    set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay, socket_error,
};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, listen, send, socket_with,
};

use super::actor::{Actor, Carrier, Got};
use super::plan::Side;

enum Stage {
    Listening(TcpListener),
    Connecting(OwnedFd),
    Open(TcpStream),
    Over,
}

/// The kernel's end of one connection.
pub struct KernelEnd {
    side: Side,
    stage: Stage,
    /// What it does.
    pub actor: Actor,
}

impl KernelEnd {
    /// One that listens on `at`. Call it inside the namespace.
    ///
    /// # Errors
    /// A sentence.
    pub fn listening(at: SocketAddr, side: &Side, actor: Actor) -> Result<KernelEnd, String> {
        let made = socket(at, side).and_then(|socket| {
            bind(&socket, &at)?;
            listen(&socket, 8)?;
            Ok(socket)
        });
        let listener = made.map(TcpListener::from).map_err(|error| format!("listen on {at}: {error}"))?;
        Ok(KernelEnd { side: side.clone(), stage: Stage::Listening(listener), actor })
    }

    /// One that connects to `to`. Call it inside the namespace.
    ///
    /// # Errors
    /// A sentence.
    pub fn connecting(to: SocketAddr, side: &Side, actor: Actor) -> Result<KernelEnd, String> {
        let made = socket(to, side).and_then(|socket| match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        });
        let socket = made.map_err(|error| format!("connect to {to}: {error}"))?;
        Ok(KernelEnd { side: side.clone(), stage: Stage::Connecting(socket), actor })
    }

    /// Does what can be done now; whether anything was.
    pub fn act(&mut self, now_us: u64) -> bool {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Listening(listener) => self.accept(listener),
            Stage::Connecting(socket) => self.connected(socket),
            Stage::Open(stream) => {
                let before = self.actor.counts();
                let mut carrier = Socket(Some(stream));
                let _ = self.actor.act(now_us, &mut carrier);
                if self.actor.ended().is_none()
                    && let Some(stream) = carrier.0
                {
                    self.stage = Stage::Open(stream);
                }
                self.actor.counts() != before || self.actor.ended().is_some()
            }
            Stage::Over => false,
        }
    }

    /// Whether it still waits for a connection to accept.
    #[must_use]
    pub fn is_unaccepted(&self) -> bool {
        matches!(self.stage, Stage::Listening(_))
    }

    /// Gives up on a peer that is gone.
    pub fn orphan(&mut self) {
        let stream = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Open(stream) => Some(stream),
            Stage::Listening(_) => return self.actor.broke("reset before it was accepted".to_owned()),
            Stage::Connecting(_) | Stage::Over => None,
        };
        self.actor.orphan(&mut Socket(stream));
    }

    fn accept(&mut self, listener: TcpListener) -> bool {
        match listener.accept() {
            Ok((stream, _)) => self.open(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.stage = Stage::Listening(listener);
                false
            }
            // The peer reset it before it was accepted.
            Err(error) => {
                self.actor.broke(format!("accept: {}", error.kind()));
                true
            }
        }
    }

    fn connected(&mut self, socket: OwnedFd) -> bool {
        let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
        let is_done = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        if !is_done {
            self.stage = Stage::Connecting(socket);
            return false;
        }
        match socket_error(&socket) {
            Ok(Ok(())) => self.open(TcpStream::from(socket)),
            Ok(Err(error)) | Err(error) => {
                self.actor.broke(format!("connect: {}", std::io::Error::from(error).kind()));
                true
            }
        }
    }

    fn open(&mut self, stream: TcpStream) -> bool {
        let set = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(self.side.nodelay));
        match set {
            Ok(()) => self.stage = Stage::Open(stream),
            Err(error) => self.actor.broke(format!("socket options: {error}")),
        }
        true
    }
}

/// A socket with the options of a side.
fn socket(at: SocketAddr, side: &Side) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if let Some(bytes) = side.rx_buffer {
        set_socket_recv_buffer_size(&socket, bytes as usize)?;
    }
    if let Some(bytes) = side.tx_buffer {
        set_socket_send_buffer_size(&socket, bytes as usize)?;
    }
    set_tcp_nodelay(&socket, side.nodelay)?;
    // A reset may be lost: whoever waits for more asks now and then.
    set_socket_keepalive(&socket, true)?;
    set_tcp_keepidle(&socket, Duration::from_secs(1))?;
    set_tcp_keepintvl(&socket, Duration::from_secs(1))?;
    set_tcp_keepcnt(&socket, 100)?;
    Ok(socket)
}

/// A socket as an actor sees it. Dropping it closes it.
struct Socket(Option<TcpStream>);

/// Nothing, or how it broke.
fn broken(error: &std::io::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => None,
        kind => Some(kind.to_string()),
    }
}

impl Carrier for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let Some(stream) = &mut self.0 else { return Err("closed".to_owned()) };
        stream.write(bytes).or_else(|error| broken(&error).map_or(Ok(0), Err))
    }

    fn write_urgent(&mut self, byte: u8) -> Result<bool, String> {
        let Some(stream) = &self.0 else { return Err("closed".to_owned()) };
        let sent = send(stream, &[byte], SendFlags::OOB | SendFlags::NOSIGNAL).map_err(std::io::Error::from);
        sent.map(|count| count > 0).or_else(|error| broken(&error).map_or(Ok(false), Err))
    }

    fn read(&mut self, into: &mut [u8]) -> Got {
        let Some(stream) = &mut self.0 else { return Got::Broken("closed".to_owned()) };
        match stream.read(into) {
            Ok(0) => Got::End,
            Ok(count) => Got::Bytes(count),
            Err(error) => broken(&error).map_or(Got::Nothing, Got::Broken),
        }
    }

    fn half_close(&mut self) {
        // A connection that broke meanwhile says so at the next read.
        let _ = self.0.as_ref().map(|stream| stream.shutdown(std::net::Shutdown::Write));
    }

    fn close(&mut self) {
        self.0 = None;
    }

    fn reset(&mut self) {
        if let Some(stream) = self.0.take() {
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}
