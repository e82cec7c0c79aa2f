//! Servers of the kernel's side that a test configures itself: HAProxy and nginx.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::sockets::{SocketState, count};
use crate::netns::Namespace;
use crate::process::Process;
use crate::wait;

/// Where Debian puts nginx's module for streams of bytes (package `libnginx-mod-stream`).
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Fails the test with what to install, unless `program` is there.
///
/// # Panics
/// When it is not.
pub fn require(program: &str, package: &str) {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(found, "{program} is not installed: apt-get install -y {package}");
}

/// A server with a directory of its own. Killed on drop.
#[derive(Debug)]
pub struct Daemon {
    // Before the directory: the server goes first.
    process: Process,
    _dir: TempDir,
}

impl Daemon {
    /// HAProxy in one process, its log on standard output, in TCP mode unless a section says otherwise. It has started
    /// when somebody listens on `port`.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn haproxy(namespace: &Namespace, sections: &str, port: u16) -> Daemon {
        require("haproxy", "haproxy");
        let text = format!(
            "global
    log stdout format raw local0
    maxconn 500
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 20s
    timeout client 60s
    timeout server 60s
    timeout check 20s
{sections}
"
        );
        Daemon::start(namespace, "haproxy", &text, &["-db", "-f"], port)
    }

    /// nginx in one process, with `sections` beside its `events`. It has started when somebody listens on `port`.
    ///
    /// # Panics
    /// When it, or its module for streams, is not installed, or it does not start.
    #[must_use]
    pub fn nginx(namespace: &Namespace, sections: &str, port: u16) -> Daemon {
        require("nginx", "nginx-light");
        assert!(
            Path::new(STREAM_MODULE).exists(),
            "nginx has no streams: apt-get install -y libnginx-mod-stream"
        );
        let text = format!(
            "load_module {STREAM_MODULE};
daemon off;
master_process off;
user root;
pid DIR/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
{sections}
"
        );
        Daemon::start(namespace, "nginx", &text, &["-e", "stderr", "-c"], port)
    }

    /// `DIR` in the configuration stands for the server's directory.
    fn start(namespace: &Namespace, program: &str, text: &str, options: &[&str], port: u16) -> Daemon {
        let dir = TempDir::new().expect("a directory for the server");
        let path = dir.path().to_str().expect("a path of text").to_owned();
        let file = format!("{path}/{program}.conf");
        fs::write(&file, text.replace("DIR", &path)).expect("its configuration");
        let mut process = namespace.spawn(program, &[options, &[&file]].concat());
        let ready = wait::poll(wait::READY, || {
            let is_up = count(namespace, port, SocketState::Listen) > 0;
            (is_up || !process.is_running()).then_some(is_up)
        });
        assert!(ready == Some(true), "{program} does not listen\n{}\n{text}", process.transcript());
        Daemon { process, _dir: dir }
    }

    /// The server's process, for what it said.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no-such-program is not installed: apt-get install -y its-package")]
    fn a_program_that_is_missing_says_what_to_install() {
        require("sh", "dash");
        require("no-such-program", "its-package");
    }
}
