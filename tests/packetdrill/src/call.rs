//! A call on its way from one of packetdrill's threads to the thread that owns the stack, and its answer.
//!
//! Calls carry values, never the caller's memory: the border ([`crate::ffi`]) copies in and out.

use std::net::SocketAddr;

/// What packetdrill asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `socket(domain, type, protocol)`.
    Socket(i32, i32, i32),
    /// `bind`.
    Bind(i32, SocketAddr),
    /// `listen(fd, backlog)`.
    Listen(i32, i32),
    /// `accept`; answered with [`Out::Address`].
    Accept(i32),
    /// `connect`; `None`: AF_UNSPEC, which dissolves the association.
    Connect(i32, Option<SocketAddr>),
    /// All calls that receive; answered with [`Out::Bytes`].
    Read {
        /// From where.
        fd: i32,
        /// At most this many bytes.
        len: usize,
        /// `MSG_*`.
        flags: i32,
    },
    /// All calls that send.
    Write {
        /// Where to.
        fd: i32,
        /// What.
        data: Vec<u8>,
        /// `MSG_*`.
        flags: i32,
        /// How many bytes were taken already, while the call waits for room; 0 at first.
        done: usize,
        /// Where to, for those calls that say it.
        to: Destination,
    },
    /// `fcntl(fd, command, argument)`.
    Fcntl(i32, i32, i32),
    /// `ioctl(fd, request)` with a pointer to an int, answered with [`Out::Int`].
    Ioctl(i32, u64, i32),
    /// `close`.
    Close(i32),
    /// `shutdown(fd, how)`.
    Shutdown(i32, i32),
    /// `getsockopt(fd, level, name)` with room for this many bytes; answered with [`Out::Bytes`].
    GetOption(i32, i32, i32, usize),
    /// `setsockopt(fd, level, name, value)`.
    SetOption(i32, i32, i32, Vec<u8>),
    /// `poll` of descriptors with their events, timeout in ms; answered with [`Out::Revents`].
    Poll(Vec<(i32, i16)>, i32),
    /// `epoll_create`.
    EpollCreate,
    /// `epoll_ctl(epfd, op, fd, events, data)`.
    EpollCtl(i32, i32, i32, u32, u64),
    /// `epoll_wait(epfd, max, timeout ms)`; answered with [`Out::Events`].
    EpollWait(i32, usize, i32),
    /// `pipe`; answered with [`Out::Pair`].
    Pipe,
    /// `splice(from, to, len, flags)`.
    Splice(i32, i32, usize, u32),
    /// Shell commands; answered with the status, and what they print as [`Out::Text`].
    System(String),
    /// Runs the clock until a call that waits is answered, at most this many microseconds.
    Await(u64),
    /// A packet for the stack.
    NetSend(Vec<u8>),
    /// The next packet that the stack sent; answered with [`Out::Packet`], whose packet is empty when none comes.
    NetReceive,
    /// `usleep`, in microseconds.
    Sleep(u64),
    /// `gettimeofday`; answered with [`Out::Time`].
    Clock,
    /// The end: what is still held is given back; answered with -1 and [`Out::Text`] when something is left over.
    Free,
}

/// The address that `sendto` and `sendmsg` may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// None.
    #[default]
    None,
    /// One of AF_UNSPEC.
    Unspecified,
    /// This one.
    Address(SocketAddr),
}

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Of `cmsg_level`.
    pub level: i32,
    /// Of `cmsg_type`.
    pub kind: i32,
    /// What follows the header.
    pub data: Vec<u8>,
}

/// What comes back besides the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Out {
    /// Nothing.
    #[default]
    None,
    /// Bytes read, or an option's value.
    Bytes(Vec<u8>),
    /// Bytes read, control messages, `msg_flags`.
    Message(Vec<u8>, Vec<Control>, i32),
    /// The peer of an accepted connection.
    Address(SocketAddr),
    /// `revents`, one for each that was asked for.
    Revents(Vec<i16>),
    /// Events and data of `epoll_wait`.
    Events(Vec<(u32, u64)>),
    /// A number that is stored through a pointer.
    Int(i32),
    /// Two descriptors.
    Pair([i32; 2]),
    /// Microseconds.
    Time(u64),
    /// A packet, and when it was sent in microseconds.
    Packet(Vec<u8>, u64),
    /// Why the run is worthless.
    Text(String),
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the call returns; -1 with an errno.
    pub result: i64,
    /// `errno` of a call that failed; 0 of one that did not.
    pub errno: i32,
    /// What it stores.
    pub out: Out,
    /// The microsecond at which a call that had to wait was done.
    pub woken_at_us: Option<u64>,
}

impl Answer {
    /// A number.
    pub fn number(result: i64) -> Answer {
        Answer { result, ..Answer::default() }
    }

    /// A number, and something to store.
    pub fn with(result: i64, out: Out) -> Answer {
        Answer { result, out, ..Answer::default() }
    }

    /// A failure.
    pub fn error(errno: i32) -> Answer {
        Answer { result: -1, errno, ..Answer::default() }
    }
}
