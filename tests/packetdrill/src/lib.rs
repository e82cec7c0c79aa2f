//! The stack as a shared object that packetdrill (google's script-driven TCP tester) loads in place of a kernel.
//!
//! `packetdrill --so_filename=libhoststack_packetdrill.so --so_flags=... script.pkt` drives one stack on virtual time:
//! socket calls, raw IP packets and the clock all come through a table of C functions. `docs/TESTING.md` says how to
//! run it, [`flags::USAGE`] what can be set.
//!
//! Along the path of a call: [`ffi`] (the C border, the only unsafe part) turns it into a [`call::Call`] and sends it to
//! the thread of [`driver`], which owns stack and clock and asks `sockets` (descriptors, blocking, errno), which works
//! on sessions as a builtin app. A call that must wait leaves its caller asleep on the answer's channel; whatever
//! event satisfies it completes it there, by proxy, and names the moment. [`device`] carries the packets.

pub mod call;
pub mod device;
pub mod driver;
pub mod ffi;
pub mod flags;
pub mod settings;
pub mod shell;
mod sockets;
mod tcp_info;
mod watch;
