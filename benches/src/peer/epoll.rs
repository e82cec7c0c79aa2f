//! `conn` by a bare epoll loop over the host's sockets: the peer of our transport over the same.
//!
//! One thread, one epoll, both ends, non-blocking, nothing between the loop and the system calls. A connection costs it
//! what it costs any such loop: `socket`, the options, `connect`, one `epoll_ctl`, a look at `SO_ERROR`, `close`; and
//! `accept4`, one `epoll_ctl`, a `read` that finds the end, `close`. The waiting is shared by all that are ready. Tables
//! are made once and grow to what is in flight; a connection allocates nothing.
//!
//! A connect that is up at once (Unix sockets) takes the same road: its event says so, in the next turn, so that the
//! first of those in flight is closed after the last was opened, as on our side.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, connect,
    getsockname, listen, recv, socket_with, sockopt,
};
use slab::Slab;

use crate::measure::Meter;
use crate::work::Work;

/// Loopback addresses that connects go to in turn, so that no tuple comes again while it is in TIME-WAIT.
pub(crate) const ADDRESSES: u32 = 256;
/// The listeners' backlog.
pub(crate) const BACKLOG: i32 = 4096;
/// Events that one wait takes.
const EVENTS: usize = 64;
/// How long nothing at all may happen.
const SILENCE: Duration = Duration::from_secs(10);
/// What an event is about: the kind above, the place in its table below.
const KIND: u64 = 1 << 32;
const LISTENER: u64 = 0;
const CLIENT: u64 = KIND;
const SERVER: u64 = 2 * KIND;

/// A connect is over.
const OVER: EventFlags = EventFlags::OUT.union(EventFlags::ERR).union(EventFlags::HUP);
/// There is something to read, an end or an error included.
const READABLE: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ERR).union(EventFlags::HUP);

/// The address that the `number`th connect goes to.
pub(crate) fn loopback(number: u32, port: u16) -> SocketAddr {
    // Cannot truncate because the remainder is below 256.
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, (number % ADDRESSES) as u8)), port)
}

/// Which sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpollSockets {
    /// TCP over the loopback interface.
    Tcp,
    /// Unix stream sockets.
    Unix,
}

/// The workload, set up; [`EpollPeer::run`] may be called any number of times.
pub struct EpollPeer {
    epoll: OwnedFd,
    listener: OwnedFd,
    to: To,
    in_flight_max: usize,
    clients: Slab<Client>,
    servers: Slab<OwnedFd>,
    /// Connects so far.
    number: u32,
}

enum To {
    Tcp { port: u16 },
    Unix(SocketAddrUnix),
}

struct Client {
    socket: OwnedFd,
    /// `connect` said that it is up: there is no error to ask for.
    is_up: bool,
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    to_open: u64,
    finished: u64,
    served: u64,
}

impl EpollPeer {
    /// Listens.
    ///
    /// # Errors
    /// The host's: no descriptors, say.
    pub fn new(sockets: EpollSockets, in_flight: usize) -> io::Result<Self> {
        let listener = new_socket(sockets)?;
        let to = match sockets {
            EpollSockets::Tcp => {
                sockopt::set_socket_reuseaddr(&listener, true)?;
                bind(&listener, &SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
                let at = SocketAddr::try_from(getsockname(&listener)?)?;
                To::Tcp { port: at.port() }
            }
            EpollSockets::Unix => {
                // Autobind: the host chooses a free abstract name.
                bind(&listener, &SocketAddrUnix::new_unnamed())?;
                To::Unix(SocketAddrUnix::try_from(getsockname(&listener)?)?)
            }
        };
        listen(&listener, BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), EventFlags::IN)?;
        let in_flight_max = in_flight.max(1);
        Ok(EpollPeer {
            epoll,
            listener,
            to,
            in_flight_max,
            clients: Slab::with_capacity(in_flight_max),
            servers: Slab::with_capacity(in_flight_max),
            number: 0,
        })
    }

    /// Opens and closes `connections`, or as many as `limit_seconds` allow; an operation is one of them, at both ends.
    ///
    /// # Panics
    /// When a connection failed, or nothing happened for ten seconds.
    pub fn run(&mut self, connections: u64, limit_seconds: f64) -> Work {
        let meter = Meter::start();
        let mut progress = Progress { to_open: connections, ..Progress::default() };
        self.run_until_closed(&mut progress, &meter, limit_seconds).expect("the host connects to itself");
        assert_eq!(progress.served, progress.finished, "both ends saw every connection");
        meter.work(progress.finished, 0)
    }

    fn run_until_closed(
        &mut self,
        progress: &mut Progress,
        meter: &Meter,
        limit_seconds: f64,
    ) -> io::Result<()> {
        let silence = Timespec::try_from(SILENCE).map_err(io::Error::other)?;
        if meter.wall_seconds() >= limit_seconds {
            progress.to_open = 0;
        }
        for _ in 0..self.in_flight_max {
            self.open(progress)?;
        }
        let mut turns = 0u32;
        while !self.clients.is_empty() || progress.served < progress.finished {
            turns += 1;
            if turns.is_multiple_of(256) && meter.wall_seconds() >= limit_seconds {
                progress.to_open = 0;
            }
            let mut buffer = [const { MaybeUninit::uninit() }; EVENTS];
            let events = match epoll::wait(&self.epoll, &mut buffer, Some(&silence)) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if events.is_empty() {
                return Err(io::Error::other("nothing happens any more"));
            }
            for event in events {
                let token = event.data.u64();
                let place = (token % KIND) as usize; // widens
                let flags = event.flags;
                match token - token % KIND {
                    CLIENT if flags.intersects(OVER) => self.on_connected(place, progress)?,
                    SERVER if flags.intersects(READABLE) => self.on_readable(place, progress)?,
                    LISTENER => self.on_acceptable()?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The next connect, if there is one to come.
    fn open(&mut self, progress: &mut Progress) -> io::Result<()> {
        if progress.to_open == 0 {
            return Ok(());
        }
        progress.to_open -= 1;
        let (socket, result) = match &self.to {
            To::Tcp { port } => {
                let socket = new_socket(EpollSockets::Tcp)?;
                let result = connect(&socket, &loopback(self.number, *port));
                (socket, result)
            }
            To::Unix(name) => {
                let socket = new_socket(EpollSockets::Unix)?;
                let result = connect(&socket, name);
                (socket, result)
            }
        };
        self.number = self.number.wrapping_add(1);
        let is_up = match result {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(error) => return Err(error.into()),
        };
        let entry = self.clients.vacant_entry();
        watch(&self.epoll, &socket, CLIENT | entry.key() as u64)?; // widens
        entry.insert(Client { socket, is_up });
        Ok(())
    }

    /// A connect is over: the connection is closed, and another one opened.
    fn on_connected(&mut self, place: usize, progress: &mut Progress) -> io::Result<()> {
        let Client { socket, is_up } = self.clients.remove(place);
        if !is_up {
            sockopt::socket_error(&socket)??;
        }
        drop(socket);
        progress.finished += 1;
        self.open(progress)
    }

    fn on_acceptable(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match acceptfrom_with(&self.listener, flags) {
                Ok((socket, _)) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let entry = self.servers.vacant_entry();
            watch(&self.epoll, &socket, SERVER | entry.key() as u64)?; // widens
            entry.insert(socket);
        }
    }

    /// The client has closed: so does the server. Before that there is nothing to read.
    fn on_readable(&mut self, place: usize, progress: &mut Progress) -> io::Result<()> {
        let Some(socket) = self.servers.get(place) else { return Ok(()) };
        match recv(socket, &mut [0u8; 64], RecvFlags::empty()) {
            Ok((0, _)) => {
                drop(self.servers.remove(place));
                progress.served += 1;
                Ok(())
            }
            Ok(_) => Err(io::Error::other("nobody wrote what was read")),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn new_socket(sockets: EpollSockets) -> io::Result<OwnedFd> {
    let family = match sockets {
        EpollSockets::Tcp => AddressFamily::INET,
        EpollSockets::Unix => AddressFamily::UNIX,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if sockets == EpollSockets::Tcp {
        sockopt::set_tcp_nodelay(&socket, true)?;
    }
    Ok(socket)
}

/// Edge-triggered, once for all that a connection can have to say.
fn watch(epoll: &OwnedFd, socket: impl AsFd, token: u64) -> io::Result<()> {
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    Ok(epoll::add(epoll, socket, epoll::EventData::new_u64(token), flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_asked_for_is_opened_and_closed_and_again_in_a_second_run() {
        for sockets in [EpollSockets::Tcp, EpollSockets::Unix] {
            let mut peer = EpollPeer::new(sockets, 7).unwrap();
            assert_eq!(peer.run(100, 60.0).operations, 100);
            assert_eq!(peer.run(3, 60.0).operations, 3);
            assert!(peer.clients.is_empty() && peer.servers.is_empty(), "{sockets:?}");
        }
    }

    #[test]
    fn no_time_at_all_opens_nothing_and_ends() {
        let mut peer = EpollPeer::new(EpollSockets::Tcp, 64).unwrap();
        assert_eq!(peer.run(1_000_000, 0.0).operations, 0);
    }
}
