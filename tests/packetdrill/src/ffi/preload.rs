//! Symbols of libc that packetdrill's own process calls: with this file as `LD_PRELOAD` it calls ours.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use libc::{clock_t, pthread_cond_t, pthread_mutex_t, socklen_t, timespec, tms};

use crate::call::{Call, Out};
use crate::shell::{NOT_FOUND, is_for_host};

/// How far the clock runs while packetdrill waits for a blocked call: as long as it would wait.
const AWAIT_US: u64 = 1_000_000;

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

/// Answers the shell commands of scripts: see [`crate::shell`]. When the stack is gone there is nothing to set.
#[unsafe(no_mangle)]
extern "C" fn system(command: *const c_char) -> c_int {
    if command.is_null() {
        // Whether there is a shell.
        return 1;
    }
    // SAFETY: not null, so a C string, says the caller.
    let command = unsafe { CStr::from_ptr(command) }.to_string_lossy().into_owned();
    let handle = super::latest().clone();
    match handle {
        Some(handle) if !is_for_host(&command) => {
            let answer = handle.call(Call::System(command));
            if let Out::Text(text) = answer.out {
                let _ = std::io::stdout().write_all(text.as_bytes());
            }
            // A process's status holds its exit code above eight bits. Cannot cut: codes are below 256.
            (answer.result as c_int) << 8
        }
        None if !is_for_host(&command) => 0,
        _ => {
            let status = Command::new("/bin/sh").args(["-c", &command]).env_remove("LD_PRELOAD").status();
            status.map_or(NOT_FOUND << 8, ExitStatusExt::into_raw)
        }
    }
}

/// packetdrill's wait for a blocked call: nothing moves the clock meanwhile but this.
#[unsafe(no_mangle)]
extern "C" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    if let Some(handle) = super::latest().clone() {
        handle.call(Call::Await(AWAIT_US));
    }
    type Wait = unsafe extern "C" fn(*mut pthread_cond_t, *mut pthread_mutex_t, *const timespec) -> c_int;
    // SAFETY: a C string; the symbol is looked for behind this library, so it is libc's.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_cond_timedwait".as_ptr()) };
    if real.is_null() {
        return libc::ENOSYS;
    }
    // SAFETY: libc's function of this name has this type; the arguments are the caller's.
    unsafe { std::mem::transmute::<*mut c_void, Wait>(real)(condition, mutex, until) }
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
    let is_ours = matches!(
        (level, name),
        (libc::IPPROTO_TCP, libc::TCP_INFO | libc::TCP_CC_INFO) | (libc::SOL_SOCKET, libc::SO_MEMINFO)
    );
    if is_ours
        && !value.is_null()
        && !len.is_null()
        && let Some(handle) = super::latest().clone()
    {
        // SAFETY: not null, so the room in `value`, says the caller.
        let room = unsafe { *len } as usize;
        if let Out::Bytes(bytes) = handle.call(Call::GetOption(fd, level, name, room)).out {
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
