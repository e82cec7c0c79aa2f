//! The host's own sockets and pollers (Linux): one system call a function.

use core::mem::MaybeUninit;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::os::fd::{BorrowedFd, OwnedFd};

use hoststack_transport::{Address, Algorithm, Endpoint, Keepalive, SocketOption, SocketOptions};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

use crate::host::{Interest, Readiness, Socket};

/// Events that one system call takes.
const EVENTS: usize = 64;

pub(crate) fn socket(like: &Address, options: &SocketOptions) -> Result<OwnedFd, Errno> {
    let family = match like {
        Address::KernelTcp(endpoint) if endpoint.addr.is_ipv4() => AddressFamily::INET,
        Address::KernelTcp(_) => AddressFamily::INET6,
        Address::KernelUnix(_) => AddressFamily::UNIX,
        Address::Tcp(_) | Address::Local(_) => return Err(Errno::AFNOSUPPORT),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if family != AddressFamily::UNIX {
        set_options(&fd, options);
    }
    Ok(fd)
}

/// What rustix has and what differs from the host's defaults: each is a system call. Not `SO_RCVBUF`: the receive window
/// here is a fifo's capacity, which is no reason to end the host's own tuning of its. Missing in rustix, and so ignored:
/// `TCP_MAXSEG`, `TCP_SYNCNT`, `SO_MAX_PACING_RATE`, Fast Open. One that the host refuses is ignored too: an option is no
/// reason not to connect.
fn set_options(fd: &OwnedFd, options: &SocketOptions) {
    let fd = rustix::fd::AsFd::as_fd(fd);
    let default = SocketOptions::DEFAULT;
    if options.nodelay {
        set_option(fd, SocketOption::NoDelay(true));
    }
    if options.cork {
        set_option(fd, SocketOption::Cork(true));
    }
    if options.quick_ack {
        set_option(fd, SocketOption::QuickAck(true));
    }
    if options.keepalive.is_some() {
        set_option(fd, SocketOption::Keepalive(options.keepalive));
    }
    if options.user_timeout_ms != 0 {
        set_option(fd, SocketOption::UserTimeout(options.user_timeout_ms));
    }
    if options.congestion != default.congestion {
        set_option(fd, SocketOption::Congestion(options.congestion));
    }
    if options.dscp != default.dscp {
        set_option(fd, SocketOption::Dscp(options.dscp));
    }
    if options.ttl != default.ttl {
        set_option(fd, SocketOption::Ttl(options.ttl));
    }
}

pub(crate) fn set_option(fd: BorrowedFd<'_>, option: SocketOption) {
    let seconds = |ms: u32| Duration::from_secs(u64::from(ms.div_ceil(1000).max(1)));
    let is_v6 = || sockopt::socket_domain(fd) == Ok(AddressFamily::INET6);
    // What fails is ignored, as what is not known.
    let _ = match option {
        SocketOption::NoDelay(on) => sockopt::set_tcp_nodelay(fd, on),
        SocketOption::Cork(on) => sockopt::set_tcp_cork(fd, on),
        SocketOption::QuickAck(on) => sockopt::set_tcp_quickack(fd, on),
        SocketOption::Keepalive(None) => sockopt::set_socket_keepalive(fd, false),
        SocketOption::Keepalive(Some(Keepalive { idle_ms, interval_ms, probes })) => {
            sockopt::set_tcp_keepidle(fd, seconds(idle_ms))
                .and_then(|()| sockopt::set_tcp_keepintvl(fd, seconds(interval_ms)))
                .and_then(|()| sockopt::set_tcp_keepcnt(fd, u32::from(probes.max(1))))
                .and_then(|()| sockopt::set_socket_keepalive(fd, true))
        }
        SocketOption::UserTimeout(ms) => sockopt::set_tcp_user_timeout(fd, ms),
        SocketOption::Congestion(algorithm) => sockopt::set_tcp_congestion(fd, host_name(algorithm)),
        SocketOption::Dscp(dscp) if is_v6() => sockopt::set_ipv6_tclass(fd, u32::from(dscp << 2)),
        SocketOption::Dscp(dscp) => sockopt::set_ip_tos(fd, dscp << 2),
        SocketOption::Ttl(ttl) if is_v6() => sockopt::set_ipv6_unicast_hops(fd, Some(ttl.max(1))),
        SocketOption::Ttl(ttl) => sockopt::set_ip_ttl(fd, u32::from(ttl.max(1))),
        // The engine's own, and what rustix or the host does not have.
        SocketOption::Linger(_)
        | SocketOption::MssMax(_)
        | SocketOption::PacingRateMax(_)
        | SocketOption::RecordEnd(_) => Ok(()),
    };
}

/// As Linux calls it.
const fn host_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Cubic => "cubic",
        Algorithm::NewReno => "reno",
        Algorithm::Bbr => "bbr",
    }
}

fn unix(path: &str) -> Result<SocketAddrUnix, Errno> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(path),
    }
}

fn ip(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr, endpoint.port)
}

/// Unspecified, if it has no IP endpoint.
fn endpoint(from: Option<SocketAddrAny>) -> Endpoint {
    let addr = from.and_then(|addr| SocketAddr::try_from(addr).ok());
    addr.map_or(Endpoint::UNSPECIFIED, Endpoint::from)
}

pub(crate) fn connect(fd: BorrowedFd<'_>, to: &Address) -> Result<(), Errno> {
    match to {
        Address::KernelUnix(path) => rustix::net::connect(fd, &unix(path)?),
        Address::KernelTcp(endpoint) => rustix::net::connect(fd, &ip(endpoint)),
        Address::Tcp(_) | Address::Local(_) => Err(Errno::AFNOSUPPORT),
    }
}

pub(crate) fn bind(fd: BorrowedFd<'_>, to: &Address, shared: bool) -> Result<(), Errno> {
    match to {
        Address::KernelUnix(path) => rustix::net::bind(fd, &unix(path)?),
        Address::KernelTcp(endpoint) => {
            // Connections in TIME-WAIT do not hold the port; one that listens does.
            sockopt::set_socket_reuseaddr(fd, true)?;
            if matches!(endpoint.addr, IpAddr::V6(_)) {
                // `[::]` is IPv6 only, whatever the host's default is: 0.0.0.0 is another address.
                sockopt::set_ipv6_v6only(fd, true)?;
            }
            if shared {
                sockopt::set_socket_reuseport(fd, true)?;
            }
            rustix::net::bind(fd, &ip(endpoint))
        }
        Address::Tcp(_) | Address::Local(_) => Err(Errno::AFNOSUPPORT),
    }
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: u32) -> Result<(), Errno> {
    rustix::net::listen(fd, i32::try_from(backlog).unwrap_or(i32::MAX))
}

pub(crate) fn accept(fd: BorrowedFd<'_>) -> Result<(Socket, Endpoint), Errno> {
    let (fd, peer) = rustix::net::acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((Socket::Fd(fd), endpoint(peer)))
}

pub(crate) fn try_clone(fd: BorrowedFd<'_>) -> Result<Socket, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0).map(Socket::Fd)
}

pub(crate) fn local(fd: BorrowedFd<'_>) -> Result<Endpoint, Errno> {
    rustix::net::getsockname(fd).map(|addr| endpoint(Some(addr)))
}

pub(crate) fn is_connected(fd: BorrowedFd<'_>) -> bool {
    rustix::net::getpeername(fd).is_ok()
}

pub(crate) fn take_error(fd: BorrowedFd<'_>) -> Option<Errno> {
    match sockopt::socket_error(fd) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error),
    }
}

pub(crate) fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    rustix::net::recv(fd, into, RecvFlags::empty()).map(|(count, _)| count)
}

pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)
}

pub(crate) fn finish(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::shutdown(fd, Shutdown::Write)
}

pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sockopt::set_socket_linger(fd, Some(Duration::ZERO))
}

pub(crate) fn poller() -> Result<OwnedFd, Errno> {
    epoll::create(epoll::CreateFlags::CLOEXEC)
}

const CONNECT: epoll::EventFlags = epoll::EventFlags::OUT.union(epoll::EventFlags::ONESHOT);

pub(crate) fn watch(
    epoll: &OwnedFd,
    fd: BorrowedFd<'_>,
    token: u64,
    interest: Interest,
) -> Result<(), Errno> {
    use epoll::EventFlags as Flags;
    let flags = match interest {
        Interest::Connect => CONNECT,
        Interest::Stream => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
        Interest::Accept => Flags::IN | Flags::EXCLUSIVE,
    };
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), flags)
}

pub(crate) fn watch_again(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
    epoll::modify(epoll, fd, epoll::EventData::new_u64(token), CONNECT)
}

pub(crate) fn forget(epoll: &OwnedFd, fd: BorrowedFd<'_>) {
    // One that is not watched is forgotten already.
    let _ = epoll::delete(epoll, fd);
}

pub(crate) fn poll(epoll: &OwnedFd, max: usize, ready: &mut Vec<Readiness>) {
    use epoll::EventFlags as Flags;
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut left = max;
    while left > 0 {
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let room = left.min(EVENTS);
        let events = match epoll::wait(epoll, &mut buffer[..room], Some(&NOW)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => continue,
            // Of a poller that is there, and a buffer that is, no other error is known.
            Err(_) => return,
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            Readiness {
                token: event.data.u64(),
                readable: flags.contains(Flags::IN),
                writable: flags.contains(Flags::OUT),
                peer_closed: flags.contains(Flags::RDHUP),
                hang_up: flags.contains(Flags::HUP),
                error: flags.contains(Flags::ERR),
            }
        }));
        if events.len() < room {
            return;
        }
        left -= room;
    }
}
