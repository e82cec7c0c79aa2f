//! The calls that read and write: buffers, vectors, messages.

use std::ffi::{c_int, c_void};

use libc::{iovec, msghdr, sockaddr, socklen_t};

use super::{call, fail, finish};
use crate::call::{Call, Out};

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
    if let Out::Bytes(bytes) = &answer.out {
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
    finish(answer)
}

fn transmit(userdata: *mut c_void, fd: c_int, pieces: &[iovec], flags: c_int) -> isize {
    let mut data = Vec::new();
    for piece in pieces {
        // No piece lies at null, so there is always a copy.
        data.extend(read(piece.iov_base.cast(), piece.iov_len).unwrap_or_default());
    }
    finish(call(userdata, Call::Write { fd, data, flags, done: 0 }))
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
            let count = receive(userdata, fd, pieces, flags);
            if count >= 0 {
                // No address, no control messages: the stack has none.
                message.msg_namelen = 0;
                message.msg_controllen = 0;
                message.msg_flags = 0;
            }
            count
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
    transmit(userdata, fd, &[one(buffer, len)], flags)
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
        Ok(pieces) => transmit(userdata, fd, pieces, 0),
        Err(errno) => fail(errno) as isize,
    }
}

pub(super) extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: usize,
    flags: c_int,
    _to: *const sockaddr,
    _to_len: socklen_t,
) -> isize {
    // A stream has its address, except with MSG_FASTOPEN, which is refused.
    send(userdata, fd, buffer, len, flags)
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
        Ok(pieces) => transmit(userdata, fd, pieces, flags),
        Err(errno) => fail(errno) as isize,
    }
}
