//! The PROXY protocol as stages: a header sent before the first byte of a connect, a header required before a listener's
//! connection is accepted. What a header looks like is `hoststack_wire::proxy`.

use std::fmt;
use std::net::SocketAddr;

use hoststack_transport::{Protocol, StageCause};
use hoststack_wire::proxy::{Addresses, Command, ProxyHeader, Reason, Transport, Unparsed, parse};
pub use hoststack_wire::proxy::{ParseOptions, Tlv, TlvBuffer, Tlvs, UnixAddress, Version, Versions};

use super::{Answer, Stage, StageIo, StagePlan, Want};

/// What the stages are called.
const SEND: &str = "PROXY header to send";
const RECEIVE: &str = "PROXY header to receive";

/// Whom a connection is said to be between, by the proxy that relays it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    command: Command,
    version: Version,
    /// The list as it came, checked.
    tlvs: Vec<u8>,
}

impl Declared {
    /// What a header says.
    pub fn of(header: &ProxyHeader<'_>) -> Declared {
        Declared { command: header.command, version: header.version, tlvs: header.tlvs.as_bytes().to_vec() }
    }

    /// Who opened the relayed connection and whom it called; `None` if the transport's own addresses are the ones that
    /// count (LOCAL, UNKNOWN, UNSPEC) or it runs over Unix sockets.
    pub fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self.command {
            Command::Proxy(addresses) => addresses.endpoints(),
            Command::Local => None,
        }
    }

    /// The ends of a relayed connection over Unix sockets: source and destination.
    pub fn unix(&self) -> Option<(&UnixAddress, &UnixAddress)> {
        match &self.command {
            Command::Proxy(Addresses::Unix { src, dst, .. }) => Some((src, dst)),
            _ => None,
        }
    }

    /// Whether the proxy speaks for itself, as for a health check.
    pub fn is_local(&self) -> bool {
        self.command == Command::Local
    }

    /// The version of the header that said it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What else it said, binary-safe.
    pub fn tlvs(&self) -> Tlvs<'_> {
        // Cannot fail: it was parsed before it was kept.
        Tlvs::parse(&self.tlvs).unwrap_or(Tlvs::EMPTY)
    }
}

impl fmt::Display for Declared {
    /// `source->destination`; `local` for a proxy that speaks for itself, `unknown` for one that does not say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |address: &UnixAddress| match address.name() {
            [] => "unix:".to_owned(),
            [0, name @ ..] => format!("unix:@{}", name.escape_ascii()),
            path => format!("unix:{}", path.escape_ascii()),
        };
        match (self.endpoints(), self.unix()) {
            (Some((source, destination)), _) => write!(f, "{source}->{destination}"),
            (None, Some((source, destination))) => write!(f, "{}->{}", name(source), name(destination)),
            (None, None) => f.write_str(if self.is_local() { "local" } else { "unknown" }),
        }
    }
}

/// Whom a header that is sent speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The connection itself: from its local address to its remote one. Over a transport whose ends have no address it is
    /// [`Origin::Local`]: the receiver takes what it sees.
    Own,
    /// A relayed connection: from its client to whom that called.
    Of(SocketAddr, SocketAddr),
    /// Nobody: the proxy's own connection (version 2 `LOCAL`, version 1 `UNKNOWN`).
    Local,
}

/// A plan that sends a header, in one piece, before everything else of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendProxy {
    /// The format.
    pub version: Version,
    /// Whom it speaks of.
    pub origin: Origin,
    /// What else it says; version 2 only. With a checksum if one is among them.
    pub tlvs: TlvBuffer,
}

impl SendProxy {
    /// A header about the connection itself, without TLVs.
    pub const fn new(version: Version) -> SendProxy {
        SendProxy { version, origin: Origin::Own, tlvs: TlvBuffer::new() }
    }

    fn header(&self, io: &StageIo<'_>) -> Result<Vec<u8>, &'static str> {
        let addresses =
            |src, dst| Addresses::of(Transport::Stream, src, dst).map_err(|_| "addresses of two families");
        let origin = match (&self.origin, io.flow().protocol) {
            (Origin::Own, Protocol::KernelUnix | Protocol::Local) => &Origin::Local,
            (origin, _) => origin,
        };
        let command = match *origin {
            Origin::Own => {
                let flow = io.flow();
                let endpoint = |e: &hoststack_transport::Endpoint| SocketAddr::new(e.addr, e.port);
                Command::Proxy(addresses(endpoint(&flow.local), endpoint(&flow.remote))?)
            }
            Origin::Of(src, dst) => Command::Proxy(addresses(src, dst)?),
            Origin::Local if self.version == Version::V1 => Command::Proxy(Addresses::Unspec),
            Origin::Local => Command::Local,
        };
        let header = ProxyHeader { version: self.version, command, tlvs: self.tlvs.as_tlvs() };
        header.to_vec().map_err(|_| "version 1 has no such addresses or TLVs, or it is too long")
    }
}

impl StagePlan for SendProxy {
    fn stage(&self) -> Box<dyn Stage> {
        Box::new(Sending { plan: self.clone() })
    }
}

#[derive(Debug)]
struct Sending {
    plan: SendProxy,
}

impl Stage for Sending {
    fn name(&self) -> &'static str {
        SEND
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        match self.plan.header(io) {
            // In one write: a receiver may look at one segment only.
            Ok(header) if header.len() > io.tx_capacity() => {
                Answer::Failed(StageCause::Unsayable("it is longer than the send fifo"))
            }
            Ok(header) if io.write_all(&header) => Answer::Done,
            Ok(_) => Answer::Wants(Want::Write),
            Err(why) => Answer::Failed(StageCause::Unsayable(why)),
        }
    }
}

/// A plan that requires a header before everything else of a connection, and takes no byte beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReceiveProxy {
    /// Versions and length that are taken.
    pub options: ParseOptions,
}

impl StagePlan for ReceiveProxy {
    fn stage(&self) -> Box<dyn Stage> {
        Box::new(Receiving { options: self.options, bytes: Vec::new() })
    }
}

#[derive(Debug)]
struct Receiving {
    options: ParseOptions,
    /// Scratch for what came so far.
    bytes: Vec<u8>,
}

impl Stage for Receiving {
    fn name(&self) -> &'static str {
        RECEIVE
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        self.bytes.resize(io.rx_len().min(self.options.len_max()), 0);
        io.copy(&mut self.bytes);
        match parse(&self.bytes, &self.options) {
            Ok(parsed) => {
                io.declare(Declared::of(&parsed.header));
                io.consume(parsed.len);
                Answer::Done
            }
            Err(Unparsed::NeedMore { .. }) => Answer::Wants(Want::Read),
            Err(Unparsed::Invalid(error)) => Answer::Failed(match error.reason {
                Reason::TooLong | Reason::LineTooLong => StageCause::TooLong,
                reason => StageCause::Malformed(reason.name()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_written_for_people() {
        let name = |text: &[u8]| UnixAddress::from_name(text).expect("a short name");
        let unix = |src: &[u8], dst: &[u8]| {
            Command::Proxy(Addresses::Unix { transport: Transport::Stream, src: name(src), dst: name(dst) })
        };
        let ip = |src: &str, dst: &str| {
            let endpoint = |text: &str| text.parse().expect("an endpoint");
            let addresses = Addresses::of(Transport::Stream, endpoint(src), endpoint(dst));
            Command::Proxy(addresses.expect("one family"))
        };
        for (command, text) in [
            (ip("192.0.2.1:5", "192.0.2.2:80"), "192.0.2.1:5->192.0.2.2:80"),
            (ip("[2001:db8::1]:5", "[2001:db8::2]:80"), "[2001:db8::1]:5->[2001:db8::2]:80"),
            (unix(b"", b"/run/a\x1b"), "unix:->unix:/run/a\\x1b"),
            (unix(b"\0a", b"/b"), "unix:@a->unix:/b"),
            (Command::Proxy(Addresses::Unspec), "unknown"),
            (Command::Local, "local"),
        ] {
            let declared = Declared { command, version: Version::V2, tlvs: Vec::new() };
            assert_eq!(declared.to_string(), text);
        }
    }
}
