//! The kernel's echo requests.

use std::net::IpAddr;

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait;

/// What `ping` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
}

/// Sends `count` echo requests to `to` from inside `namespace`, 50 ms apart, and waits 2 s for the last reply.
///
/// # Panics
/// When `ping` cannot run; unanswered requests are a result, no failure.
#[must_use]
pub fn ping(namespace: &Namespace, to: IpAddr, count: u32) -> Pinged {
    let (count, to) = (count.to_string(), to.to_string());
    let arguments = ["-n", "-q", "-i", "0.05", "-W", "2", "-c", &count, &to];
    let done = Process::spawn("ping", {
        let mut command = namespace.command("ping");
        command.args(arguments);
        command
    })
    .wait(wait::READY);
    parse(&done.stdout).unwrap_or_else(|| panic!("ping {to} ({})\n{}", done.status, done.transcript()))
}

/// Reads `3 packets transmitted, 3 received, 0% packet loss`.
fn parse(output: &str) -> Option<Pinged> {
    let line = output.lines().find(|line| line.contains("packets transmitted"))?;
    let number_before = |word: &str| {
        let words: Vec<_> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|other| *other == word)?;
        words[..at].iter().rev().find_map(|word| word.parse().ok())
    };
    Some(Pinged { sent: number_before("transmitted")?, received: number_before("received")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_read_with_and_without_errors() {
        let line = "3 packets transmitted, 2 received, 33.3333% packet loss, time 2050ms";
        assert_eq!(parse(line), Some(Pinged { sent: 3, received: 2 }));
        let line = "4 packets transmitted, 0 received, +4 errors, 100% packet loss, time 200ms";
        assert_eq!(parse(line), Some(Pinged { sent: 4, received: 0 }));
        assert_eq!(parse("ping: unknown host"), None);
    }
}
