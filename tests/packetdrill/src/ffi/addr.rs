//! Socket addresses in and out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};

/// Reads an address; `None`: AF_UNSPEC.
///
/// # Errors
/// An errno: EFAULT, EINVAL, EAFNOSUPPORT.
pub(super) fn read(from: *const sockaddr, len: socklen_t) -> Result<Option<SocketAddr>, i32> {
    if from.is_null() {
        return Err(libc::EFAULT);
    }
    if (len as usize) < size_of::<sa_family_t>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: not null, and the family lies within `len` bytes.
    let family = i32::from(unsafe { (*from).sa_family });
    match family {
        libc::AF_UNSPEC => Ok(None),
        libc::AF_INET if len as usize >= size_of::<sockaddr_in>() => {
            // SAFETY: `len` bytes hold an IPv4 address of this family.
            let addr = unsafe { from.cast::<sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes());
            Ok(Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into()))
        }
        libc::AF_INET6 if len as usize >= size_of::<sockaddr_in6>() => {
            // SAFETY: `len` bytes hold an IPv6 address of this family.
            let addr = unsafe { from.cast::<sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            Ok(Some(SocketAddrV6::new(ip, u16::from_be(addr.sin6_port), 0, addr.sin6_scope_id).into()))
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

/// Writes an address, cut to the room there is, and how long it is. Null: nobody wants to know.
pub(super) fn write(addr: SocketAddr, to: *mut sockaddr, len: *mut socklen_t) {
    if to.is_null() || len.is_null() {
        return;
    }
    match addr {
        SocketAddr::V4(addr) => {
            let whole = sockaddr_in {
                sin_family: libc::AF_INET as sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                sin_zero: [0; 8],
            };
            copy(&whole, to, len);
        }
        SocketAddr::V6(addr) => {
            let whole = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
            copy(&whole, to, len);
        }
    }
}

fn copy<T>(whole: &T, to: *mut sockaddr, len: *mut socklen_t) {
    // SAFETY: neither is null, and `len` says how much room there is.
    unsafe {
        let count = size_of::<T>().min(*len as usize);
        std::ptr::from_ref(whole).cast::<u8>().copy_to_nonoverlapping(to.cast(), count);
        // Cannot cut: the size of a socket address.
        *len = size_of::<T>() as socklen_t;
    }
}
