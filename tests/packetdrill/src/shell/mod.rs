//! Shell commands of scripts, answered without a shell: they would configure and ask the host, which is not under test.
//!
//! `sysctl` and what writes under `/proc/sys` change the stack's settings ([`crate::settings`]); `ss`, `netstat`,
//! `sockstat`, `nstat` and what reads under `/proc/net` ask its connections; `tcpdrop` ends some. What configures the rest
//! of a kernel (`tc`, `ip`, modules) succeeds without effect. A file with shell commands is read and done the same way.
//! What is not known fails, so that a script which depends on it fails there. Python, by which packetdrill runs code
//! blocks, is left to the host.

mod words;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::settings::Settings;
use words::{Command, When};

/// A connection or a listener, as lists of sockets show it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The state, as Linux numbers it: 1 ESTABLISHED to 11 CLOSING.
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Bytes to be read, and bytes not acknowledged.
    pub(crate) queues: (usize, usize),
    /// What `ss -i` tells besides.
    pub(crate) details: String,
}

/// What commands work on.
pub(crate) trait World {
    fn settings(&mut self) -> &mut Settings;
    fn rows(&mut self) -> Vec<Row>;
    /// Counters by the names of `nstat`.
    fn counters(&mut self) -> Vec<(String, u64)>;
    /// Resets connections that the test picks; how many.
    fn drop_connections(&mut self, test: &dyn Fn(&Row) -> bool) -> usize;
    /// Forgets what earlier connections taught: fast open cookies.
    fn flush_metrics(&mut self);
}

/// The status of a command that is not there.
pub(crate) const NOT_FOUND: i32 = 127;
/// Files within files.
const DEPTH_MAX: u32 = 4;

const LINUX_STATES: [&str; 12] = [
    "UNCONN",
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "UNCONN",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
];
const BSD_STATES: [&str; 12] = [
    "CLOSED",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RCVD",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "CLOSED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// Succeed without effect: what they configure is not there.
const IGNORED: &[&str] = &[
    ":",
    "true",
    "tc",
    "ip",
    "ifconfig",
    "ethtool",
    "route",
    "chmod",
    "sleep",
    "modprobe",
    "kldload",
    "kldunload",
    "export",
    "set",
    "sync",
    "ulimit",
    "arp",
    "ndp",
    "exit",
    "killall",
    "dmesg",
    "logger",
    "conntrack",
];

/// Whether the host's shell is to run a command line: only for Python, and to make files of nothing.
pub fn is_for_host(command: &str) -> bool {
    let first = words::parse(command, &|_| String::new())
        .into_iter()
        .flat_map(|line| line.commands)
        .find_map(|command| command.words.into_iter().find(|word| !is_assignment(word)));
    first.is_some_and(|word| name_of(&word).starts_with("python"))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// What running something gave.
struct Ran {
    status: i32,
    output: String,
}

impl Ran {
    fn status(status: i32) -> Ran {
        Ran { status, output: String::new() }
    }

    fn output(output: String) -> Ran {
        Ran { status: 0, output }
    }
}

/// Runs a text of commands and gives the last status and what was written.
pub(crate) fn run(world: &mut dyn World, text: &str) -> (i32, String) {
    let ran = Shell { world, depth: 0 }.text(text);
    (ran.status, ran.output)
}

struct Shell<'a> {
    world: &'a mut dyn World,
    depth: u32,
}

impl Shell<'_> {
    fn text(&mut self, text: &str) -> Ran {
        let mut last = Ran::status(0);
        let mut output = String::new();
        let variable = |name: &str| match name {
            "PPID" => std::process::id().to_string(),
            name => std::env::var(name).unwrap_or_default(),
        };
        for pipeline in words::parse(text, &variable) {
            match pipeline.when {
                When::And if last.status != 0 => continue,
                When::Or if last.status == 0 => continue,
                _ => {}
            }
            let mut input = String::new();
            for command in &pipeline.commands {
                last = self.command(command, &input);
                input = std::mem::take(&mut last.output);
            }
            output.push_str(&input);
        }
        Ran { status: last.status, output }
    }

    fn command(&mut self, command: &Command, input: &str) -> Ran {
        let mut words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        while words.first().is_some_and(|word| *word == "sudo" || is_assignment(word)) {
            words.remove(0);
        }
        let is_negated = words.first() == Some(&"!");
        if is_negated {
            words.remove(0);
        }
        let Some((program, arguments)) = words.split_first() else { return Ran::status(0) };
        let mut ran = self.program(program, arguments, input);
        if is_negated {
            ran.status = i32::from(ran.status == 0);
        }
        if let Some(place) = &command.output {
            let output = std::mem::take(&mut ran.output);
            // What is under /sys (parameters of modules, devices) has no counterpart.
            if place.starts_with("/proc/sys/") {
                self.world.settings().set(place, output.trim());
            } else if place != "/dev/null" && !place.starts_with("/sys/") {
                // Nothing is written to the host.
                ran.status = 1;
            }
        }
        ran
    }

    fn program(&mut self, program: &str, arguments: &[&str], input: &str) -> Ran {
        match name_of(program) {
            "sysctl" => self.sysctl(arguments),
            "set_sysctls.py" => {
                for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
                    self.world.settings().save(name);
                    self.world.settings().set(name, value);
                }
                Ran::status(0)
            }
            // What set_sysctls.py leaves behind.
            name if name.starts_with("sysctl_restore") => {
                self.world.settings().restore();
                Ran::status(0)
            }
            "ip" | "tcp_metrics"
                if arguments.contains(&"tcp_metrics") || arguments.contains(&"tcpmetrics") =>
            {
                self.world.flush_metrics();
                Ran::status(0)
            }
            "echo" => Ran::output(format!("{}\n", arguments.join(" "))),
            "cat" => self.cat(arguments, input),
            "grep" | "egrep" | "fgrep" => self.grep(arguments, input),
            "wc" => Ran::output(format!("{}\n", input.lines().count())),
            "head" | "tail" | "sort" | "uniq" | "tr" => Ran::output(input.to_owned()),
            "false" => Ran::status(1),
            "test" | "[" => Ran::status(i32::from(!is_true(arguments))),
            "ss" => Ran::output(self.ss(arguments)),
            "netstat" => Ran::output(self.netstat(arguments)),
            "sockstat" => Ran::output(self.sockstat(arguments)),
            "nstat" => Ran::output(self.nstat()),
            "tcpdrop" => self.tcpdrop(arguments),
            // Files of a script's own, under /tmp.
            "rm" | "dd" | "touch" | "truncate" if is_in_tmp(arguments) => host(program, arguments),
            name if IGNORED.contains(&name) => Ran::status(0),
            _ => self.file(program),
        }
    }

    /// A file with shell commands.
    fn file(&mut self, program: &str) -> Ran {
        let text = if self.depth < DEPTH_MAX && Path::new(program).extension().is_some_and(|end| end == "sh")
        {
            std::fs::read_to_string(program).ok()
        } else {
            None
        };
        match text {
            Some(text) => {
                self.depth += 1;
                let ran = self.text(&text);
                self.depth -= 1;
                // The last command of a file of settings may be one that is nobody's here.
                Ran { status: 0, ..ran }
            }
            None if program.ends_with("defaults.sh") => Ran::status(0),
            None => {
                eprintln!("hoststack for packetdrill: this command is not answered: {program}");
                Ran::status(NOT_FOUND)
            }
        }
    }

    fn sysctl(&mut self, arguments: &[&str]) -> Ran {
        let (mut is_quiet, mut is_bare, mut is_missing) = (false, false, false);
        let mut output = String::new();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            if let Some(letters) = argument.strip_prefix('-') {
                is_quiet |= letters.contains('q');
                is_bare |= letters.contains('n');
                if letters.contains('a') {
                    for (name, value) in self.world.settings().iter() {
                        let _ = writeln!(output, "{name} = {value}");
                    }
                }
                continue;
            }
            let assigned = argument.split_once('=').map(|(name, value)| (name.trim(), value));
            match assigned {
                Some((name, value)) => {
                    // `name = value` in three words.
                    let value = if value.is_empty() { arguments.next().unwrap_or("") } else { value };
                    self.world.settings().set(name, value);
                    if name.ends_with("tcp_fastopen_cookies") {
                        // The size of a cache of some kernels: setting it empties it.
                        self.world.flush_metrics();
                    }
                    if !is_quiet {
                        let _ = writeln!(output, "{name} = {value}");
                    }
                }
                None => match self.world.settings().value(argument) {
                    Some(value) if is_bare => output.extend([value, "\n"]),
                    Some(value) => {
                        let _ = writeln!(output, "{argument} = {value}");
                    }
                    None => is_missing = true,
                },
            }
        }
        Ran { status: i32::from(is_missing), output }
    }

    /// The text of a file under /proc, if it is one that is answered.
    fn proc_file(&mut self, path: &str) -> Option<String> {
        if path.starts_with("/proc/sys/") {
            return self.world.settings().value(path).map(|value| format!("{value}\n"));
        }
        let is_v6 = match path {
            "/proc/net/tcp" => false,
            "/proc/net/tcp6" => true,
            _ => return None,
        };
        let mut text = "  sl  local_address rem_address   st tx_queue rx_queue\n".to_owned();
        let rows = self.world.rows();
        for (number, row) in rows.iter().filter(|row| row.local.is_ipv6() == is_v6).enumerate() {
            let (received, queued) = row.queues;
            let (local, remote) = (hex(row.local), hex(row.remote));
            let _ =
                writeln!(text, "{number:4}: {local} {remote} {:02X} {queued:08X}:{received:08X}", row.state);
        }
        Some(text)
    }

    fn cat(&mut self, paths: &[&str], input: &str) -> Ran {
        let mut output = if paths.is_empty() { input.to_owned() } else { String::new() };
        for path in paths {
            match self.proc_file(path) {
                Some(text) => output.push_str(&text),
                None => return Ran::status(1),
            }
        }
        Ran::output(output)
    }

    fn grep(&mut self, arguments: &[&str], input: &str) -> Ran {
        let flags: String = arguments.iter().filter_map(|argument| argument.strip_prefix('-')).collect();
        let mut rest = arguments.iter().filter(|argument| !argument.starts_with('-'));
        let Some(pattern) = rest.next() else { return Ran::status(2) };
        let mut text = String::new();
        let mut is_file = false;
        for path in rest {
            is_file = true;
            match self.proc_file(path) {
                Some(file) => text.push_str(&file),
                None => return Ran::status(2),
            }
        }
        let text = if is_file { &text } else { input };
        let is_found = |line: &str| {
            if flags.contains('i') {
                words::matches(&pattern.to_lowercase(), &line.to_lowercase())
            } else {
                words::matches(pattern, line)
            }
        };
        let lines: Vec<&str> = text.lines().filter(|line| is_found(line) != flags.contains('v')).collect();
        let output = match () {
            () if flags.contains('q') => String::new(),
            () if flags.contains('c') => format!("{}\n", lines.len()),
            () => lines.iter().map(|line| format!("{line}\n")).collect(),
        };
        Ran { status: i32::from(lines.is_empty()), output }
    }

    fn ss(&mut self, arguments: &[&str]) -> String {
        let letters: String = arguments.iter().filter_map(|argument| argument.strip_prefix('-')).collect();
        let mut text = "State Recv-Q Send-Q Local Address:Port Peer Address:Port\n".to_owned();
        for row in self.world.rows() {
            let is_listener = row.state == 10;
            if letters.contains('l') != is_listener && !letters.contains('a') {
                continue;
            }
            let state = LINUX_STATES[usize::from(row.state)];
            let _ = write!(text, "{state} {} {} {} {}", row.queues.0, row.queues.1, row.local, row.remote);
            let details = if letters.contains('i') { row.details.as_str() } else { "" };
            text.extend([" ", details, "\n"]);
        }
        text
    }

    fn netstat(&mut self, arguments: &[&str]) -> String {
        if arguments.contains(&"-s") {
            return self.nstat();
        }
        let mut text = "Proto Recv-Q Send-Q Local Address Foreign Address (state)\n".to_owned();
        for row in self.world.rows() {
            let protocol = if row.local.is_ipv6() { "tcp6" } else { "tcp4" };
            let (local, remote) = (bsd(row.local, '.'), bsd(row.remote, '.'));
            let state = BSD_STATES[usize::from(row.state)];
            let _ = writeln!(text, "{protocol} {} {} {local} {remote} {state}", row.queues.0, row.queues.1);
        }
        text
    }

    fn sockstat(&mut self, arguments: &[&str]) -> String {
        let letters: String = arguments.iter().filter_map(|argument| argument.strip_prefix('-')).collect();
        // -p ports, and the other options with a value.
        let ports: Vec<u16> = arguments
            .windows(2)
            .filter(|pair| pair[0].starts_with('-') && pair[0].ends_with('p'))
            .flat_map(|pair| pair[1].split(','))
            .filter_map(|port| port.parse().ok())
            .collect();
        let mut text = "USER COMMAND PID FD PROTO LOCAL ADDRESS FOREIGN ADDRESS".to_owned();
        text.push_str(if letters.contains('s') { " CONN STATE\n" } else { "\n" });
        for row in self.world.rows() {
            let is_listener = row.state == 10;
            let is_wanted = (letters.contains('l') && is_listener)
                || (letters.contains('c') && !is_listener)
                || (!letters.contains('l') && !letters.contains('c'));
            let is_port =
                ports.is_empty() || [row.local, row.remote].iter().any(|a| ports.contains(&a.port()));
            let is_version = match (letters.contains('4'), letters.contains('6')) {
                (true, false) => row.local.is_ipv4(),
                (false, true) => row.local.is_ipv6(),
                _ => true,
            };
            if !is_wanted || !is_port || !is_version {
                continue;
            }
            let protocol = if row.local.is_ipv6() { "tcp6" } else { "tcp4" };
            let remote = if is_listener { "*:*".to_owned() } else { bsd(row.remote, ':') };
            let _ = write!(text, "root packetdrill {} 3 {protocol} ", std::process::id());
            let _ = write!(text, "{} {remote}", bsd(row.local, ':'));
            if letters.contains('s') {
                text.extend([" ", BSD_STATES[usize::from(row.state)]]);
            }
            text.push('\n');
        }
        text
    }

    fn nstat(&mut self) -> String {
        let counters = self.world.counters();
        counters
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count} 0.0\n"))
            .collect()
    }

    /// `tcpdrop local port remote port`, `tcpdrop local:port remote:port`, `tcpdrop -a`, `tcpdrop -s STATE`.
    fn tcpdrop(&mut self, arguments: &[&str]) -> Ran {
        let state = arguments.windows(2).find(|pair| pair[0] == "-s").map(|pair| pair[1]);
        if arguments.contains(&"-l") {
            return Ran::status(0);
        }
        let count = if let Some(state) = state {
            self.world.drop_connections(&|row| BSD_STATES[usize::from(row.state)] == state)
        } else if arguments.contains(&"-a") {
            self.world.drop_connections(&|row| row.state != 10)
        } else {
            let Some((local, remote)) = pair(arguments) else { return Ran::status(1) };
            self.world.drop_connections(&|row| row.local == local && row.remote == remote)
        };
        Ran::status(i32::from(count == 0))
    }
}

/// Two addresses, in two words or in four.
fn pair(words: &[&str]) -> Option<(SocketAddr, SocketAddr)> {
    let joined = |addr: &str, port: &str| Some(SocketAddr::new(addr.parse().ok()?, port.parse().ok()?));
    match words {
        [local, remote] => Some((local.parse().ok()?, remote.parse().ok()?)),
        [local, local_port, remote, remote_port] => {
            Some((joined(local, local_port)?, joined(remote, remote_port)?))
        }
        _ => None,
    }
}

/// An address as FreeBSD's tools write it.
fn bsd(addr: SocketAddr, mark: char) -> String {
    let port = if addr.port() == 0 { "*".to_owned() } else { addr.port().to_string() };
    if addr.ip().is_unspecified() { format!("*{mark}{port}") } else { format!("{}{mark}{port}", addr.ip()) }
}

/// An address as `/proc/net/tcp` writes it: words as the machine has them, in hexadecimal.
fn hex(addr: SocketAddr) -> String {
    let octets = match addr {
        SocketAddr::V4(addr) => addr.ip().octets().to_vec(),
        SocketAddr::V6(addr) => addr.ip().octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = u32::from_ne_bytes(word.try_into().expect("cannot fail because these are four bytes"));
        format!("{word:08X}")
    });
    format!("{}:{:04X}", words.collect::<String>(), addr.port())
}

fn is_true(arguments: &[&str]) -> bool {
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    match arguments.strip_suffix(&["]"]).unwrap_or(arguments) {
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-e" | "-f" | "-r", path] => Path::new(path).exists(),
        [left, "=" | "==", right] => left == right,
        [left, "!=", right] => left != right,
        [left, "-eq", right] => number(left) == number(right),
        [left, "-ne", right] => number(left) != number(right),
        [left, "-gt", right] => number(left) > number(right),
        [left, "-ge", right] => number(left) >= number(right),
        [left, "-lt", right] => number(left) < number(right),
        [left, "-le", right] => number(left) <= number(right),
        [text] => !text.is_empty(),
        _ => false,
    }
}

/// Whether a command touches files under /tmp and /dev only.
fn is_in_tmp(arguments: &[&str]) -> bool {
    let mut paths = arguments
        .iter()
        .map(|argument| argument.split_once('=').map_or(*argument, |(_, value)| value))
        .filter(|argument| argument.contains('/'))
        .peekable();
    let is_any = paths.peek().is_some();
    is_any
        && paths.all(|path| {
            (path.starts_with("/tmp/") || path == "/dev/zero" || path == "/dev/null") && !path.contains("..")
        })
}

fn host(program: &str, arguments: &[&str]) -> Ran {
    let status = std::process::Command::new(program).args(arguments).env_remove("LD_PRELOAD").status();
    Ran::status(status.ok().and_then(|status| status.code()).unwrap_or(NOT_FOUND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Profile;

    struct Fake {
        settings: Settings,
        rows: Vec<Row>,
        flushed: usize,
    }

    impl World for Fake {
        fn settings(&mut self) -> &mut Settings {
            &mut self.settings
        }

        fn rows(&mut self) -> Vec<Row> {
            self.rows.clone()
        }

        fn counters(&mut self) -> Vec<(String, u64)> {
            vec![("TcpOutRsts".into(), 2), ("TcpExtTCPLossProbes".into(), 0)]
        }

        fn drop_connections(&mut self, test: &dyn Fn(&Row) -> bool) -> usize {
            let before = self.rows.len();
            self.rows.retain(|row| !test(row));
            before - self.rows.len()
        }

        fn flush_metrics(&mut self) {
            self.flushed += 1;
        }
    }

    fn fake() -> Fake {
        let row = |state, remote: &str| Row {
            state,
            local: "192.168.0.1:8080".parse().unwrap(),
            remote: remote.parse().unwrap(),
            queues: (3, 1000),
            details: "cubic cwnd:11".into(),
        };
        let rows = vec![row(10, "0.0.0.0:0"), row(1, "192.0.2.1:40000"), row(4, "192.0.2.1:40001")];
        Fake { settings: Settings::new(Profile::Linux), rows, flushed: 0 }
    }

    #[test]
    fn settings_are_set_by_all_their_names() {
        let mut world = fake();
        let text = "sysctl -q net.ipv4.tcp_a=1 net.ipv4.tcp_b=\"4096 $((2*1024)) 9\" > /dev/null 2>&1\n\
                    sysctl -w net.inet.tcp.c=3; echo 4 > /proc/sys/net/ipv4/tcp_d && false || sysctl e.f = 5\n\
                    ip tcp_metrics flush all > /dev/null 2>&1; tc qdisc add dev tun0 root pfifo";
        assert_eq!(run(&mut world, text).0, 0);
        let values = ["net.ipv4.tcp_a", "net.ipv4.tcp_b", "net.inet.tcp.c", "net.ipv4.tcp_d"]
            .map(|name| world.settings.value(name).map(str::to_owned).unwrap());
        assert_eq!(values, ["1", "4096 2048 9", "3", "4"]);
        assert_eq!(world.flushed, 1);
        assert_eq!(run(&mut world, "sysctl -n net.ipv4.tcp_d").1, "4\n");
        assert_eq!(run(&mut world, "sysctl net.ipv4.tcp_no").0, 1);
        let id = std::process::id();
        assert_eq!(run(&mut world, "../x/set_sysctls.py /proc/sys/net/ipv4/tcp_a=7").0, 0);
        assert_eq!(
            run(&mut world, &format!("cat /proc/sys/net/ipv4/tcp_a; /tmp/sysctl_restore_{id}.sh")).1,
            "7\n"
        );
        assert_eq!(run(&mut world, "cat /proc/sys/net/ipv4/tcp_a").1, "1\n");
    }

    #[test]
    fn connections_are_listed_and_dropped() {
        let mut world = fake();
        assert_eq!(run(&mut world, r#"grep " 0A " /proc/net/tcp /proc/net/tcp6 | grep ":1F90""#).0, 0);
        assert_eq!(run(&mut world, "ss -tin | grep -q 'ESTAB.*192.0.2.1:40000.*cwnd:1[01]'").0, 0);
        assert_ne!(run(&mut world, "ss -tn | grep cwnd").0, 0, "details are told when they are asked for");
        assert_eq!(run(&mut world, "sockstat -4 -s -p 40001 | grep -c FIN_WAIT_1").1, "1\n");
        assert_eq!(run(&mut world, "netstat -an | grep LISTEN | wc -l").1, "1\n");
        assert_eq!(run(&mut world, "nstat | grep TCPLossProbes").0, 1, "only what happened");
        assert_eq!(run(&mut world, "tcpdrop 192.168.0.1 8080 192.0.2.1 40000").0, 0);
        assert_eq!(run(&mut world, "tcpdrop 192.168.0.1 8080 192.0.2.1 40000").0, 1, "it is gone");
        assert_eq!(run(&mut world, "tcpdrop -a").0, 0);
        assert_eq!(world.rows.len(), 1, "the listener stays");
    }

    #[test]
    fn what_is_not_known_fails_and_python_is_the_hosts() {
        let mut world = fake();
        assert_eq!(run(&mut world, "iptables -L").0, NOT_FOUND);
        assert_ne!(run(&mut world, "echo 1 > /etc/passwd").0, 0, "nothing is written to the host");
        assert_eq!(run(&mut world, "rm -rf /tmp/../etc").0, NOT_FOUND);
        for (text, is_hosts) in [
            ("python3 /tmp/code_1.py", true),
            ("PYTHONPATH=. /usr/bin/python2 x.py", true),
            ("../common/defaults.sh\nsysctl -q -w net.ipv4.tcp_ecn=0", false),
            ("/tmp/python/x.sh", false),
        ] {
            assert_eq!(is_for_host(text), is_hosts, "{text}");
        }
    }
}
