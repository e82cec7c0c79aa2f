//! Network namespaces: a kernel of one's own for each test.
//!
//! The kernel's TCP in a namespace is the peer; `hoststack` runs in the same namespace and holds the other end of a
//! TAP device there. Namespaces are made by `ip netns`, named after this process, and removed on drop; those that a
//! killed run left behind are swept away by the next one.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{self, Process};

/// What a test prints, to the letter, when it cannot run; `.ci/run` fails when it sees this.
pub const SKIPPED: &str = "skipped: needs CAP_NET_ADMIN";

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` (which `setns` and `ip netns` need), see `capabilities(7)`.
const NEEDED: u64 = 1 << 12 | 1 << 21;

/// Returns from the test, saying so, unless it may make namespaces and TAP devices.
#[macro_export]
macro_rules! skip_unless_net_admin {
    () => {
        if !$crate::netns::is_net_admin() {
            $crate::netns::say_skipped();
            return;
        }
    };
}

/// Whether this process may make namespaces and TAP devices.
#[must_use]
pub fn is_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_needed(&status) && fs::exists("/dev/net/tun").unwrap_or(false)
}

fn has_needed(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & NEEDED == NEEDED)
}

/// Writes [`SKIPPED`] past the test runner's capture, so that it is seen although the test passes.
pub fn say_skipped() {
    // A closed standard error has no reader who could miss it.
    // One write, so that tests side by side do not mix their lines.
    let _ = std::io::stderr().write_all(format!("{SKIPPED}\n").as_bytes());
}

/// A network namespace with the loopback device up and duplicate address detection off. Removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// When `ip` is missing or may not.
    #[expect(clippy::new_without_default, reason = "it changes the machine: that should be said at the call")]
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        // An address must be usable at once, not a second later.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0");
        }
        namespace
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside, with no standard input.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a short command inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.command(program);
        command.args(arguments);
        process::run(&format!("{program} {}", arguments.join(" ")), command)
    }

    /// Starts a command inside.
    #[must_use]
    pub fn spawn(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Process {
        let label = format!("{} {}", program.as_ref().display(), arguments.join(" "));
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(&label, command)
    }

    /// Runs `work` on a thread that lives inside: sockets that it makes stay inside wherever they are used later.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let file =
                File::open(format!("/run/netns/{}", self.name)).expect("`ip netns add` made this file");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("may enter");
            work()
        };
        // A thread of its own, because a test runner's thread could not come back if `work` panicked.
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(cause) => std::panic::resume_unwind(cause),
        })
    }

    /// Sets `/proc/sys/net/KEY`.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .unwrap_or_else(|error| panic!("sysctl {key}={value}: {error}"));
        });
    }

    /// Reads `/proc/sys/net/KEY`.
    ///
    /// # Panics
    /// When there is no such key.
    #[must_use]
    pub fn read_sysctl(&self, key: &str) -> String {
        self.enter(|| {
            let text = fs::read_to_string(format!("/proc/sys/net/{key}"));
            text.unwrap_or_else(|error| panic!("sysctl {key}: {error}")).trim().to_owned()
        })
    }

    /// Makes the kernel a router that drops what goes to `prefix` without a word: no ICMP error, no RST.
    pub fn black_hole(&self, prefix: &str) {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        self.sysctl("ipv4/ip_forward", "1");
        self.sysctl("ipv6/conf/all/forwarding", "1");
        self.run("ip", &[family, "route", "add", "blackhole", prefix]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What it leaves behind on failure is swept by the next run.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// First part of every name: the rest is process id and number.
const PREFIX: &str = "hoststack-";

/// Removes the namespaces of test processes that are gone. Once per process.
fn sweep() {
    static SWEPT: Mutex<bool> = Mutex::new(false);
    let mut has_swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(&mut *has_swept, true) {
        return;
    }
    for name in ip(&["netns", "list"]).lines().filter_map(|line| line.split_whitespace().next()) {
        if owner(name).is_some_and(|id| !process::exists(id)) {
            // Another run may sweep at the same time: its success is ours.
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

/// Process that made the namespace `name`, if one of us did.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn ip(arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null());
    process::run(&format!("ip {}", arguments.join(" ")), command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_capabilities_are_needed() {
        assert!(has_needed("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"));
        assert!(has_needed("CapEff:\t0000000000201000\n"));
        assert!(!has_needed("CapEff:\t0000000000001000\n"));
        assert!(!has_needed("CapEff:\t0000000000200000\n"));
        assert!(!has_needed("CapBnd:\t000001ffffffffff\n"));
    }

    #[test]
    fn owner_is_read_from_our_names_only() {
        assert_eq!(owner("hoststack-12-0"), Some(12));
        assert_eq!(owner("hoststack-x-0"), None);
        assert_eq!(owner("other-12-0"), None);
    }

    #[test]
    fn the_words_of_a_skip_are_fixed() {
        assert_eq!(SKIPPED, "skipped: needs CAP_NET_ADMIN");
    }
}
