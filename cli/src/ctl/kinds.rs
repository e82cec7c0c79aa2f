//! The kinds of arguments that commands take: one table, which parser, errors, completion and the page are made from.
//!
//! A pattern names a kind in capitals. A new kind is a line of [`KINDS`].

use std::net::IpAddr;
use std::time::Duration;

use hoststack::app::{ConnectId, SessionHandle, Uri};
use hoststack::net::{Cidr, PacketFilter};

use super::commands::options;
use crate::parse;

/// Most that a command may ask for, of anything that is counted.
pub(crate) const NUMBER_MAX: u64 = 1_000_000;

/// An argument that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number: a count, a worker, bytes.
    Number(u64),
    /// A session.
    Session(SessionHandle),
    /// A connect request.
    Connect(ConnectId),
    /// An address.
    Address(IpAddr),
    /// An address with a prefix length; of one address when none was given.
    Prefix(Cidr),
    /// A span of time.
    Span(Duration),
    /// A transport address.
    Uri(Uri),
    /// Anything else: a name, a file, a filter.
    Text(String),
}

/// Where completion finds candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere: there are too many, or any will do.
    None,
    /// Handles of sessions.
    Sessions,
    /// Connects under way.
    Connects,
    /// Names of applications.
    Apps,
    /// Numbers of workers.
    Workers,
    /// A few words.
    Words(&'static [&'static str]),
}

/// A kind of argument.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name in patterns.
    pub(crate) name: &'static str,
    /// What it is, for errors: "wants ...".
    pub(crate) meaning: &'static str,
    /// One that is right.
    pub(crate) example: &'static str,
    /// Reads one; `None`: it is none.
    pub(crate) parse: fn(&str) -> Option<Value>,
    /// Where completion finds candidates.
    pub(crate) source: Source,
}

/// Every kind.
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "N",
        meaning: "a number up to 1000000",
        example: "10",
        parse: |text| number(text, NUMBER_MAX),
        source: Source::None,
    },
    Kind {
        name: "WORKER",
        meaning: "a worker's number, from 0 to 255",
        example: "0",
        parse: |text| number(text, u64::from(u8::MAX)),
        source: Source::Workers,
    },
    Kind {
        name: "PORT",
        meaning: "a port from 0 to 65535",
        example: "80",
        parse: |text| number(text, u64::from(u16::MAX)),
        source: Source::None,
    },
    Kind {
        name: "DOMAIN",
        meaning: "a routing domain's number, from 0 to 65535",
        example: "0",
        parse: |text| number(text, u64::from(u16::MAX)),
        source: Source::None,
    },
    Kind {
        name: "BYTES",
        meaning: "a number of bytes like 4096, 64k or 1M",
        example: "64k",
        parse: |text| parse::byte_count(text).ok().map(Value::Number),
        source: Source::None,
    },
    Kind {
        name: "HANDLE",
        meaning: "a session's handle as `show session limit 10` prints it, `worker:slot.generation`, or its number",
        example: "0:17.1",
        parse: |text| session(text).map(Value::Session),
        source: Source::Sessions,
    },
    Kind {
        name: "CONNECT",
        meaning: "a connect as `show half-open` prints it, `origin#count`",
        example: "0#12",
        parse: |text| connect(text).map(Value::Connect),
        source: Source::Connects,
    },
    Kind {
        name: "NAME",
        meaning: "an application's name",
        example: "echo",
        parse: some,
        source: Source::Apps,
    },
    Kind {
        name: "ADDRESS",
        meaning: "an IPv4 or IPv6 address",
        example: "10.9.0.1",
        parse: |text| text.parse().ok().map(Value::Address),
        source: Source::None,
    },
    Kind {
        name: "PREFIX",
        meaning: "an address, or a network like 10.0.0.0/8 or 2001:db8::/32",
        example: "10.0.0.0/8",
        parse: |text| {
            let host = || text.parse().ok().map(Cidr::host);
            text.parse().ok().or_else(host).map(Value::Prefix)
        },
        source: Source::None,
    },
    Kind {
        name: "SPAN",
        meaning: "a span of time with its unit: us, ms, s, m, h or d",
        example: "10s",
        parse: |text| parse::duration(text).ok().map(Value::Span),
        source: Source::None,
    },
    Kind {
        name: "INTERVAL",
        meaning: "a number of seconds above 0, or a span of time like 500ms",
        example: "2",
        parse: |text| {
            let span = parse::duration(text).or_else(|_| parse::duration(&format!("{text}s"))).ok();
            span.filter(|span| !span.is_zero()).map(Value::Span)
        },
        source: Source::None,
    },
    Kind {
        name: "URI",
        meaning: "an address with its transport, like tcp://10.9.0.1:80, kernel+unix:///run/app.sock or tls+tcp://...",
        example: "tcp://10.9.0.1:80",
        parse: |text| text.parse().ok().map(Value::Uri),
        source: Source::Words(&["tcp://", "kernel+tcp://", "kernel+unix://", "local://", "tls+tcp://"]),
    },
    Kind {
        name: "TRANSPORT",
        meaning: "a transport by its scheme: tcp, kernel+tcp, kernel+unix or local",
        example: "tcp",
        parse: |text| TRANSPORTS.contains(&text).then(|| Value::Text(text.to_owned())),
        source: Source::Words(TRANSPORTS),
    },
    Kind {
        name: "STATE",
        meaning: "a session's state: unannounced, open, peer-closed, half-closed, closing or ended",
        example: "open",
        parse: |text| STATES.contains(&text).then(|| Value::Text(text.to_owned())),
        source: Source::Words(STATES),
    },
    Kind {
        name: "TCP-STATE",
        meaning: "a state of TCP that sessions or half-opens are in: SYN-SENT, SYN-RECEIVED, ESTABLISHED, FIN-WAIT-1, \
                  FIN-WAIT-2, CLOSE-WAIT, CLOSING or LAST-ACK; `show listener` has those in LISTEN, and `show session` \
                  counts those in TIME-WAIT",
        example: "ESTABLISHED",
        parse: |text| {
            let named = TCP_STATES.iter().find(|name| name.eq_ignore_ascii_case(text));
            named.map(|name| Value::Text((*name).to_owned()))
        },
        source: Source::Words(TCP_STATES),
    },
    Kind {
        name: "FILE",
        meaning: "a file's path",
        example: "/tmp/hs.pcapng",
        parse: some,
        source: Source::None,
    },
    Kind {
        name: "PACKETS",
        meaning: "words that choose packets, each of which must hold",
        example: "tcp port 80",
        parse: some,
        source: Source::Words(&PACKET_WORDS),
    },
    Kind {
        name: "OPTION",
        meaning: "the name of an option that `show option` lists",
        example: "time-wait",
        parse: |text| options::NAMES.contains(&text).then(|| Value::Text(text.to_owned())),
        source: Source::Words(options::NAMES),
    },
    Kind {
        name: "VALUE",
        meaning: "an option's value: on, off, a number, a span of time or a word",
        example: "10s",
        parse: some,
        source: Source::None,
    },
    Kind {
        name: "LEVELS",
        meaning: "what to log: a level (off, error, warn, info, debug, trace), or levels of targets, with commas between",
        example: "info,hoststack_tcp=debug",
        parse: some,
        source: Source::Words(&["off", "error", "warn", "info", "debug", "trace"]),
    },
    Kind { name: "WORD", meaning: "a word", example: "example.org", parse: some, source: Source::None },
    Kind {
        name: "COMMAND",
        meaning: "a command, or the beginning of one",
        example: "show app",
        parse: some,
        source: Source::None,
    },
];

/// The words that choose packets.
const PACKET_WORDS: [&str; PacketFilter::WORDS.len()] = {
    let mut words = [""; PacketFilter::WORDS.len()];
    let mut index = 0;
    while index < words.len() {
        words[index] = PacketFilter::WORDS[index].0;
        index += 1;
    }
    words
};

const STATES: &[&str] = &["unannounced", "open", "peer-closed", "half-closed", "closing", "ended"];

/// Those of RFC 9293 that a session or a half-open can be in.
const TCP_STATES: &[&str] = &[
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
];

const TRANSPORTS: &[&str] = &["tcp", "kernel+tcp", "kernel+unix", "local"];

/// The kind of that name.
pub(crate) fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn some(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::Text(text.to_owned()))
}

fn number(text: &str, max: u64) -> Option<Value> {
    digits(text).filter(|number| *number <= max).map(Value::Number)
}

/// Decimal digits and nothing else: no sign, no blank.
fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A session's handle, `worker:slot.generation` or its number.
fn session(text: &str) -> Option<SessionHandle> {
    let Some((worker, rest)) = text.split_once(':') else {
        return digits(text).map(SessionHandle::from_u64);
    };
    let (slot, generation) = rest.split_once('.')?;
    let key = |text| digits(text).filter(|number: &u64| *number < 1 << 28);
    let worker: u8 = digits(worker)?;
    Some(SessionHandle::from_u64(u64::from(worker) << 56 | key(slot)? << 28 | key(generation)?))
}

/// A connect, `origin#count` or its number.
fn connect(text: &str) -> Option<ConnectId> {
    match text.split_once('#') {
        Some((origin, count)) => {
            let count = digits(count).filter(|count: &u64| *count < 1 << 48)?;
            Some(ConnectId::new(digits(origin)?, count))
        }
        None => digits(text).map(ConnectId::from_u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::commands::commands;
    use crate::ctl::pattern::GROUPS;

    fn reads(name: &str, text: &str) -> Option<Value> {
        (kind(name).expect(name).parse)(text)
    }

    #[test]
    fn every_kind_reads_its_example_and_has_a_name_of_its_own() {
        for (index, one) in KINDS.iter().enumerate() {
            assert!((one.parse)(one.example).is_some(), "{}", one.name);
            assert!((one.parse)("").is_none(), "{} reads nothing", one.name);
            assert!(KINDS[..index].iter().all(|other| other.name != one.name), "{} twice", one.name);
        }
    }

    #[test]
    fn every_kind_is_an_argument_of_a_command() {
        let groups = GROUPS.iter().flat_map(|group| group.options.iter().map(|(option, _)| *option));
        let patterns: Vec<&str> = commands().map(|spec| spec.pattern).chain(groups).collect();
        for one in KINDS {
            let is_named = |pattern: &&str| {
                pattern.split(|c: char| !c.is_ascii_uppercase() && c != '-').any(|name| name == one.name)
            };
            assert!(patterns.iter().any(is_named), "{}", one.name);
        }
    }

    #[test]
    fn handles_come_back_as_they_are_printed() {
        let handle = SessionHandle::from_u64(3 << 56 | 17 << 28 | 268_435_455);
        assert_eq!(handle.to_string(), "3:17.268435455");
        assert_eq!(reads("HANDLE", &handle.to_string()), Some(Value::Session(handle)));
        assert_eq!(reads("HANDLE", &handle.as_u64().to_string()), Some(Value::Session(handle)));
        for bad in
            ["x", "1:2", "256:0.1", "0:268435456.1", "0:1.268435456", "0:1.", "-1:0.0", "0:+1.1", "0:1.1 "]
        {
            assert_eq!(reads("HANDLE", bad), None, "{bad}");
        }
        let id = ConnectId::new(257, 12);
        assert_eq!(reads("CONNECT", &id.to_string()), Some(Value::Connect(id)));
        for bad in ["#", "1#", "#1", "65536#1", "1#281474976710656", "1#-1"] {
            assert_eq!(reads("CONNECT", bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_have_their_limits_and_a_prefix_may_be_one_address() {
        assert_eq!(reads("N", "1000000"), Some(Value::Number(1_000_000)));
        assert_eq!(reads("N", "1000001"), None);
        assert_eq!(reads("WORKER", "256"), None);
        assert_eq!(reads("PORT", "65536"), None);
        assert_eq!(reads("N", "-1"), None);
        assert_eq!(reads("BYTES", "64k"), Some(Value::Number(65536)));
        let one = "10.1.2.3".parse().map(Cidr::host).unwrap();
        assert_eq!(reads("PREFIX", "10.1.2.3"), Some(Value::Prefix(one)));
        assert_eq!(reads("PREFIX", "10.0.0.0/33"), None);
        assert_eq!(reads("INTERVAL", "0.5"), Some(Value::Span(Duration::from_millis(500))));
        assert_eq!(reads("INTERVAL", "20ms"), Some(Value::Span(Duration::from_millis(20))));
        assert_eq!(reads("INTERVAL", "0"), None);
    }

    #[test]
    fn states_of_tcp_are_those_of_the_engine_in_any_case() {
        for name in TCP_STATES {
            let text = Some(Value::Text((*name).to_owned()));
            assert_eq!(
                (reads("TCP-STATE", name), reads("TCP-STATE", &name.to_lowercase())),
                (text.clone(), text)
            );
            assert!(hoststack::inspect::TcpState::ALL.iter().any(|state| state.name() == *name), "{name}");
        }
        for bad in ["LISTEN", "TIME-WAIT", "CLOSED", "ESTAB", "FIN-WAIT"] {
            assert_eq!(reads("TCP-STATE", bad), None, "{bad}");
        }
    }
}
