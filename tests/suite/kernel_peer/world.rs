//! A namespace with a TAP whose other end `hoststack` holds, and what it is asked there.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hoststack_tests::{Finished, Namespace, Process, Queues, Tap, hoststack, wait};
use serde_json::Value;
use tempfile::TempDir;

/// Time for any one thing: generous, a busy machine with a build of assertions is slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Name of the TAP.
pub(crate) const DEVICE: &str = "hs0";

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The host `host` of the TAP's network.
    pub(crate) fn host(self, host: u16) -> IpAddr {
        let text = match self {
            Family::V4 => format!("10.9.0.{host}"),
            Family::V6 => format!("fd09::{host:x}"),
        };
        text.parse().expect("an address")
    }

    /// The kernel's address.
    pub(crate) fn kernel(self) -> IpAddr {
        self.host(1)
    }

    /// Our address.
    pub(crate) fn ours(self) -> IpAddr {
        self.host(2)
    }

    /// Our address with its network.
    pub(crate) fn our_cidr(self) -> &'static str {
        match self {
            Family::V4 => "10.9.0.2/24",
            Family::V6 => "fd09::2/64",
        }
    }
}

/// A test for each family: `family_tests! { name_of_a_fn_of_family }`.
macro_rules! family_tests {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        mod ipv4 {
            $($(#[$attribute])* #[test] fn $name() {
                hoststack_tests::skip_unless_net_admin!();
                super::$name(crate::world::Family::V4);
            })*
        }
        mod ipv6 {
            $($(#[$attribute])* #[test] fn $name() {
                hoststack_tests::skip_unless_net_admin!();
                super::$name(crate::world::Family::V6);
            })*
        }
    };
}
pub(crate) use family_tests;

/// `http://ADDRESS:PORT/PATH`.
pub(crate) fn url(at: SocketAddr, path: &str) -> String {
    format!("http://{at}/{path}")
}

/// A namespace with the kernel's end of a TAP up.
pub(crate) struct World {
    pub(crate) namespace: Namespace,
    dir: TempDir,
}

impl World {
    /// One with a TAP of one queue, and the kernel's addresses of both families on it.
    pub(crate) fn new() -> World {
        World::with_queues(Queues::Single)
    }

    /// One with a TAP of one or several queues.
    pub(crate) fn with_queues(queues: Queues) -> World {
        let namespace = Namespace::new();
        let _ =
            Tap::create(&namespace, DEVICE, queues).with_address("10.9.0.1/24").with_address("fd09::1/64");
        World::around(namespace)
    }

    /// One in a namespace whose TAP `hoststack` will make.
    pub(crate) fn without_device() -> World {
        World::around(Namespace::new())
    }

    fn around(namespace: Namespace) -> World {
        World { namespace, dir: TempDir::new().expect("a directory for files") }
    }

    /// A path in a directory that goes with the world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `hoststack` inside.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.namespace.spawn(hoststack(), arguments)
    }

    /// Starts `hoststack fetch --json` with our addresses of both families.
    pub(crate) fn fetch(&self, arguments: &[&str]) -> Process {
        let [v4, v6] = [Family::V4, Family::V6].map(Family::our_cidr);
        let mut all = vec!["fetch", "--device", "tap:hs0", "--address", v4, "--address", v6, "--json"];
        all.extend(arguments);
        self.start(&all)
    }

    /// Starts the client half of `hoststack echo --json` towards `peer`.
    pub(crate) fn echo_client(&self, family: Family, peer: SocketAddr, arguments: &[&str]) -> Process {
        let peer = peer.to_string();
        let mut all =
            vec!["echo", "--device", "tap:hs0", "--address", family.our_cidr(), "--peer", &peer, "--json"];
        all.extend(arguments);
        self.start(&all)
    }

    /// Starts `hoststack run` with the TAP, our addresses, `settings` for it, and `sections` besides; waits until ready.
    pub(crate) fn run(&self, workers: usize, settings: &str, sections: &str) -> Running {
        let socket = self.path("ctl.sock");
        let file = self.path("run.toml");
        let text = format!(
            "workers = {workers}\n\
             [[device]]\nname = \"tap:{DEVICE}\"\naddresses = [\"{}\", \"{}\"]\n{settings}\n\
             {sections}\n\
             [cli]\nsocket = \"{}\"\n",
            Family::V4.our_cidr(),
            Family::V6.our_cidr(),
            socket.display()
        );
        std::fs::write(&file, text).expect("room for the configuration");
        let mut process = self.start(&["run", "-c", file.to_str().expect("a path of text")]);
        process.wait_for_output("ready:", wait::READY);
        Running { process, socket }
    }
}

/// An echo server for [`World::run`], on port 7 of both families, as the app `echo`.
pub(crate) const ECHO: &str =
    "[[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"0.0.0.0:7\", \"[::]:7\"]\nnodelay = true\n";

/// Port of [`ECHO`].
pub(crate) const ECHO_PORT: u16 = 7;

/// A stack that runs until told to end.
pub(crate) struct Running {
    process: Process,
    socket: PathBuf,
}

impl Running {
    /// Starts `hoststack ctl --json` with a command.
    pub(crate) fn ctl(&self, command: &str) -> Process {
        start_ctl(&self.socket, command)
    }

    /// What it answers to a command.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> Value {
        self.ctl(command).wait(LIMIT).success().json()
    }

    /// Waits until `show session` counts `total` sessions.
    pub(crate) fn wait_for_sessions(&self, total: u64) {
        wait::until(&format!("{total} sessions"), LIMIT, || {
            (number(&self.ask("show session"), "/summary/total") == total).then_some(())
        });
    }

    /// Connections in TIME-WAIT on our side.
    pub(crate) fn time_wait(&self) -> u64 {
        number(&self.ask("show leaks"), "/time_wait")
    }

    /// Sends SIGTERM and waits for the end, which must be clean: every app detached, nothing leaked.
    #[track_caller]
    pub(crate) fn end(mut self) -> Finished {
        assert!(self.process.is_running(), "it ended by itself\n{}", self.process.transcript());
        self.process.terminate();
        let finished = self.process.wait(LIMIT).success();
        assert!(!self.socket.exists(), "the control socket is still there");
        finished
    }
}

fn start_ctl(socket: &Path, command: &str) -> Process {
    let mut process = std::process::Command::new(hoststack());
    process.args(["ctl", "--json", "--socket"]).arg(socket).args(command.split(' '));
    Process::spawn(&format!("ctl {command}"), process)
}

/// The number at a JSON pointer.
#[track_caller]
pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no number {pointer} in {value:#}"))
}

/// Asserts that the `leaks` of a report are the six that there are, all zero.
#[track_caller]
pub(crate) fn assert_no_leaks(report: &Value) {
    for name in
        ["sessions", "half_opens", "timers", "fifo_chunks", "flows", "messages", "parked", "listeners"]
    {
        assert_eq!(number(report, &format!("/leaks/{name}")), 0, "leaked {name}: {report:#}");
    }
}

/// The only entry of a fetch report without leaks.
#[track_caller]
pub(crate) fn only_fetch(report: &Value) -> Value {
    assert_no_leaks(report);
    match report["fetches"].as_array().map(Vec::as_slice) {
        Some([entry]) => entry.clone(),
        _ => panic!("not one fetch: {report:#}"),
    }
}

/// Seconds that a report says it took.
#[track_caller]
pub(crate) fn seconds(report: &Value) -> f64 {
    report["seconds"].as_f64().unwrap_or_else(|| panic!("no seconds in {report:#}"))
}
