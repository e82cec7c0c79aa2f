//! Linux TAP devices: the kernel's network stack at the other end of an Ethernet wire.
//!
//! One file descriptor per queue, non-blocking, one frame per read and write. A frame is read so that the IP header
//! behind its Ethernet header is aligned. `IFF_VNET_HDR` (checksum and segmentation offload) is not used; it would
//! put a header in front of every frame here and be told in [`Capabilities`].
#![allow(unsafe_code)]

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use hoststack_wire::MacAddr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::device::{Capabilities, Device, DeviceCounters, DeviceQueue, ETHERNET_HEADER_LEN};
use crate::packet::{HEADROOM, Packet, PacketPool};

/// Bytes of a VLAN tag, which the kernel allows a frame beyond its MTU.
const VLAN_TAG_LEN: usize = 4;
/// How long to wait before the kernel's queue, found full, is tried again.
const FULL_RETRY_US: u64 = 100;

/// Which TAP to open, and how.
#[derive(Clone, Debug, Default)]
pub struct TapConfig {
    /// The interface's name, at most 15 bytes; empty: the kernel chooses (`tap0`, ...).
    pub name: String,
    /// Our end's address; `None`: locally administered, derived from the name. The kernel's end has another.
    pub mac: Option<MacAddr>,
    /// One kernel queue per worker (`IFF_MULTI_QUEUE`). An existing interface must have been made so.
    pub multi_queue: bool,
    /// Set the kernel's end up, as `ip link set NAME up` does.
    pub bring_up: bool,
}

/// Why a TAP could not be opened. Each says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum TapError {
    /// There is no `/dev/net/tun`.
    NoTunDevice,
    /// The process may not.
    NotPermitted {
        /// The interface.
        name: String,
    },
    /// Another process has it open.
    Busy {
        /// The interface.
        name: String,
    },
    /// The name does not fit the kernel's 15 bytes, or holds a zero byte.
    BadName {
        /// The name.
        name: String,
    },
    /// An interface of that name exists and is not a TAP with that kind of queues.
    WrongKind {
        /// The interface.
        name: String,
        /// Whether several queues were asked for.
        multi_queue: bool,
    },
    /// Another call failed.
    Io {
        /// What was tried.
        what: &'static str,
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapError::NoTunDevice => f.write_str(
                "/dev/net/tun does not exist: load the module (modprobe tun), or pass the device into the container",
            ),
            TapError::NotPermitted { name } => write!(
                f,
                "not permitted to open TAP {name:?}: this needs CAP_NET_ADMIN, or an interface made for this user \
                 (ip tuntap add {name} mode tap user USER)"
            ),
            TapError::Busy { name } => {
                write!(f, "TAP {name:?} is in use by another process: end it, or choose another name")
            }
            TapError::BadName { name } => {
                write!(f, "{name:?} is no interface name: use 1 to 15 bytes without '/', spaces or zero bytes")
            }
            TapError::WrongKind { name, multi_queue: true } => write!(
                f,
                "interface {name:?} exists and is not a multi-queue TAP: delete it, or make it with \
                 'ip tuntap add {name} mode tap multi_queue'"
            ),
            TapError::WrongKind { name, multi_queue: false } => write!(
                f,
                "interface {name:?} exists and is not a single-queue TAP: delete it, open it with several queues, or \
                 make it with 'ip tuntap add {name} mode tap'"
            ),
            TapError::Io { what, name, source } => write!(f, "cannot {what} TAP {name:?}: {source}"),
        }
    }
}

impl std::error::Error for TapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TapError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<TapError> for io::Error {
    fn from(error: TapError) -> io::Error {
        let kind = match &error {
            TapError::NoTunDevice => io::ErrorKind::NotFound,
            TapError::NotPermitted { .. } => io::ErrorKind::PermissionDenied,
            TapError::Busy { .. } => io::ErrorKind::ResourceBusy,
            TapError::BadName { .. } | TapError::WrongKind { .. } => io::ErrorKind::InvalidInput,
            TapError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// An open TAP.
///
/// With `multi_queue` every queue receives what the kernel steers to it; without, queue 0 receives and all queues
/// transmit through duplicates of one descriptor (the kernel's write path takes several threads).
#[derive(Debug)]
pub struct Tap {
    name: String,
    mac: MacAddr,
    mtu: usize,
    multi_queue: bool,
    fd: OwnedFd,
}

impl Tap {
    /// Opens the TAP, and creates it if there is none of that name. An interface created here is gone when the last
    /// queue is dropped.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(config: &TapConfig) -> Result<Tap, TapError> {
        let (fd, name) = open_queue(&config.name, config.multi_queue)?;
        if config.bring_up {
            bring_up(&name)?;
        }
        let mtu = mtu_of(&name)?;
        let mac = config.mac.unwrap_or_else(|| derived_mac(&name));
        Ok(Tap { name, mac, mtu, multi_queue: config.multi_queue, fd })
    }
}

impl Device for Tap {
    fn name(&self) -> &str {
        &self.name
    }

    /// As it was when the TAP was opened.
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Option<MacAddr> {
        Some(self.mac)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { receive_queues: usize::from(!self.multi_queue), ..Capabilities::default() }
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let Tap { name, mac: _, mtu, multi_queue, fd } = *self;
        let mut fds = Vec::with_capacity(count);
        for _ in 1..count {
            fds.push(if multi_queue { open_queue(&name, true)?.0 } else { fd.try_clone()? });
        }
        if count > 0 {
            fds.insert(0, fd);
        }
        let queue = |(index, fd)| TapQueue {
            fd,
            receives: multi_queue || index == 0,
            frame_max: ETHERNET_HEADER_LEN + mtu,
            full_at_us: None,
            counters: DeviceCounters::default(),
        };
        Ok(fds.into_iter().enumerate().map(|fd| Box::new(queue(fd)) as Box<dyn DeviceQueue>).collect())
    }
}

struct TapQueue {
    fd: OwnedFd,
    /// Whether this queue reads. Cleared when the interface is gone: its descriptor would be ready for ever.
    receives: bool,
    frame_max: usize,
    /// When the kernel's queue was found full, if it was the last time.
    full_at_us: Option<u64>,
    counters: DeviceCounters,
}

impl DeviceQueue for TapQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        // The deadline is served: whoever still has packets to send offers them in this step.
        self.full_at_us = self.full_at_us.filter(|at| now_us < at + FULL_RETRY_US);
        let mut count = 0;
        // Frames that are too long count towards the burst, so that a flood of them cannot keep us here.
        for _ in 0..if self.receives { max } else { 0 } {
            let mut packet = pool.take();
            packet.reset(HEADROOM - ETHERNET_HEADER_LEN);
            let room = packet.room();
            match rustix::io::read(&self.fd, packet.append(room)) {
                // A full buffer may be a cut frame.
                Ok(len) if len == room || len > self.frame_max + VLAN_TAG_LEN => {
                    self.counters.rx_dropped_too_long += 1;
                    pool.give(packet);
                }
                Ok(len) => {
                    packet.truncate(len);
                    self.counters.rx_packets += 1;
                    self.counters.rx_bytes += len as u64;
                    into.push(packet);
                    count += 1;
                }
                Err(error) => {
                    pool.give(packet);
                    match error {
                        Errno::AGAIN => {}
                        Errno::INTR => continue,
                        // The interface was deleted.
                        Errno::BADFD => {
                            self.counters.rx_errors += 1;
                            self.receives = false;
                            tracing::warn!("TAP interface is gone: receiving no more");
                        }
                        _ => self.counters.rx_errors += 1,
                    }
                    break;
                }
            }
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.full_at_us = None;
        let mut taken = 0;
        for packet in packets.iter() {
            if packet.len() > self.frame_max {
                self.counters.tx_dropped_too_long += 1;
                taken += 1;
                continue;
            }
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, packet.data())) {
                Ok(_) => {
                    self.counters.tx_packets += 1;
                    self.counters.tx_bytes += packet.len() as u64;
                }
                Err(Errno::AGAIN) => {
                    self.counters.tx_full += 1;
                    self.full_at_us = Some(now_us);
                    break;
                }
                // EIO: the interface is down. EBADFD: it is gone. EINVAL: no Ethernet frame.
                Err(_) => self.counters.tx_dropped_error += 1,
            }
            taken += 1;
        }
        for packet in packets.drain(..taken) {
            pool.give(packet);
        }
        taken
    }

    fn next_deadline_us(&self) -> Option<u64> {
        self.full_at_us.map(|at| at + FULL_RETRY_US)
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.receives.then(|| self.fd.as_raw_fd())
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

/// A locally administered unicast address, the same for the same name (FNV-1a of it).
fn derived_mac(name: &str) -> MacAddr {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = (hash ^ (hash >> 32)).to_be_bytes();
    MacAddr([0x02, a, b, c, d, e])
}

/// Opens a queue of interface `name`; tells its real name.
fn open_queue(name: &str, multi_queue: bool) -> Result<(OwnedFd, String), TapError> {
    let io_error = |what, source| TapError::Io { what, name: name.to_owned(), source };
    let mut request = request_for(name)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoTunDevice,
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted { name: name.to_owned() },
            _ => io_error("open /dev/net/tun for", error),
        })?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    // Cannot truncate because: the three flags fit 16 bits.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let fd = OwnedFd::from(file);
    // SAFETY: `fd` is open, and TUNSETIFF reads and writes one `ifreq`, which `request` is, for the time of the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted { name: name.to_owned() },
            Some(libc::EBUSY) => TapError::Busy { name: name.to_owned() },
            Some(libc::EINVAL) => TapError::WrongKind { name: name.to_owned(), multi_queue },
            _ => io_error("attach to", error),
        });
    }
    Ok((fd, name_in(&request)))
}

/// An `ifreq` that names `name`.
fn request_for(name: &str) -> Result<libc::ifreq, TapError> {
    let bad = name.len() >= libc::IFNAMSIZ
        || name.bytes().any(|byte| byte == 0 || byte == b'/' || byte == b':' || byte.is_ascii_whitespace())
        || matches!(name, "." | "..");
    if bad {
        return Err(TapError::BadName { name: name.to_owned() });
    }
    // SAFETY: `ifreq` is a C structure of integers, addresses and pointers, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn name_in(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks the kernel about an interface, through a socket of any kind.
fn interface_ioctl(
    what: &'static str,
    name: &str,
    code: libc::Ioctl,
    request: &mut libc::ifreq,
) -> Result<(), TapError> {
    let io_error = |source| TapError::Io { what, name: name.to_owned(), source };
    let socket =
        socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(|error| io_error(error.into()))?;
    // SAFETY: `socket` is open, and the callers' codes (SIOCGIFMTU, SIOCGIFFLAGS, SIOCSIFFLAGS) read and write one
    // `ifreq`, which `request` is, for the time of the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), code, request) } < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted { name: name.to_owned() },
            _ => io_error(error),
        });
    }
    Ok(())
}

fn mtu_of(name: &str) -> Result<usize, TapError> {
    let mut request = request_for(name)?;
    interface_ioctl("read the MTU of", name, libc::SIOCGIFMTU as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFMTU succeeded, so this field of the union is the one that is set (and any bits are a c_int).
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    // Cannot be negative because: the kernel keeps MTUs unsigned and below 2^31.
    Ok(usize::try_from(mtu).unwrap_or(0))
}

fn bring_up(name: &str) -> Result<(), TapError> {
    let mut request = request_for(name)?;
    interface_ioctl("read the flags of", name, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFFLAGS succeeded, so this field of the union is the one that is set (any bits are a c_short).
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & libc::IFF_UP as libc::c_short != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    interface_ioctl("set up", name, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

#[cfg(test)]
mod tests;
