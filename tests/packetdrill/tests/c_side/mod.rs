//! packetdrill's side of the table: C calls with pointers, raw IP packets, and the notation to compare them with.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::ffi::{CString, c_int, c_void};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use hoststack_packetdrill::device::verify;
use hoststack_packetdrill::ffi::{Table, packetdrill_interface_init};
use hoststack_wire::{Flags, IpProtocol, Segment, SegmentHeader, SeqNum, ipv4, ipv6, parse_notation, tcp};
use libc::{pollfd, sockaddr_in, sockaddr_in6, socklen_t, timeval};

/// Where the peer's sequence numbers begin.
const PEER_ISN: SeqNum = SeqNum(0xffff_f000);
pub const LISTEN_PORT: u16 = 8080;
pub const PEER_PORT: u16 = 40_000;
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const LOCAL6: Ipv6Addr = Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1);
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A script that runs: the table, and what is known of its one connection.
pub struct Script {
    pub table: Table,
    pub is_v6: bool,
    our_port: u16,
    peer_port: u16,
    our_isn: SeqNum,
}

/// What a call returned, with errno when that is -1.
pub type Returned = Result<i64, i32>;

pub fn returned(result: impl Into<i64>) -> Returned {
    match result.into() {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().expect("errno is set")),
        result => Ok(result),
    }
}

fn load(flags: &str) -> Table {
    let flags = CString::new(flags).expect("no zero byte");
    let mut table = MaybeUninit::<Table>::zeroed();
    // SAFETY: a C string, and room for a table, which is filled when the call returns.
    unsafe {
        packetdrill_interface_init(flags.as_ptr(), table.as_mut_ptr());
        table.assume_init()
    }
}

impl Script {
    /// With a window that needs no scaling.
    pub fn new() -> Script {
        Script::with("rcvbuf=65535")
    }

    pub fn with(flags: &str) -> Script {
        Script {
            table: load(flags),
            is_v6: false,
            our_port: LISTEN_PORT,
            peer_port: PEER_PORT,
            our_isn: SeqNum(0),
        }
    }

    pub fn v6() -> Script {
        Script { is_v6: true, ..Script::new() }
    }

    /// The peer's next connection comes from another port.
    pub fn next_peer(&mut self) {
        self.peer_port += 1;
    }

    /// The end of a script that passed: nothing is left over, or the process ends.
    pub fn end(self) {
        // SAFETY: the last call with this userdata.
        unsafe { (self.table.free)(self.table.userdata) };
    }

    // ---- Packets ----

    fn addrs(&self) -> (IpAddr, IpAddr) {
        if self.is_v6 { (LOCAL6.into(), REMOTE6.into()) } else { (LOCAL.into(), REMOTE.into()) }
    }

    /// A packet from the peer, in packetdrill's notation; payload is zeros.
    pub fn gets(&self, text: &str) {
        let noted = parse_notation(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let header = noted.to_header(self.peer_port, self.our_port, PEER_ISN, self.our_isn, 65_535);
        let packet = self.packet(&header, noted.payload_len() as usize);
        self.send_raw(&packet);
    }

    pub fn send_raw(&self, packet: &[u8]) {
        // SAFETY: a packet and its length.
        let sent = unsafe { (self.table.netdev_send)(self.table.userdata, packet.as_ptr(), packet.len()) };
        assert_eq!(sent, 0);
    }

    fn packet(&self, header: &SegmentHeader, payload: usize) -> Vec<u8> {
        let mut segment = vec![0; header.header_len() + payload];
        header.emit(&mut segment);
        let (local, remote) = self.addrs();
        tcp::set_checksum(remote, local, &mut segment);
        let mut packet = vec![0; if self.is_v6 { 40 } else { 20 }];
        if self.is_v6 {
            ipv6::Header::new(REMOTE6, LOCAL6, IpProtocol::TCP, segment.len()).emit(&mut packet);
        } else {
            ipv4::Header::new(REMOTE, LOCAL, IpProtocol::TCP, segment.len()).emit(&mut packet);
        }
        packet.extend(segment);
        packet
    }

    /// The next packet that the stack sent and when; `None`: none came before the cap.
    pub fn receive(&self) -> Option<(Vec<u8>, i64)> {
        let (mut packet, mut len, mut time) = (vec![0; 65_536], 65_536, -1);
        // SAFETY: a buffer, its length, and room for the time.
        let received = unsafe {
            (self.table.netdev_receive)(self.table.userdata, packet.as_mut_ptr(), &raw mut len, &raw mut time)
        };
        assert_eq!(received, 0);
        packet.truncate(len);
        (len > 0).then(|| {
            verify(&packet).unwrap_or_else(|error| panic!("{error}"));
            (packet, time)
        })
    }

    /// The next segment of the stack is this; windows and options are compared where they are written. Tells when it
    /// was sent, in microseconds.
    #[track_caller]
    pub fn sends(&mut self, text: &str) -> i64 {
        let wanted = parse_notation(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let (packet, time) = self.receive().unwrap_or_else(|| panic!("nothing came instead of {text}"));
        let payload = if self.is_v6 {
            let (header, payload) = ipv6::Header::parse(&packet).expect("a good header");
            assert_eq!((header.src, header.dst), (LOCAL6, REMOTE6));
            payload
        } else {
            let (header, payload) = ipv4::Header::parse(&packet).expect("a good header");
            assert_eq!((header.src, header.dst), (LOCAL, REMOTE));
            payload
        };
        let segment = Segment::parse(payload).expect("a good segment");
        if segment.header.flags.has(Flags::SYN) {
            self.our_isn = segment.header.seq;
            self.our_port = segment.header.src_port;
            self.peer_port = segment.header.dst_port;
        }
        let mut noted = segment.noted(self.our_isn, PEER_ISN);
        if wanted.win.is_none() {
            noted.win = None;
        }
        if wanted.ack.is_none() {
            noted.ack = None;
        }
        if !text.contains('<') && !text.contains("sack") {
            noted.options = wanted.options;
        }
        assert_eq!(noted.to_string(), wanted.to_string());
        time
    }

    // ---- Time ----

    /// Asks for the time: it goes on by 1 us.
    pub fn now(&self) -> i64 {
        let mut time = timeval { tv_sec: -1, tv_usec: -1 };
        // SAFETY: room for the time.
        let asked = unsafe { (self.table.gettimeofday)(self.table.userdata, &raw mut time, null_mut()) };
        assert_eq!(asked, 0);
        time.tv_sec * 1_000_000 + time.tv_usec
    }

    pub fn sleep_ms(&self, ms: u32) {
        // SAFETY: no pointer but userdata.
        assert_eq!(unsafe { (self.table.usleep)(self.table.userdata, ms * 1000) }, 0);
    }

    // ---- Sockets ----

    pub fn socket(&self, kind: c_int) -> c_int {
        let domain = if self.is_v6 { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: no pointer but userdata.
        let fd = unsafe {
            (self.table.socket)(self.table.userdata, domain, libc::SOCK_STREAM | kind, libc::IPPROTO_TCP)
        };
        returned(fd).expect("a socket") as c_int
    }

    pub fn bind(&self, fd: c_int, port: u16) -> Returned {
        let (local, _) = self.addrs();
        self.with_addr(local, port, |addr, len| {
            // SAFETY: an address and its length.
            returned(unsafe { (self.table.bind)(self.table.userdata, fd, addr.cast(), len) })
        })
    }

    pub fn connect(&self, fd: c_int, port: u16) -> Returned {
        let (_, remote) = self.addrs();
        self.with_addr(remote, port, |addr, len| {
            // SAFETY: an address and its length.
            returned(unsafe { (self.table.connect)(self.table.userdata, fd, addr.cast(), len) })
        })
    }

    fn with_addr(
        &self,
        addr: IpAddr,
        port: u16,
        call: impl FnOnce(*const c_void, socklen_t) -> Returned,
    ) -> Returned {
        match addr {
            IpAddr::V4(ip) => {
                let addr = sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: port.to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    sin_zero: [0; 8],
                };
                call((&raw const addr).cast(), size_of::<sockaddr_in>() as socklen_t)
            }
            IpAddr::V6(ip) => {
                let addr = sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: port.to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: 0,
                };
                call((&raw const addr).cast(), size_of::<sockaddr_in6>() as socklen_t)
            }
        }
    }

    pub fn listen(&self, fd: c_int) -> Returned {
        // SAFETY: no pointer but userdata.
        returned(unsafe { (self.table.listen)(self.table.userdata, fd, 16) })
    }

    /// A listener on [`LISTEN_PORT`].
    pub fn listener(&self, kind: c_int) -> c_int {
        let fd = self.socket(kind);
        assert_eq!((self.bind(fd, LISTEN_PORT), self.listen(fd)), (Ok(0), Ok(0)));
        fd
    }

    /// Accepts, and checks that the peer is named.
    pub fn accept(&self, fd: c_int) -> Returned {
        let mut addr = [0_u8; size_of::<sockaddr_in6>()];
        let mut len = addr.len() as socklen_t;
        // SAFETY: room for an address, and its length.
        let fd = returned(unsafe {
            (self.table.accept)(self.table.userdata, fd, addr.as_mut_ptr().cast(), &raw mut len)
        })?;
        assert_eq!(u16::from_be_bytes([addr[2], addr[3]]), self.peer_port);
        if self.is_v6 {
            assert_eq!((len as usize, &addr[8..24]), (size_of::<sockaddr_in6>(), &REMOTE6.octets()[..]));
        } else {
            assert_eq!((len as usize, &addr[4..8]), (size_of::<sockaddr_in>(), &REMOTE.octets()[..]));
        }
        Ok(fd)
    }

    pub fn read(&self, fd: c_int, len: usize) -> Returned {
        let mut buffer = vec![1_u8; len];
        // SAFETY: a buffer and its length.
        let count = returned(unsafe {
            (self.table.read)(self.table.userdata, fd, buffer.as_mut_ptr().cast(), len) as i64
        })?;
        assert!(buffer[..count as usize].iter().all(|byte| *byte == 0), "the peer sends zeros");
        assert!(buffer[count as usize..].iter().all(|byte| *byte == 1), "nothing behind them is touched");
        Ok(count)
    }

    pub fn write(&self, fd: c_int, len: usize) -> Returned {
        let buffer = vec![0_u8; len];
        // SAFETY: a buffer and its length.
        returned(unsafe { (self.table.write)(self.table.userdata, fd, buffer.as_ptr().cast(), len) as i64 })
    }

    pub fn close(&self, fd: c_int) -> Returned {
        // SAFETY: no pointer but userdata.
        returned(unsafe { (self.table.close)(self.table.userdata, fd) })
    }

    pub fn shutdown(&self, fd: c_int, how: c_int) -> Returned {
        // SAFETY: no pointer but userdata.
        returned(unsafe { (self.table.shutdown)(self.table.userdata, fd, how) })
    }

    pub fn option(&self, fd: c_int, level: c_int, name: c_int) -> Returned {
        let (mut value, mut len) = (-1_i32, size_of::<i32>() as socklen_t);
        // SAFETY: room for an int, and its length.
        returned(unsafe {
            (self.table.getsockopt)(
                self.table.userdata,
                fd,
                level,
                name,
                (&raw mut value).cast(),
                &raw mut len,
            )
        })?;
        assert_eq!(len, 4);
        Ok(value.into())
    }

    pub fn set_option(&self, fd: c_int, level: c_int, name: c_int, value: &[i32]) -> Returned {
        let len = size_of_val(value) as socklen_t;
        // SAFETY: a value and its length.
        returned(unsafe {
            (self.table.setsockopt)(self.table.userdata, fd, level, name, value.as_ptr().cast(), len)
        })
    }

    /// `getsockopt` with room for `room` bytes.
    pub fn option_bytes(&self, fd: c_int, level: c_int, name: c_int, room: usize) -> Result<Vec<u8>, i32> {
        let (mut value, mut len) = (vec![1_u8; room], room as socklen_t);
        // SAFETY: a buffer and its length.
        returned(unsafe {
            (self.table.getsockopt)(
                self.table.userdata,
                fd,
                level,
                name,
                value.as_mut_ptr().cast(),
                &raw mut len,
            )
        })?;
        value.truncate(len as usize);
        Ok(value)
    }

    /// Connects to the peer without waiting.
    pub fn connect_async(&self, fd: c_int) -> Returned {
        assert_eq!(self.fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK.into()), Ok(0));
        self.connect(fd, PEER_PORT)
    }

    pub fn send_flags(&self, fd: c_int, len: usize, flags: c_int) -> Returned {
        let buffer = vec![0_u8; len];
        // SAFETY: a buffer and its length.
        returned(unsafe {
            (self.table.send)(self.table.userdata, fd, buffer.as_ptr().cast(), len, flags) as i64
        })
    }

    /// `sendto` the peer.
    pub fn send_open(&self, fd: c_int, len: usize, flags: c_int) -> Returned {
        let buffer = vec![0_u8; len];
        let (_, remote) = self.addrs();
        self.with_addr(remote, PEER_PORT, |addr, addr_len| {
            // SAFETY: a buffer and its length, an address and its length.
            returned(unsafe {
                (self.table.sendto)(
                    self.table.userdata,
                    fd,
                    buffer.as_ptr().cast(),
                    len,
                    flags,
                    addr.cast(),
                    addr_len,
                ) as i64
            })
        })
    }

    /// The next message of the error queue: control messages and flags.
    pub fn error_queue(&self, fd: c_int) -> Result<(Vec<u8>, c_int), i32> {
        let mut control = vec![1_u8; 256];
        // SAFETY: all zeros are a message header without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
        // SAFETY: a message header, whose control buffer has that length.
        returned(unsafe {
            (self.table.recvmsg)(self.table.userdata, fd, &raw mut message, libc::MSG_ERRQUEUE) as i64
        })?;
        control.truncate(message.msg_controllen);
        Ok((control, message.msg_flags))
    }

    pub fn fcntl(&self, fd: c_int, command: c_int, argument: i64) -> Returned {
        // SAFETY: no pointer but userdata.
        returned(unsafe { (self.table.fcntl)(self.table.userdata, fd, command, argument) })
    }

    /// Polls one descriptor; revents comes in as packetdrill leaves it, set to something.
    pub fn poll(&self, fd: c_int, events: i16, timeout_ms: c_int) -> (Returned, i16) {
        let mut entry = pollfd { fd, events, revents: !0 };
        // SAFETY: one entry.
        let count = unsafe { (self.table.poll)(self.table.userdata, &raw mut entry, 1, timeout_ms) };
        (returned(count), entry.revents)
    }

    /// The socket of a connection that the peer opened, and its listener.
    pub fn established(&mut self) -> (c_int, c_int) {
        let listener = self.listener(0);
        self.gets("S 0:0(0) win 65535 <mss 1000>");
        self.sends("S. 0:0(0) ack 1");
        self.gets(". 1:1(0) ack 1 win 65535");
        let fd = self.accept(listener).expect("it is there");
        (fd as c_int, listener)
    }

    /// Makes a call on a thread of its own that must sleep, does `meanwhile` while it does, and tells what the call returned
    /// and the next time that its thread was told.
    pub fn blocked<T>(
        &mut self,
        call: impl FnOnce(&Blocked) -> Returned + Send,
        meanwhile: impl FnOnce(&mut Script) -> T,
    ) -> (Returned, i64, T) {
        let script = Script { ..*self };
        let thread_id = AtomicI32::new(0);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                thread_id.store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
                let returned = call(&Blocked(&script));
                (returned, script.now())
            });
            wait_asleep(&thread_id);
            let done = meanwhile(self);
            let (returned, time) = caller.join().expect("the call returned");
            (returned, time, done)
        })
    }
}

/// The script, for the thread that waits.
pub struct Blocked<'a>(pub &'a Script);

/// Waits as packetdrill does, until the kernel says that the thread sleeps.
fn wait_asleep(thread_id: &AtomicI32) {
    // Far more looks than it ever takes: a thread that is busy for ever fails the test and does not hang it.
    for _ in 0..5_000_000 {
        std::thread::yield_now();
        let id = thread_id.load(SeqCst);
        if id == 0 {
            continue;
        }
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).expect("the thread lives");
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if state == Some('S') {
            return;
        }
    }
    panic!("the thread never slept");
}

// ---- What packetdrill's process calls without the table ----

/// `TCP_INFO`, `TCP_CC_INFO` or `SO_MEMINFO` by libc's `getsockopt`, with room for `room` bytes.
pub fn host_option(fd: c_int, level: c_int, name: c_int, room: usize) -> Result<Vec<u8>, i32> {
    let (mut value, mut len) = (vec![1_u8; room], room as socklen_t);
    // SAFETY: a buffer and its length.
    returned(unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) })?;
    value.truncate(len as usize);
    Ok(value)
}

pub fn host_system(command: &str) -> c_int {
    let command = CString::new(command).expect("no zero byte");
    // SAFETY: a C string.
    unsafe { libc::system(command.as_ptr()) }
}

/// packetdrill's wait for a blocked call, until a moment that has passed.
pub fn host_wait() -> c_int {
    let (mut condition, mut mutex) = (libc::PTHREAD_COND_INITIALIZER, libc::PTHREAD_MUTEX_INITIALIZER);
    let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: a condition and a mutex that nobody else knows, locked as the wait asks; a time.
    unsafe {
        libc::pthread_mutex_lock(&raw mut mutex);
        libc::pthread_cond_timedwait(&raw mut condition, &raw mut mutex, &raw const past)
    }
}

pub fn host_times() -> i64 {
    // SAFETY: nobody wants the times.
    unsafe { libc::times(null_mut()) }
}

pub fn host_mlockall() -> c_int {
    // SAFETY: no pointer.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }
}
