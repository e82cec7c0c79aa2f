//! The C border: the table that packetdrill calls, in its order, and nothing else.
//!
//! Each function copies what its pointers lead to into a [`Call`], sleeps until the answer, copies that back, and sets
//! `errno` last. All lengths and layouts are those of the host's libc. What comes in is packetdrill's to keep valid for
//! the length of the call, as for the system calls of the same names; null is answered with EFAULT.

mod addr;
mod bytes;
mod preload;
mod table;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_void};
use std::sync::Mutex;
use std::thread::JoinHandle;

use libc::{epoll_event, pollfd, sockaddr, socklen_t, timeval};

pub(crate) use bytes::WANTS_CONTROL;
pub use table::Table;

use crate::call::{Answer, Call, Out};
use crate::driver::{Handle, start};
use crate::flags::{Flags, USAGE};

/// What `userdata` points to.
struct Instance {
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The stack that was started last: for the symbols that packetdrill's process calls without a table.
static LATEST: Mutex<Option<Handle>> = Mutex::new(None);

thread_local! {
    /// When the blocking call that this thread made last was done: its next question for the time.
    static WOKEN_AT_US: Cell<Option<u64>> = const { Cell::new(None) };
    /// Whether this is the thread that runs the script: all calls but those that are written to block.
    static IS_SCRIPT: Cell<bool> = const { Cell::new(false) };
}

/// Prints why a run cannot go on, and ends the process: the table has no way to say so.
fn die(why: &str) -> ! {
    eprintln!("hoststack for packetdrill: {why}");
    std::process::exit(1);
}

const fn is_shared<T: Send + Sync>() {}
// What `Table` says of its pointer.
const _: () = is_shared::<Instance>();

/// Starts a stack and fills the table. packetdrill calls it once per script.
///
/// # Safety
/// `flags` is null or a C string; `table` points to room for a [`Table`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, table: *mut Table) {
    let text = if flags.is_null() {
        String::new()
    } else {
        // SAFETY: not null, so a C string, says the caller.
        unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned()
    };
    let options = tool_options();
    let flags = Flags::parse_over(&text, options.iter().map(String::as_str))
        .unwrap_or_else(|error| die(&format!("--so_flags: {error}\n{USAGE}")));
    let (handle, thread) = start(flags).unwrap_or_else(|error| die(&error));
    *latest() = Some(handle.clone());
    IS_SCRIPT.set(true);
    let instance = Box::new(Instance { handle, thread: Mutex::new(Some(thread)) });
    // SAFETY: the caller has room for a table there.
    unsafe { table.write(Table::new(Box::into_raw(instance).cast())) };
}

/// The options of the process and, before them, those at the top of its script, if it has one only.
fn tool_options() -> Vec<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut scripts = arguments.iter().filter(|argument| argument.ends_with(".pkt"));
    let text = match (scripts.next(), scripts.next()) {
        (Some(path), None) => std::fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    };
    let lines = text.lines().filter(|line| line.starts_with("--"));
    lines.flat_map(str::split_whitespace).map(str::to_owned).chain(arguments.clone()).collect()
}

fn latest() -> std::sync::MutexGuard<'static, Option<Handle>> {
    LATEST.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a call on the stack behind `userdata`.
fn call(userdata: *mut c_void, call: Call) -> Answer {
    // SAFETY: the table's first field, which packetdrill hands back unchanged; it lives until `free`, the last call.
    let instance = unsafe { &*userdata.cast::<Instance>() };
    let handle = &instance.handle;
    let answer = if IS_SCRIPT.get() { handle.call_alone(call) } else { handle.call(call) };
    if answer.woken_at_us.is_some() {
        WOKEN_AT_US.set(answer.woken_at_us);
    }
    answer
}

/// Sets `errno` and returns -1. Nothing is to be done after it but to return.
fn fail(errno: c_int) -> c_int {
    // SAFETY: the address of this thread's errno, which is always valid.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The number of an answer whose other parts are done with.
fn finish(answer: Answer) -> isize {
    let Answer { result, errno, out, .. } = answer;
    // Before errno is set: freeing may change it.
    drop(out);
    // Cannot cut: isize has 64 bits where this is built.
    if result < 0 { fail(errno) as isize } else { result as isize }
}

fn finish_int(answer: Answer) -> c_int {
    // Cannot cut: results of these calls are ints.
    finish(answer) as c_int
}

// ---- Descriptors ----

extern "C" fn free(userdata: *mut c_void) {
    let answer = call(userdata, Call::Free);
    // SAFETY: from `Box::into_raw` in init, and packetdrill does not use it again.
    let instance = unsafe { Box::from_raw(userdata.cast::<Instance>()) };
    *latest() = None;
    let thread = instance.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if thread.is_some_and(|thread| thread.join().is_err()) {
        die("the stack panicked");
    }
    if let Out::Text(why) = answer.out {
        die(&why);
    }
}

extern "C" fn socket(userdata: *mut c_void, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    finish_int(call(userdata, Call::Socket(domain, kind, protocol)))
}

extern "C" fn bind(userdata: *mut c_void, fd: c_int, to: *const sockaddr, len: socklen_t) -> c_int {
    match addr::read(to, len) {
        Ok(Some(to)) => finish_int(call(userdata, Call::Bind(fd, to))),
        Ok(None) => fail(libc::EAFNOSUPPORT),
        Err(errno) => fail(errno),
    }
}

extern "C" fn listen(userdata: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    finish_int(call(userdata, Call::Listen(fd, backlog)))
}

extern "C" fn accept(userdata: *mut c_void, fd: c_int, to: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let answer = call(userdata, Call::Accept(fd));
    if let Out::Address(peer) = answer.out {
        addr::write(peer, to, len);
    }
    finish_int(answer)
}

extern "C" fn connect(userdata: *mut c_void, fd: c_int, to: *const sockaddr, len: socklen_t) -> c_int {
    match addr::read(to, len) {
        Ok(to) => finish_int(call(userdata, Call::Connect(fd, to))),
        Err(errno) => fail(errno),
    }
}

extern "C" fn close(userdata: *mut c_void, fd: c_int) -> c_int {
    finish_int(call(userdata, Call::Close(fd)))
}

extern "C" fn shutdown(userdata: *mut c_void, fd: c_int, how: c_int) -> c_int {
    finish_int(call(userdata, Call::Shutdown(fd, how)))
}

extern "C" fn fcntl(userdata: *mut c_void, fd: c_int, command: c_int, argument: c_long) -> c_int {
    // The caller passes an int or nothing: the upper half, or all of it, is whatever was there.
    finish_int(call(userdata, Call::Fcntl(fd, command, argument as c_int)))
}

extern "C" fn ioctl(userdata: *mut c_void, fd: c_int, request: libc::c_ulong, argument: *mut c_int) -> c_int {
    let takes_int = [libc::FIONBIO, libc::FIONREAD, libc::TIOCOUTQ].contains(&request);
    if !takes_int {
        return finish_int(call(userdata, Call::Ioctl(fd, request, 0)));
    }
    if argument.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: these requests take a pointer to an int, and it is not null.
    let answer = call(userdata, Call::Ioctl(fd, request, unsafe { *argument }));
    if let Out::Int(number) = answer.out {
        // SAFETY: as above.
        unsafe { *argument = number };
    }
    finish_int(answer)
}

extern "C" fn getsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if value.is_null() || len.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: not null, so the room in `value`, says the caller.
    let room = unsafe { *len } as usize;
    let answer = call(userdata, Call::GetOption(fd, level, name, room));
    if let Out::Bytes(bytes) = &answer.out {
        // SAFETY: neither is null, and `len` says how much room `value` has.
        unsafe {
            let count = bytes.len().min(*len as usize);
            bytes.as_ptr().copy_to_nonoverlapping(value.cast(), count);
            *len = count as socklen_t;
        }
    }
    finish_int(answer)
}

extern "C" fn setsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    match bytes::read(value.cast(), len as usize) {
        Some(bytes) => finish_int(call(userdata, Call::SetOption(fd, level, name, bytes))),
        None => fail(libc::EFAULT),
    }
}

extern "C" fn poll(
    userdata: *mut c_void,
    fds: *mut pollfd,
    count: libc::c_ulong,
    timeout_ms: c_int,
) -> c_int {
    if count == 0 {
        return finish_int(call(userdata, Call::Poll(Vec::new(), timeout_ms)));
    }
    if fds.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: an array of `count` entries, and not null.
    let fds = unsafe { std::slice::from_raw_parts_mut(fds, count as usize) };
    let asked = fds.iter().map(|entry| (entry.fd, entry.events)).collect();
    let answer = call(userdata, Call::Poll(asked, timeout_ms));
    // They come in preset to what the script expects: always write them.
    let revents: &[i16] = if let Out::Revents(revents) = &answer.out { revents } else { &[] };
    for (number, entry) in fds.iter_mut().enumerate() {
        entry.revents = revents.get(number).copied().unwrap_or(0);
    }
    finish_int(answer)
}

extern "C" fn epoll_create(userdata: *mut c_void, size: c_int) -> c_int {
    if size <= 0 { fail(libc::EINVAL) } else { finish_int(call(userdata, Call::EpollCreate)) }
}

extern "C" fn epoll_ctl(
    userdata: *mut c_void,
    epoll: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let (events, data) = if event.is_null() {
        if op != libc::EPOLL_CTL_DEL {
            return fail(libc::EFAULT);
        }
        (0, 0)
    } else {
        // SAFETY: not null, so an event, which may lie unaligned.
        let event = unsafe { event.read_unaligned() };
        (event.events, event.u64)
    };
    finish_int(call(userdata, Call::EpollCtl(epoll, op, fd, events, data)))
}

extern "C" fn epoll_wait(
    userdata: *mut c_void,
    epoll: c_int,
    into: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    if into.is_null() {
        return fail(libc::EFAULT);
    }
    let max = usize::try_from(max).unwrap_or(0);
    let answer = call(userdata, Call::EpollWait(epoll, max, timeout_ms));
    if let Out::Events(events) = &answer.out {
        for (number, (events, data)) in events.iter().enumerate() {
            let event = epoll_event { events: *events, u64: *data };
            // SAFETY: an array of `max` entries, no more than which are answered.
            unsafe { into.add(number).write_unaligned(event) };
        }
    }
    finish_int(answer)
}

extern "C" fn pipe(userdata: *mut c_void, fds: *mut c_int) -> c_int {
    if fds.is_null() {
        return fail(libc::EFAULT);
    }
    let answer = call(userdata, Call::Pipe);
    if let Out::Pair([reader, writer]) = answer.out {
        // SAFETY: an array of two ints, and not null.
        unsafe {
            *fds = reader;
            *fds.add(1) = writer;
        }
    }
    finish_int(answer)
}

extern "C" fn splice(
    userdata: *mut c_void,
    from: c_int,
    _from_offset: *mut i64,
    to: c_int,
    _to_offset: *mut i64,
    len: usize,
    flags: u32,
) -> c_int {
    // Offsets come as pointers to 0 where the script says NULL; sockets and pipes have none.
    finish_int(call(userdata, Call::Splice(from, to, len, flags)))
}

// ---- Packets and time ----

extern "C" fn netdev_send(userdata: *mut c_void, packet: *const u8, len: usize) -> c_int {
    match bytes::read(packet, len) {
        Some(packet) => finish_int(call(userdata, Call::NetSend(packet))),
        None => fail(libc::EFAULT),
    }
}

extern "C" fn netdev_receive(
    userdata: *mut c_void,
    into: *mut u8,
    len: *mut usize,
    time_us: *mut c_longlong,
) -> c_int {
    if into.is_null() || len.is_null() || time_us.is_null() {
        return fail(libc::EFAULT);
    }
    let answer = call(userdata, Call::NetReceive);
    match &answer.out {
        Out::Packet(packet, at_us) => {
            // SAFETY: none is null, and `len` says how much room there is; no packet is longer than the 64 KiB it is.
            unsafe {
                if packet.len() > *len {
                    return fail(libc::EMSGSIZE);
                }
                packet.as_ptr().copy_to_nonoverlapping(into, packet.len());
                *len = packet.len();
                // Cannot cut: a run is shorter than 292 000 years.
                *time_us = *at_us as c_longlong;
            }
            finish_int(answer)
        }
        Out::Text(why) => die(why),
        _ => finish_int(answer),
    }
}

extern "C" fn usleep(userdata: *mut c_void, micros: u32) -> c_int {
    finish_int(call(userdata, Call::Sleep(micros.into())))
}

extern "C" fn gettimeofday(userdata: *mut c_void, into: *mut timeval, _zone: *mut c_void) -> c_int {
    if into.is_null() {
        return fail(libc::EFAULT);
    }
    let us = WOKEN_AT_US.take().unwrap_or_else(|| match call(userdata, Call::Clock).out {
        Out::Time(us) => us,
        other => unreachable!("the clock answers with a time, not with {other:?}"),
    });
    // Cannot cut: a run is shorter than 292 000 years.
    let time = timeval { tv_sec: (us / 1_000_000) as i64, tv_usec: (us % 1_000_000) as i64 };
    // SAFETY: room for a timeval, and not null.
    unsafe { into.write(time) };
    0
}
