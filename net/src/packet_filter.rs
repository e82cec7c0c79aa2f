//! Which packets are worth looking at: the filter of packet traces and captures, and the careful reading of a frame that
//! it is tried on.
//!
//! A filter is a list of words (`tcp host 10.0.0.1 port 80 syn`, `remote 10.0.0.0/8 dropped`); a packet passes when all of
//! them hold. What is malformed is the very thing that someone looks for, so [`PacketView`] takes what a frame tells as far
//! as it goes: lengths and checksums that are wrong hide nothing that stands before them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use hoststack_wire::ethernet::{self, EtherType};
use hoststack_wire::{Flags, IpProtocol, Segment, SeqNum, arp, icmpv4, icmpv6, ipv6};

use crate::interface::{Cidr, CidrError};
use crate::pcap::{Direction, LinkType};

/// What a packet carries, as a filter tells packets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PacketKind {
    /// TCP over IP of either version.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of either version.
    Icmp,
    /// ARP.
    Arp,
}

impl PacketKind {
    const ALL: [PacketKind; 4] = [PacketKind::Tcp, PacketKind::Udp, PacketKind::Icmp, PacketKind::Arp];

    /// Its word in a filter.
    pub const fn name(self) -> &'static str {
        match self {
            PacketKind::Tcp => "tcp",
            PacketKind::Udp => "udp",
            PacketKind::Icmp => "icmp",
            PacketKind::Arp => "arp",
        }
    }
}

/// What a frame tells of itself, as far as it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketView {
    /// What it carries; `None`: something else, or it ends before that.
    pub kind: Option<PacketKind>,
    /// Source and destination address.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// TCP's control bits.
    pub flags: Flags,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: Option<u8>,
    /// Where the IP header or the ARP message begins in the frame.
    l3: usize,
    /// Where what the IP header is in front of begins and ends in the frame; of a fragment that is not the first, nothing.
    l4: (usize, usize),
}

impl PacketView {
    /// Reads a frame that begins as `link` says.
    pub fn parse(link: LinkType, frame: &[u8]) -> PacketView {
        let mut view = PacketView {
            kind: None,
            addresses: None,
            ports: None,
            flags: Flags::NONE,
            hop_limit: None,
            l3: 0,
            l4: (frame.len(), frame.len()),
        };
        match link {
            LinkType::RawIp => view.read_ip(frame),
            LinkType::Ethernet => {
                let Ok((header, body)) = ethernet::Header::parse(frame) else { return view };
                view.l3 = ethernet::Header::LEN;
                match header.ether_type {
                    EtherType::IPV4 | EtherType::IPV6 => view.read_ip(frame),
                    EtherType::ARP => {
                        view.kind = Some(PacketKind::Arp);
                        view.addresses = arp::Packet::parse(body)
                            .ok()
                            .map(|packet| (packet.sender_ip.into(), packet.target_ip.into()));
                    }
                    _ => {}
                }
            }
        }
        view
    }

    fn read_ip(&mut self, frame: &[u8]) {
        let packet = &frame[self.l3.min(frame.len())..];
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => self.read_v4(frame),
            Some(6) => self.read_v6(frame),
            _ => {}
        }
    }

    /// By fixed offsets (RFC 791 §3.1): a header whose checksum or length is wrong still has addresses.
    fn read_v4(&mut self, frame: &[u8]) {
        let Some(head) = frame.get(self.l3..).and_then(|packet| packet.first_chunk::<20>()) else { return };
        let [b0, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
        let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        self.addresses = Some((src.into(), dst.into()));
        self.hop_limit = Some(ttl);
        let fragment_offset = u16::from_be_bytes([f0 & 0x1f, f1]);
        let start = self.l3 + usize::from(b0 & 0xf).max(5) * 4;
        let end = self.l3 + usize::from(u16::from_be_bytes([l0, l1]));
        self.read_l4(frame, IpProtocol(protocol), fragment_offset == 0, start, end);
    }

    fn read_v6(&mut self, frame: &[u8]) {
        let Some(packet) = frame.get(self.l3..) else { return };
        let Some(head) = packet.first_chunk::<40>() else { return };
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&head[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        self.addresses = Some((address(8), address(24)));
        self.hop_limit = Some(head[7]);
        let end = self.l3 + 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        match ipv6::Header::parse(packet) {
            Ok((header, _)) => {
                let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
                let start = self.l3 + usize::from(header.payload_offset);
                self.read_l4(frame, header.next_header, is_first, start, end);
            }
            // The chain of extension headers, or the length, is wrong: what stands in the header is all there is.
            Err(_) => self.read_l4(frame, IpProtocol(head[6]), true, self.l3 + 40, end),
        }
    }

    fn read_l4(&mut self, frame: &[u8], protocol: IpProtocol, is_first: bool, start: usize, end: usize) {
        self.kind = match protocol {
            IpProtocol::TCP => Some(PacketKind::Tcp),
            IpProtocol::UDP => Some(PacketKind::Udp),
            IpProtocol::ICMPV4 | IpProtocol::ICMPV6 => Some(PacketKind::Icmp),
            _ => None,
        };
        if !is_first {
            return;
        }
        let start = start.min(frame.len());
        self.l4 = (start, end.clamp(start, frame.len()));
        let payload = &frame[start..];
        if let Some(&[s0, s1, d0, d1]) = payload.first_chunk::<4>()
            && matches!(self.kind, Some(PacketKind::Tcp | PacketKind::Udp))
        {
            self.ports = Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])));
        }
        if let Some(&[high, low]) = payload.get(12..).and_then(|rest| rest.first_chunk::<2>())
            && self.kind == Some(PacketKind::Tcp)
        {
            self.flags = Flags(u16::from_be_bytes([high, low]) & 0x1ff);
        }
    }

    /// What follows the IP header, as far as its length says and there is any.
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.l4.0..self.l4.1).unwrap_or_default()
    }

    /// The frame without its link header.
    pub fn ip_packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.l3..).unwrap_or_default()
    }

    /// The segment in `frame`, if it is a well-formed one.
    pub fn segment<'f>(&self, frame: &'f [u8]) -> Option<Segment<'f>> {
        (self.kind == Some(PacketKind::Tcp)).then(|| Segment::parse(self.payload(frame)).ok()).flatten()
    }

    /// The packet in a line: its ends, and what it says. A segment is in packetdrill's notation, relative to the initial
    /// sequence numbers of its sender and its receiver where these are known.
    pub fn summary(&self, frame: &[u8], isns: Option<(SeqNum, SeqNum)>) -> String {
        let Some((src, dst)) = self.addresses else {
            return match self.kind {
                Some(kind) => format!("{}, malformed", kind.name()),
                None => format!("no IP packet, {} bytes", frame.len()),
            };
        };
        match (self.kind, self.ports) {
            (Some(kind @ (PacketKind::Tcp | PacketKind::Udp)), Some((src_port, dst_port))) => {
                let (src, dst) = (end(src, src_port), end(dst, dst_port));
                let what = match self.segment(frame) {
                    Some(segment) => noted(&segment, isns),
                    None if kind == PacketKind::Tcp => "malformed".into(),
                    None => format!("{} bytes", self.payload(frame).len().saturating_sub(8)),
                };
                format!("{} {src} > {dst}: {what}", kind.name())
            }
            (Some(PacketKind::Icmp), _) => format!("icmp {src} > {dst}: {}", self.icmp(frame)),
            (Some(PacketKind::Arp), _) => {
                let is_reply = self.l3 + 8 <= frame.len() && frame[self.l3 + 6..self.l3 + 8] == [0, 2];
                let what = if is_reply { "here I am" } else { "who has it" };
                format!("arp {src} > {dst}: {what}")
            }
            (Some(kind), None) => format!("{} {src} > {dst}: a fragment, or cut short", kind.name()),
            (None, _) => format!("ip {src} > {dst}: {} bytes", self.payload(frame).len()),
        }
    }

    fn icmp(&self, frame: &[u8]) -> String {
        let payload = self.payload(frame);
        let about = |quoted: Option<hoststack_wire::Quoted>| match quoted {
            Some(quoted) => {
                let (src, dst) = (end(quoted.src, quoted.src_port), end(quoted.dst, quoted.dst_port));
                format!(" about {} {src} > {dst}", quoted.protocol)
            }
            None => String::new(),
        };
        let echo = |what: &str, id: u16, seq: u16| format!("echo {what} id {id} seq {seq}");
        match self.addresses {
            Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
                use icmpv6::Message as M;
                let Ok(message) = M::parse(src, dst, payload) else { return "malformed".into() };
                let what = match message {
                    M::Unreachable { code, .. } => format!("unreachable, code {code}"),
                    M::PacketTooBig { mtu, .. } => format!("packet too big, mtu {mtu}"),
                    M::TimeExceeded { .. } => "time exceeded".into(),
                    M::ParameterProblem { pointer, .. } => format!("parameter problem at {pointer}"),
                    M::EchoRequest(said) => echo("request", said.id, said.seq),
                    M::EchoReply(said) => echo("reply", said.id, said.seq),
                    M::RouterSolicitation { .. } => "router solicitation".into(),
                    M::RouterAdvertisement { .. } => "router advertisement".into(),
                    M::NeighbourSolicitation { target, .. } => {
                        format!("neighbour solicitation, who has {target}")
                    }
                    M::NeighbourAdvertisement { target, .. } => {
                        format!("neighbour advertisement of {target}")
                    }
                    M::Other { kind, code } => format!("type {kind}, code {code}"),
                };
                what + &about(message.quoted())
            }
            _ => {
                use icmpv4::Message as M;
                let Ok(message) = M::parse(payload) else { return "malformed".into() };
                let what = match message {
                    M::EchoRequest(said) => echo("request", said.id, said.seq),
                    M::EchoReply(said) => echo("reply", said.id, said.seq),
                    M::Unreachable { code: icmpv4::unreachable::FRAGMENTATION_NEEDED, mtu, .. } => {
                        format!("fragmentation needed, mtu {mtu}")
                    }
                    M::Unreachable { code, .. } => format!("unreachable, code {code}"),
                    M::TimeExceeded { .. } => "time exceeded".into(),
                    M::ParameterProblem { pointer, .. } => format!("parameter problem at {pointer}"),
                    M::Other { kind, code } => format!("type {kind}, code {code}"),
                };
                what + &about(message.quoted())
            }
        }
    }
}

fn end(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// A segment in packetdrill's notation.
pub fn noted(segment: &Segment<'_>, isns: Option<(SeqNum, SeqNum)>) -> String {
    // What is not known is counted from 0: numbers as on the wire. The SYN says its sender's.
    let (mut sender, receiver) = isns.unwrap_or((SeqNum(0), SeqNum(0)));
    if segment.header.flags.has(Flags::SYN) {
        sender = segment.header.seq;
    }
    segment.noted(sender, receiver).to_string()
}

/// A session as people name it, `worker:slot.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionName {
    /// The worker that owns it.
    pub worker: u8,
    /// Its slot there.
    pub slot: u32,
    /// Which of the slot's sessions.
    pub generation: u32,
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.worker, self.slot, self.generation)
    }
}

impl SessionName {
    fn parse(text: &str) -> Option<SessionName> {
        let (worker, session) = text.split_once(':')?;
        let (slot, generation) = session.split_once('.')?;
        Some(SessionName { worker: number(worker)?, slot: number(slot)?, generation: number(generation)? })
    }
}

/// Where a packet is seen.
#[derive(Clone, Copy, Debug)]
pub struct PacketPlace<'p> {
    /// Which way it goes.
    pub direction: Direction,
    /// The worker that has it.
    pub worker: u8,
    /// The name of the interface that it came in or leaves through.
    pub interface: &'p str,
}

/// Which packets pass: those for which all that is said here holds. The default says nothing, so that all do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketFilter {
    /// What it carries.
    pub kind: Option<PacketKind>,
    /// Either address.
    pub host: Option<Cidr>,
    /// The source address.
    pub src: Option<Cidr>,
    /// The destination address.
    pub dst: Option<Cidr>,
    /// Our address: the destination of what comes in, the source of what goes out.
    pub local: Option<Cidr>,
    /// The peer's address.
    pub remote: Option<Cidr>,
    /// Either port.
    pub port: Option<Ports>,
    /// Our port.
    pub local_port: Option<Ports>,
    /// The peer's port.
    pub remote_port: Option<Ports>,
    /// TCP's control bits that are all set.
    pub flags: Flags,
    /// The session that it belongs to.
    pub session: Option<SessionName>,
    /// The worker that has it.
    pub worker: Option<u8>,
    /// The interface's name.
    pub interface: Option<String>,
    /// Which way it goes.
    pub direction: Option<Direction>,
    /// It was dropped.
    pub is_dropped: bool,
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    fn parse(text: &str) -> Option<Ports> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Ports { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports { first, last } = *self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// The control bits that a filter has words for.
const FLAG_WORDS: [(&str, Flags); 6] = [
    ("syn", Flags::SYN),
    ("fin", Flags::FIN),
    ("rst", Flags::RST),
    ("psh", Flags::PSH),
    ("ack", Flags::ACK),
    ("urg", Flags::URG),
];

impl PacketFilter {
    /// The words, for completion and help: the word, what follows it (empty: nothing), what it means.
    pub const WORDS: &'static [(&'static str, &'static str, &'static str)] = &[
        ("tcp", "", "carries TCP"),
        ("udp", "", "carries UDP"),
        ("icmp", "", "carries ICMP, of either version"),
        ("arp", "", "is ARP"),
        ("host", "ADDRESS[/LEN]", "has this address, or one of this prefix, as source or destination"),
        ("src", "ADDRESS[/LEN]", "comes from there"),
        ("dst", "ADDRESS[/LEN]", "goes there"),
        ("local", "ADDRESS[/LEN]", "is from or to this address of ours"),
        ("remote", "ADDRESS[/LEN]", "is from or to this peer"),
        ("port", "PORT[-PORT]", "has such a port as source or destination"),
        ("local-port", "PORT[-PORT]", "has such a port at our end"),
        ("remote-port", "PORT[-PORT]", "has such a port at the peer's end"),
        ("syn", "", "has TCP's SYN set"),
        ("fin", "", "has TCP's FIN set"),
        ("rst", "", "has TCP's RST set"),
        ("psh", "", "has TCP's PSH set"),
        ("ack", "", "has TCP's ACK set"),
        ("urg", "", "has TCP's URG set"),
        ("session", "WORKER:SLOT.GENERATION", "belongs to this session"),
        ("worker", "NUMBER", "is this worker's"),
        ("interface", "NAME", "came in, or leaves, through this interface"),
        ("in", "", "was received"),
        ("out", "", "is sent"),
        ("dropped", "", "was dropped"),
        ("any", "", "every packet: says nothing"),
    ];

    /// Whether what the packet itself tells passes. The session and its fate are known later: see
    /// [`PacketFilter::accepts`].
    pub fn matches(&self, view: &PacketView, place: PacketPlace<'_>) -> bool {
        let PacketFilter {
            kind,
            host,
            src,
            dst,
            local,
            remote,
            port,
            local_port,
            remote_port,
            flags,
            session,
            worker,
            interface,
            direction,
            is_dropped: _,
        } = self;
        if kind.is_some_and(|kind| view.kind != Some(kind))
            || direction.is_some_and(|direction| direction != place.direction)
            || worker.is_some_and(|worker| worker != place.worker)
            || session.is_some_and(|session| session.worker != place.worker)
            || interface.as_ref().is_some_and(|interface| interface != place.interface)
            || !view.flags.has(*flags)
        {
            return false;
        }
        let has_address = |prefix: Option<Cidr>, is: &dyn Fn(Cidr, IpAddr, IpAddr) -> bool| match prefix {
            Some(prefix) => view.addresses.is_some_and(|(src, dst)| is(prefix, src, dst)),
            None => true,
        };
        let has_port = |ports: Option<Ports>, is: &dyn Fn(Ports, u16, u16) -> bool| match ports {
            Some(ports) => view.ports.is_some_and(|(src, dst)| is(ports, src, dst)),
            None => true,
        };
        let is_in = place.direction == Direction::Inbound;
        has_address(*host, &|prefix, src, dst| prefix.contains(src) || prefix.contains(dst))
            && has_address(*src, &|prefix, src, _| prefix.contains(src))
            && has_address(*dst, &|prefix, _, dst| prefix.contains(dst))
            && has_address(*local, &|prefix, src, dst| prefix.contains(if is_in { dst } else { src }))
            && has_address(*remote, &|prefix, src, dst| prefix.contains(if is_in { src } else { dst }))
            && has_port(*port, &|ports, src, dst| {
                ports.range().contains(&src) || ports.range().contains(&dst)
            })
            && has_port(*local_port, &|ports, src, dst| {
                ports.range().contains(if is_in { &dst } else { &src })
            })
            && has_port(*remote_port, &|ports, src, dst| {
                ports.range().contains(if is_in { &src } else { &dst })
            })
    }

    /// Whether what became of the packet passes.
    pub fn accepts(&self, session: Option<SessionName>, is_dropped: bool) -> bool {
        (!self.is_dropped || is_dropped) && self.session.is_none_or(|wanted| session == Some(wanted))
    }
}

impl fmt::Display for PacketFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut prefix = |word: &str, prefix: Option<Cidr>| {
            if let Some(prefix) = prefix {
                let is_host = prefix == Cidr::host(prefix.addr());
                words.push(if is_host {
                    format!("{word} {}", prefix.addr())
                } else {
                    format!("{word} {prefix}")
                });
            }
        };
        prefix("host", self.host);
        prefix("src", self.src);
        prefix("dst", self.dst);
        prefix("local", self.local);
        prefix("remote", self.remote);
        for (word, ports) in
            [("port", self.port), ("local-port", self.local_port), ("remote-port", self.remote_port)]
        {
            words.extend(ports.map(|ports| format!("{word} {ports}")));
        }
        let flags = FLAG_WORDS.iter().filter(|(_, flag)| self.flags.has(*flag));
        words.extend(flags.map(|(word, _)| (*word).to_owned()));
        words.extend(self.session.map(|session| format!("session {session}")));
        words.extend(self.worker.map(|worker| format!("worker {worker}")));
        words.extend(self.interface.as_ref().map(|name| format!("interface {name}")));
        words.extend(self.direction.map(|direction| {
            match direction {
                Direction::Inbound => "in",
                Direction::Outbound => "out",
            }
            .to_owned()
        }));
        if self.is_dropped {
            words.push("dropped".into());
        }
        if let Some(kind) = self.kind {
            words.insert(0, kind.name().into());
        }
        if words.is_empty() {
            words.push("any".into());
        }
        f.write_str(&words.join(" "))
    }
}

impl FromStr for PacketFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<PacketFilter, FilterError> {
        let mut filter = PacketFilter::default();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if word == "and" {
                continue;
            }
            let Some(&(word, wants, _)) = PacketFilter::WORDS.iter().find(|(name, ..)| *name == word) else {
                return Err(FilterError::Unknown(word.to_owned()));
            };
            let value = if wants.is_empty() {
                ""
            } else {
                words.next().ok_or(FilterError::NoValue { word, wants })?
            };
            filter.add(word, value).map_err(|wrong| match wrong {
                Wrong::Twice => FilterError::Twice(word),
                Wrong::Value => FilterError::BadValue { word, value: value.to_owned(), wants },
            })?;
        }
        Ok(filter)
    }
}

enum Wrong {
    /// The word, or one that excludes it, was there before.
    Twice,
    Value,
}

impl PacketFilter {
    fn add(&mut self, word: &'static str, value: &str) -> Result<(), Wrong> {
        fn set<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Wrong> {
            let value = value.ok_or(Wrong::Value)?;
            if slot.replace(value).is_some() { Err(Wrong::Twice) } else { Ok(()) }
        }
        match word {
            "host" => set(&mut self.host, prefix(value)),
            "src" => set(&mut self.src, prefix(value)),
            "dst" => set(&mut self.dst, prefix(value)),
            "local" => set(&mut self.local, prefix(value)),
            "remote" => set(&mut self.remote, prefix(value)),
            "port" => set(&mut self.port, Ports::parse(value)),
            "local-port" => set(&mut self.local_port, Ports::parse(value)),
            "remote-port" => set(&mut self.remote_port, Ports::parse(value)),
            "session" => set(&mut self.session, SessionName::parse(value)),
            "worker" => set(&mut self.worker, number(value)),
            "interface" => set(&mut self.interface, Some(value.to_owned())),
            "in" => set(&mut self.direction, Some(Direction::Inbound)),
            "out" => set(&mut self.direction, Some(Direction::Outbound)),
            "any" => Ok(()),
            "dropped" => {
                self.is_dropped = true;
                Ok(())
            }
            word => {
                if let Some((_, flag)) = FLAG_WORDS.iter().find(|(name, _)| *name == word) {
                    self.flags = self.flags.with(*flag);
                    return Ok(());
                }
                set(&mut self.kind, PacketKind::ALL.into_iter().find(|kind| kind.name() == word))
            }
        }
    }
}

/// An address, or a prefix.
fn prefix(text: &str) -> Option<Cidr> {
    match text.parse() {
        Ok(prefix) => Some(prefix),
        Err(CidrError::NoPrefix) => text.parse().ok().map(Cidr::host),
        Err(_) => None,
    }
}

/// A number of digits only: no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Why a text is no [`PacketFilter`]. Each says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// No such word.
    Unknown(String),
    /// The word needs a value and is the last.
    NoValue {
        /// The word.
        word: &'static str,
        /// What follows it.
        wants: &'static str,
    },
    /// What follows the word is not what it needs.
    BadValue {
        /// The word.
        word: &'static str,
        /// What followed it.
        value: String,
        /// What should.
        wants: &'static str,
    },
    /// The word, or one that excludes it, was there before.
    Twice(&'static str),
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterError::Unknown(word) => {
                let is_address = prefix(word).is_some();
                if is_address {
                    return write!(f, "an address needs a word before it: try `host {word}`");
                }
                write!(f, "no filter word `{word}`: use")?;
                for (index, (word, wants, _)) in PacketFilter::WORDS.iter().enumerate() {
                    let separator = if index == 0 { " " } else { ", " };
                    let space = if wants.is_empty() { "" } else { " " };
                    write!(f, "{separator}{word}{space}{wants}")?;
                }
                Ok(())
            }
            FilterError::NoValue { word, wants } => write!(f, "`{word}` needs {wants} behind it"),
            FilterError::BadValue { word, value, wants } => {
                write!(f, "`{word} {value}`: write `{word} {wants}`")?;
                match *word {
                    "session" => f.write_str(", as `show session` prints it, like 0:5.1"),
                    "port" | "local-port" | "remote-port" => f.write_str(", like 80 or 8000-8999"),
                    "worker" => f.write_str(", from 0"),
                    _ => f.write_str(", like 10.0.0.1 or 10.0.0.0/8"),
                }
            }
            FilterError::Twice(word) => {
                write!(f, "`{word}` says again, or otherwise, what was said before: say it once")
            }
        }
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests;
