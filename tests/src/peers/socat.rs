//! A byte pump between a file and a TCP connection of the kernel's.

use std::net::SocketAddr;
use std::path::Path;

use crate::netns::Namespace;
use crate::process::Process;

/// How `socat` is used here.
#[derive(Debug)]
pub struct Socat;

impl Socat {
    /// Connects to `to`, sends the file `input`, closes that direction at its end, and writes what comes back to
    /// `output` until the peer closes too. Ends when both directions have ended.
    #[must_use]
    pub fn exchange(namespace: &Namespace, to: SocketAddr, input: &Path, output: &Path) -> Process {
        let files = format!("OPEN:{},rdonly!!CREATE:{}", input.display(), output.display());
        // Once one direction has ended, the other one is given this many seconds of silence.
        namespace.spawn("socat", &["-b", "65536", "-t", "60", &files, &tcp("TCP", to)])
    }

    /// Listens on `at` and gives every connection its bytes back: the peer of our echo client. Through `cat`, because
    /// socat's own `PIPE` does not pass on that the client closed its direction.
    #[must_use]
    pub fn echo_server(namespace: &Namespace, at: SocketAddr) -> Process {
        let family = if at.is_ipv4() { "TCP4-LISTEN" } else { "TCP6-LISTEN" };
        let host = if at.is_ipv4() { at.ip().to_string() } else { format!("[{}]", at.ip()) };
        let listen = format!("{family}:{},bind={host},reuseaddr,fork,backlog=4096", at.port());
        namespace.spawn("socat", &["-b", "65536", "-t", "60", &listen, "EXEC:cat"])
    }
}

/// `TCP:10.0.0.1:80`, `TCP:[fd00::1]:80`.
fn tcp(kind: &str, to: SocketAddr) -> String {
    format!("{kind}:{to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_socat_reads_them() {
        assert_eq!(tcp("TCP", "10.9.0.2:7".parse().unwrap()), "TCP:10.9.0.2:7");
        assert_eq!(tcp("TCP", "[fd00::2]:7".parse().unwrap()), "TCP:[fd00::2]:7");
    }
}
