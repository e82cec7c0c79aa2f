//! Shell commands of scripts, answered without a shell: they would configure the host, which is not under test.
//!
//! What configures (sysctl, tc, ip and the scripts that call them) succeeds and has no effect: the stack's settings are
//! those of `--so_flags`. What asks (ss, nstat and whatever is not known) fails, so that a script that depends on the
//! answer fails there. Python, by which packetdrill runs code blocks, is run.

/// What is to be done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host's shell runs it.
    Run,
    /// It succeeds, without effect.
    Ignore,
    /// It fails.
    Refuse,
}

/// Programs that configure the kernel.
const CONFIGURE: &[&str] = &[
    "sysctl",
    "tc",
    "ip",
    "ifconfig",
    "ethtool",
    "route",
    "defaults.sh",
    "set_sysctls.py",
    "chmod",
    "sleep",
    "true",
];

/// Judges a command line: the strictest verdict of its parts.
pub fn judge(command: &str) -> Verdict {
    let mut verdict = Verdict::Ignore;
    let command = command.replace("\\\n", " ");
    for part in command.split([';', '\n', '|', '&']).map(str::trim).filter(|part| !part.is_empty()) {
        let mut words = part.split_whitespace().map(|word| word.trim_matches(['`', '"', '\'', '(', ')']));
        let is_assignment = |word: &&str| word.contains('=') && !word.starts_with('-');
        let program = words.by_ref().find(|word| !is_assignment(word) && *word != "sudo").unwrap_or("true");
        let name = program.rsplit('/').next().unwrap_or(program);
        if name.starts_with("python") {
            return Verdict::Run;
        }
        let writes_setting = name == "echo" && ["/proc/", "/sys/"].iter().any(|root| part.contains(root));
        // What set_sysctls.py leaves behind to put the host's settings back.
        let restores = name.starts_with("sysctl_restore");
        if !CONFIGURE.contains(&name) && !writes_setting && !restores && !part.starts_with('#') {
            verdict = Verdict::Refuse;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_configures_is_ignored_what_asks_is_refused_python_runs() {
        let cases = [
            ("../common/defaults.sh\nsysctl -q -w net.ipv4.tcp_ecn=0", Verdict::Ignore),
            ("./set_sysctls.py /proc/sys/net/ipv4/tcp_sack=0", Verdict::Ignore),
            ("tc qdisc replace dev tun0 root fq && ip route flush cache", Verdict::Ignore),
            ("echo 1 > /proc/sys/net/ipv4/tcp_sack", Verdict::Ignore),
            ("/tmp/sysctl_restore_${PPID}.sh", Verdict::Ignore),
            ("sysctl -q net.ipv4.tcp_sack=0; nstat -n", Verdict::Refuse),
            ("ss -ti | grep cwnd", Verdict::Refuse),
            ("sysctl -q \\\n  net.ipv4.tcp_fastopen=1 \\\n  net.ipv4.tcp_sack=1", Verdict::Ignore),
            ("python3 /tmp/code_1.py", Verdict::Run),
            ("PYTHONPATH=. /usr/bin/python2 x.py", Verdict::Run),
        ];
        for (command, verdict) in cases {
            assert_eq!(judge(command), verdict, "{command}");
        }
    }
}
