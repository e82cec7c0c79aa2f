//! The table itself: what packetdrill calls, in its order.

use std::ffi::{c_int, c_long, c_longlong, c_ulong, c_void};

use libc::{epoll_event, iovec, msghdr, pollfd, sockaddr, socklen_t, timeval};

/// What `packetdrill_interface_init` fills. packetdrill checks no field, so none is null.
///
/// Each function takes [`Table::userdata`] first and is what the system call of its name is. `fcntl` and `ioctl` are
/// variadic in C: on x86-64 a fixed third argument is passed the same way, with any value when it is not given.
///
/// # Safety
/// Of each function: `userdata` is the table's, before `free`; the other pointers are null or valid for what the system
/// call of that name does with them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of system calls; what differs is said above each group")]
pub struct Table {
    /// Ours, handed back with each call.
    pub userdata: *mut c_void,
    /// The last call, and only after a script that passed.
    pub free: unsafe extern "C" fn(*mut c_void),
    pub socket: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int) -> c_int,
    pub bind: unsafe extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    pub listen: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub accept: unsafe extern "C" fn(*mut c_void, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub connect: unsafe extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    pub read: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, usize) -> isize,
    pub readv: unsafe extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> isize,
    pub recv: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, usize, c_int) -> isize,
    pub recvfrom: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        *mut c_void,
        usize,
        c_int,
        *mut sockaddr,
        *mut socklen_t,
    ) -> isize,
    pub recvmsg: unsafe extern "C" fn(*mut c_void, c_int, *mut msghdr, c_int) -> isize,
    pub write: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> isize,
    pub writev: unsafe extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> isize,
    pub send: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize, c_int) -> isize,
    pub sendto: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        *const c_void,
        usize,
        c_int,
        *const sockaddr,
        socklen_t,
    ) -> isize,
    pub sendmsg: unsafe extern "C" fn(*mut c_void, c_int, *const msghdr, c_int) -> isize,
    pub fcntl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_long) -> c_int,
    pub ioctl: unsafe extern "C" fn(*mut c_void, c_int, c_ulong, *mut c_int) -> c_int,
    pub close: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    pub shutdown: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub getsockopt:
        unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    pub setsockopt: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    pub poll: unsafe extern "C" fn(*mut c_void, *mut pollfd, c_ulong, c_int) -> c_int,
    /// One IP packet into the stack; it takes effect before the call returns.
    pub netdev_send: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> c_int,
    /// The next packet that the stack sent, with the microsecond; length 0: none comes before the cap.
    pub netdev_receive: unsafe extern "C" fn(*mut c_void, *mut u8, *mut usize, *mut c_longlong) -> c_int,
    /// Runs the stack's clock on.
    pub usleep: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    /// The stack's clock, which each call moves on by 1 us.
    pub gettimeofday: unsafe extern "C" fn(*mut c_void, *mut timeval, *mut c_void) -> c_int,
    pub epoll_create: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    pub epoll_ctl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut epoll_event) -> c_int,
    pub epoll_wait: unsafe extern "C" fn(*mut c_void, c_int, *mut epoll_event, c_int, c_int) -> c_int,
    pub pipe: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    pub splice: unsafe extern "C" fn(*mut c_void, c_int, *mut i64, c_int, *mut i64, usize, u32) -> c_int,
}

// SAFETY: the only pointer among them leads to an `Instance`, which any thread may share.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// packetdrill's table has 33 pointers.
const _: () = assert!(size_of::<Table>() == 33 * size_of::<usize>());

impl Table {
    pub(super) fn new(userdata: *mut c_void) -> Table {
        Table {
            userdata,
            free: super::free,
            socket: super::socket,
            bind: super::bind,
            listen: super::listen,
            accept: super::accept,
            connect: super::connect,
            read: super::bytes::read_call,
            readv: super::bytes::readv,
            recv: super::bytes::recv,
            recvfrom: super::bytes::recvfrom,
            recvmsg: super::bytes::recvmsg,
            write: super::bytes::write,
            writev: super::bytes::writev,
            send: super::bytes::send,
            sendto: super::bytes::sendto,
            sendmsg: super::bytes::sendmsg,
            fcntl: super::fcntl,
            ioctl: super::ioctl,
            close: super::close,
            shutdown: super::shutdown,
            getsockopt: super::getsockopt,
            setsockopt: super::setsockopt,
            poll: super::poll,
            netdev_send: super::netdev_send,
            netdev_receive: super::netdev_receive,
            usleep: super::usleep,
            gettimeofday: super::gettimeofday,
            epoll_create: super::epoll_create,
            epoll_ctl: super::epoll_ctl,
            epoll_wait: super::epoll_wait,
            pipe: super::pipe,
            splice: super::splice,
        }
    }
}
