//! What the transport needs of the host: sockets and a way to wait for them.
//!
//! The host's own are [`Socket::Fd`] and [`Poller::Epoll`]. A test puts a model in their place, or one that passes calls on
//! and meddles with them: a connect that completes at once or later, a short write, an event that means nothing.

use core::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use hoststack_transport::{Address, Endpoint, SocketOption, SocketOptions};
pub use rustix::io::Errno;

use crate::native;

/// Where sockets come from. One value serves all threads of a stack.
pub trait Host: fmt::Debug + Send + Sync {
    /// A non-blocking stream socket for addresses like this one. `socket` is what of the options the host can do (no Nagle
    /// algorithm, keep-alive, user timeout, buffer sizes, TTL, DSCP, maximum segment size, congestion control).
    ///
    /// # Errors
    /// The host's.
    fn socket(&self, like: &Address, options: &SocketOptions) -> Result<Socket, Errno>;

    /// A poller, for one thread.
    ///
    /// # Errors
    /// The host's.
    fn poller(&self) -> Result<Poller, Errno>;
}

/// The host's own sockets: those of its kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Host for Native {
    fn socket(&self, like: &Address, options: &SocketOptions) -> Result<Socket, Errno> {
        native::socket(like, options).map(Socket::Fd)
    }

    fn poller(&self) -> Result<Poller, Errno> {
        native::poller().map(Poller::Epoll)
    }
}

/// A non-blocking stream socket. Dropping it closes it.
#[derive(Debug)]
pub enum Socket {
    /// One of the host.
    Fd(OwnedFd),
    /// A test's.
    Model(Box<dyn ModelSocket>),
}

/// Calls one or the other: the model's method and the function in [`native`] have the same name.
macro_rules! dispatch {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Socket {
            $($(#[$doc])*
            pub fn $name(&self, $($arg: $type),*) -> $result {
                match self {
                    Socket::Fd(fd) => native::$name(fd.as_fd(), $($arg),*),
                    Socket::Model(model) => model.$name($($arg),*),
                }
            })*
        }
    };
}

dispatch! {
    /// [`ModelSocket::connect`].
    ///
    /// # Errors
    /// The host's.
    fn connect(to: &Address) -> Result<(), Errno>;
    /// [`ModelSocket::bind`].
    ///
    /// # Errors
    /// The host's.
    fn bind(to: &Address, shared: bool) -> Result<(), Errno>;
    /// [`ModelSocket::listen`].
    ///
    /// # Errors
    /// The host's.
    fn listen(backlog: u32) -> Result<(), Errno>;
    /// [`ModelSocket::accept`].
    ///
    /// # Errors
    /// The host's.
    fn accept() -> Result<(Socket, Endpoint), Errno>;
    /// [`ModelSocket::try_clone`].
    ///
    /// # Errors
    /// The host's.
    fn try_clone() -> Result<Socket, Errno>;
    /// [`ModelSocket::local`].
    ///
    /// # Errors
    /// The host's.
    fn local() -> Result<Endpoint, Errno>;
    /// [`ModelSocket::is_connected`].
    fn is_connected() -> bool;
    /// [`ModelSocket::take_error`].
    fn take_error() -> Option<Errno>;
    /// [`ModelSocket::read`].
    ///
    /// # Errors
    /// The host's.
    fn read(into: &mut [u8]) -> Result<usize, Errno>;
    /// [`ModelSocket::write`].
    ///
    /// # Errors
    /// The host's.
    fn write(bytes: &[u8]) -> Result<usize, Errno>;
    /// [`ModelSocket::finish`].
    ///
    /// # Errors
    /// The host's.
    fn finish() -> Result<(), Errno>;
    /// [`ModelSocket::reset_on_close`].
    ///
    /// # Errors
    /// The host's.
    fn reset_on_close() -> Result<(), Errno>;
    /// [`ModelSocket::set_option`].
    fn set_option(option: SocketOption) -> ();
}

impl Socket {
    /// What the host polls; none of a model that is not one of the host's in disguise.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Fd(fd) => Some(fd.as_fd()),
            Socket::Model(model) => model.as_fd(),
        }
    }
}

/// What a test puts in the place of a socket. The errors are those of the system call.
pub trait ModelSocket: fmt::Debug + Send {
    /// `connect`: `Ok` = it is up, `INPROGRESS` = later, `ALREADY` = still under way.
    ///
    /// # Errors
    /// The host's.
    fn connect(&self, to: &Address) -> Result<(), Errno>;
    /// `bind`; to an IP endpoint with port 0: any port. A listener's TCP sockets share the port (`SO_REUSEPORT`) if `shared`.
    ///
    /// # Errors
    /// The host's.
    fn bind(&self, to: &Address, shared: bool) -> Result<(), Errno>;
    /// `listen`.
    ///
    /// # Errors
    /// The host's.
    fn listen(&self, backlog: u32) -> Result<(), Errno>;
    /// `accept`, the new one non-blocking; with the peer's endpoint, unspecified for a Unix socket.
    ///
    /// # Errors
    /// The host's.
    fn accept(&self) -> Result<(Socket, Endpoint), Errno>;
    /// A second handle of the same socket (`dup`).
    ///
    /// # Errors
    /// The host's.
    fn try_clone(&self) -> Result<Socket, Errno>;
    /// `getsockname`; unspecified for a Unix socket.
    ///
    /// # Errors
    /// The host's.
    fn local(&self) -> Result<Endpoint, Errno>;
    /// Whether `getpeername` knows a peer.
    fn is_connected(&self) -> bool;
    /// `SO_ERROR`: taken, so that it is told once.
    fn take_error(&self) -> Option<Errno>;
    /// `recv`; 0 = the peer has closed its direction.
    ///
    /// # Errors
    /// The host's.
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno>;
    /// `send` without a signal.
    ///
    /// # Errors
    /// The host's.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno>;
    /// `shutdown` of our direction.
    ///
    /// # Errors
    /// The host's.
    fn finish(&self) -> Result<(), Errno>;
    /// Has the close reset the connection (`SO_LINGER` of zero).
    ///
    /// # Errors
    /// The host's.
    fn reset_on_close(&self) -> Result<(), Errno>;
    /// Changes what the host can change of the options while the connection is up.
    fn set_option(&self, option: SocketOption);
    /// Of one that passes calls on: the socket that the host polls.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// For what a socket is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// A connect: told once that it is over (or that something is odd), then not watched until armed again.
    Connect,
    /// A connection: told what it is when it is added, then whenever it becomes readable or writable or ends
    /// (edge-triggered).
    Stream,
    /// A listener: told as long as connections wait; of several pollers that watch it one is woken.
    Accept,
}

/// What a poller tells of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Readiness {
    /// What the socket was added with.
    pub token: u64,
    /// Something can be read, the end included.
    pub readable: bool,
    /// Something can be written.
    pub writable: bool,
    /// The peer closed its direction (`EPOLLRDHUP`).
    pub peer_closed: bool,
    /// Both directions are closed (`EPOLLHUP`).
    pub hang_up: bool,
    /// An error waits (`EPOLLERR`).
    pub error: bool,
}

/// Waits for sockets.
#[derive(Debug)]
pub enum Poller {
    /// The host's.
    Epoll(OwnedFd),
    /// A test's.
    Model(Box<dyn ModelPoller>),
}

impl Poller {
    /// Watches `socket`, and tells of it by `token`. Closing the socket ends that, but not if there is a clone of it.
    ///
    /// # Errors
    /// The host's.
    pub fn add(&self, socket: &Socket, token: u64, interest: Interest) -> Result<(), Errno> {
        match self {
            Poller::Epoll(epoll) => native::watch(epoll, socket.as_fd().ok_or(Errno::BADF)?, token, interest),
            Poller::Model(model) => model.add(socket, token, interest),
        }
    }

    /// Watches one again that was added with [`Interest::Connect`].
    ///
    /// # Errors
    /// The host's.
    pub fn again(&self, socket: &Socket, token: u64) -> Result<(), Errno> {
        match self {
            Poller::Epoll(epoll) => native::watch_again(epoll, socket.as_fd().ok_or(Errno::BADF)?, token),
            Poller::Model(model) => model.again(socket, token),
        }
    }

    /// Watches it no longer.
    pub fn remove(&self, socket: &Socket, token: u64) {
        match self {
            Poller::Epoll(epoll) => {
                if let Some(fd) = socket.as_fd() {
                    native::forget(epoll, fd);
                }
            }
            Poller::Model(model) => model.remove(socket, token),
        }
    }

    /// Appends what is ready now, at most `max`; never waits. Of the host it is not asked, for that is a system call in
    /// every step, if nothing `is_watched`; a model may have something to say of what is gone.
    pub fn poll(&self, is_watched: bool, max: usize, ready: &mut Vec<Readiness>) {
        match self {
            Poller::Epoll(_) if !is_watched => {}
            Poller::Epoll(epoll) => native::poll(epoll, max, ready),
            Poller::Model(model) => model.poll(max, ready),
        }
    }

    /// What the thread sleeps on: it is readable while something is ready.
    pub fn wait_fd(&self) -> Option<RawFd> {
        match self {
            Poller::Epoll(epoll) => Some(epoll.as_raw_fd()),
            Poller::Model(model) => model.wait_fd(),
        }
    }
}

/// What a test puts in the place of a poller.
pub trait ModelPoller: fmt::Debug + Send {
    /// Watches `socket`; closing the socket ends that.
    ///
    /// # Errors
    /// The host's.
    fn add(&self, socket: &Socket, token: u64, interest: Interest) -> Result<(), Errno>;
    /// Watches one again that was added with [`Interest::Connect`].
    ///
    /// # Errors
    /// The host's.
    fn again(&self, socket: &Socket, token: u64) -> Result<(), Errno>;
    /// Watches it no longer: a listener that is paused (it is added again) or given up, a connection that goes to another
    /// poller.
    fn remove(&self, socket: &Socket, token: u64) {
        let _ = (socket, token);
    }
    /// Appends what is ready now, at most `max`; never waits.
    fn poll(&self, max: usize, ready: &mut Vec<Readiness>);
    /// What the thread sleeps on.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}
