//! Symbols of libc that packetdrill's own process calls: with this file as `LD_PRELOAD` it calls ours.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use libc::{clock_t, socklen_t, tms};

use crate::call::{Call, Out};
use crate::commands::{Verdict, judge};

/// The status of a process that exits with 127: "not found", as a shell says it.
const NOT_FOUND: c_int = 127 << 8;

/// Nothing is locked: the clock is virtual, so no page fault is too slow, and the limit for it is often low.
#[unsafe(no_mangle)]
extern "C" fn mlockall(_flags: c_int) -> c_int {
    0
}

/// A clock tick for each call: packetdrill waits at its start for one to pass.
#[unsafe(no_mangle)]
extern "C" fn times(into: *mut tms) -> clock_t {
    static TICKS: AtomicI64 = AtomicI64::new(1);
    if !into.is_null() {
        // SAFETY: not null, so room for the times, says the caller.
        unsafe { into.write(tms { tms_utime: 0, tms_stime: 0, tms_cutime: 0, tms_cstime: 0 }) };
    }
    TICKS.fetch_add(1, Relaxed)
}

/// Answers the shell commands of scripts: see [`crate::commands`].
#[unsafe(no_mangle)]
extern "C" fn system(command: *const c_char) -> c_int {
    if command.is_null() {
        // Whether there is a shell.
        return 1;
    }
    // SAFETY: not null, so a C string, says the caller.
    let command = unsafe { CStr::from_ptr(command) }.to_string_lossy();
    match judge(&command) {
        Verdict::Ignore => 0,
        Verdict::Run => {
            let status = Command::new("/bin/sh").args(["-c", &command]).env_remove("LD_PRELOAD").status();
            status.map_or(NOT_FOUND, ExitStatusExt::into_raw)
        }
        Verdict::Refuse => {
            eprintln!("hoststack for packetdrill: this command is not answered: {command}");
            NOT_FOUND
        }
    }
}

/// Code blocks of scripts ask the host for TCP_INFO, TCP_CC_INFO and SO_MEMINFO of descriptors that are place holders:
/// answered from the stack. All else goes to the host.
#[unsafe(no_mangle)]
extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let handle = super::latest().clone();
    if let Some(handle) = handle
        && !value.is_null()
        && !len.is_null()
    {
        // SAFETY: not null, so the room in `value`, says the caller.
        let room = unsafe { *len } as usize;
        let known = match (level, name) {
            (libc::IPPROTO_TCP, libc::TCP_INFO) => Some(room),
            // The algorithm has nothing to tell.
            (libc::IPPROTO_TCP, libc::TCP_CC_INFO) => Some(0),
            (libc::SOL_SOCKET, libc::SO_MEMINFO) => Some(room),
            _ => None,
        };
        if let Some(room) = known
            && let Out::Bytes(mut bytes) = handle.call(Call::TcpInfo(fd, room)).out
        {
            if name == libc::SO_MEMINFO {
                bytes.fill(0);
            }
            // SAFETY: no more bytes than there is room for.
            unsafe {
                bytes.as_ptr().copy_to_nonoverlapping(value.cast(), bytes.len());
                // Cannot cut: at most what came in.
                *len = bytes.len() as socklen_t;
            }
            return 0;
        }
    }
    // SAFETY: the system call with the caller's arguments.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, len) as c_int }
}
