//! The calls that read and write: buffers, vectors, messages.

use std::ffi::{c_int, c_void};

use libc::{iovec, msghdr, sockaddr, socklen_t};

use super::{addr, call, fail, finish};
use crate::call::{Call, Control, Destination, Out};

/// Set in the flags of a [`Call::Read`] whose caller takes control messages; no `MSG_*` has this bit.
pub(crate) const WANTS_CONTROL: c_int = 1 << 24;
/// Most pieces of a vector (UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// A copy of `len` bytes; `None`: they are nowhere.
pub(super) fn read(from: *const u8, len: usize) -> Option<Vec<u8>> {
    if len == 0 {
        return Some(Vec::new());
    }
    if from.is_null() {
        return None;
    }
    // SAFETY: not null, so `len` bytes, says the caller.
    Some(unsafe { std::slice::from_raw_parts(from, len) }.to_vec())
}

/// The pieces of a vector; `Err`: an errno.
fn pieces<'a>(vector: *const iovec, count: usize) -> Result<&'a [iovec], c_int> {
    if count > PIECES_MAX {
        return Err(libc::EINVAL);
    }
    if count == 0 {
        return Ok(&[]);
    }
    if vector.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: not null, so `count` pieces, valid for the length of the call, says the caller.
    let pieces = unsafe { std::slice::from_raw_parts(vector, count) };
    if pieces.iter().any(|piece| piece.iov_base.is_null() && piece.iov_len > 0) {
        return Err(libc::EFAULT);
    }
    Ok(pieces)
}

fn receive(userdata: *mut c_void, fd: c_int, pieces: &[iovec], flags: c_int) -> isize {
    let len = pieces.iter().map(|piece| piece.iov_len).sum();
    let answer = call(userdata, Call::Read { fd, len, flags });
    scatter(&answer.out, pieces);
    finish(answer)
}

/// Copies what was read into the pieces of a vector.
fn scatter(out: &Out, pieces: &[iovec]) {
    if let Out::Bytes(bytes) | Out::Message(bytes, ..) = out {
        let mut rest = bytes.as_slice();
        for piece in pieces {
            let (now, later) = rest.split_at(rest.len().min(piece.iov_len));
            if now.is_empty() {
                break;
            }
            // SAFETY: a piece with a length has a base, with room for that many bytes.
            unsafe { now.as_ptr().copy_to_nonoverlapping(piece.iov_base.cast(), now.len()) };
            rest = later;
        }
    }
}

/// Writes control messages where `recvmsg` was given room for them, and how long they are.
fn give_control(message: &mut msghdr, control: &[Control]) {
    let header = control_header_len();
    let mut written = 0;
    for Control { level, kind, data } in control {
        let len = header + data.len();
        if message.msg_control.is_null() || written + len > message.msg_controllen {
            message.msg_flags |= libc::MSG_CTRUNC;
            break;
        }
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        // SAFETY: not null, and there is room for `len` bytes behind what was written.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(message.msg_control.cast::<u8>().add(written), len) };
        // The next header is aligned like the first (cmsg(3)).
        written += len.next_multiple_of(size_of::<usize>());
    }
    message.msg_controllen = written;
}

/// `CMSG_LEN(0)`: the length and two ints, without padding where this is built.
const fn control_header_len() -> usize {
    size_of::<usize>() + 2 * size_of::<c_int>()
}

fn transmit(userdata: *mut c_void, fd: c_int, pieces: &[iovec], flags: c_int, to: Destination) -> isize {
    let mut data = Vec::new();
    for piece in pieces {
        // No piece lies at null, so there is always a copy.
        data.extend(read(piece.iov_base.cast(), piece.iov_len).unwrap_or_default());
    }
    finish(call(userdata, Call::Write { fd, data, flags, done: 0, to }))
}

fn one(buffer: *const c_void, len: usize) -> iovec {
    iovec { iov_base: buffer.cast_mut(), iov_len: len }
}

pub(super) extern "C" fn readv(
    userdata: *mut c_void,
    fd: c_int,
    vector: *const iovec,
    count: c_int,
) -> isize {
    match usize::try_from(count).map_err(|_| libc::EINVAL).and_then(|count| pieces(vector, count)) {
        Ok(pieces) => receive(userdata, fd, pieces, 0),
        Err(errno) => fail(errno) as isize,
    }
}

pub(super) extern "C" fn recv(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: usize,
    flags: c_int,
) -> isize {
    // What is thrown away needs no room.
    if buffer.is_null() && len > 0 && flags & libc::MSG_TRUNC == 0 {
        return fail(libc::EFAULT) as isize;
    }
    receive(userdata, fd, &[one(buffer, len)], flags)
}

pub(super) extern "C" fn read_call(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: usize,
) -> isize {
    recv(userdata, fd, buffer, len, 0)
}

pub(super) extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: usize,
    flags: c_int,
    _from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> isize {
    let count = recv(userdata, fd, buffer, len, flags);
    if count >= 0 && !from_len.is_null() {
        // SAFETY: not null. A stream has no sender to name.
        unsafe { *from_len = 0 };
    }
    count
}

pub(super) extern "C" fn recvmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> isize {
    if message.is_null() {
        return fail(libc::EFAULT) as isize;
    }
    // SAFETY: not null, so a message header, and nobody else's for the length of the call.
    let message = unsafe { &mut *message };
    match pieces(message.msg_iov, message.msg_iovlen) {
        Ok(pieces) => {
            let len = pieces.iter().map(|piece| piece.iov_len).sum();
            let answer = call(userdata, Call::Read { fd, len, flags: flags | WANTS_CONTROL });
            scatter(&answer.out, pieces);
            if answer.result >= 0 {
                // A stream has no sender to name.
                message.msg_namelen = 0;
                message.msg_flags = 0;
                let control: &[Control] = match &answer.out {
                    Out::Message(_, control, flags) => {
                        message.msg_flags = *flags;
                        control
                    }
                    _ => &[],
                };
                give_control(message, control);
            }
            finish(answer)
        }
        Err(errno) => fail(errno) as isize,
    }
}

pub(super) extern "C" fn send(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: usize,
    flags: c_int,
) -> isize {
    if buffer.is_null() && len > 0 {
        return fail(libc::EFAULT) as isize;
    }
    transmit(userdata, fd, &[one(buffer, len)], flags, Destination::None)
}

/// Where a call sends to.
fn destination(to: *const sockaddr, len: socklen_t) -> Result<Destination, c_int> {
    if to.is_null() || len == 0 {
        return Ok(Destination::None);
    }
    Ok(addr::read(to, len)?.map_or(Destination::Unspecified, Destination::Address))
}

pub(super) extern "C" fn write(userdata: *mut c_void, fd: c_int, buffer: *const c_void, len: usize) -> isize {
    send(userdata, fd, buffer, len, 0)
}

pub(super) extern "C" fn writev(
    userdata: *mut c_void,
    fd: c_int,
    vector: *const iovec,
    count: c_int,
) -> isize {
    match usize::try_from(count).map_err(|_| libc::EINVAL).and_then(|count| pieces(vector, count)) {
        Ok(pieces) => transmit(userdata, fd, pieces, 0, Destination::None),
        Err(errno) => fail(errno) as isize,
    }
}

pub(super) extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: usize,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> isize {
    if buffer.is_null() && len > 0 {
        return fail(libc::EFAULT) as isize;
    }
    match destination(to, to_len) {
        Ok(to) => transmit(userdata, fd, &[one(buffer, len)], flags, to),
        Err(errno) => fail(errno) as isize,
    }
}

pub(super) extern "C" fn sendmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> isize {
    if message.is_null() {
        return fail(libc::EFAULT) as isize;
    }
    // SAFETY: not null, so a message header, unchanged for the length of the call.
    let message = unsafe { &*message };
    match pieces(message.msg_iov, message.msg_iovlen) {
        Ok(pieces) => match destination(message.msg_name.cast(), message.msg_namelen) {
            Ok(to) => transmit(userdata, fd, pieces, flags, to),
            Err(errno) => fail(errno) as isize,
        },
        Err(errno) => fail(errno) as isize,
    }
}
