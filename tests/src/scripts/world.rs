//! A stack with one app, and the peer at the other end of its wire.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::channel;

use hoststack::app::{
    AppId, AppWorkerId, AttachOptions, Context, DetachPolicy, Duration, Instant, SessionHandle, WorkerId,
};
use hoststack::net::{Cidr, RawIpEnd};
use hoststack::{Answer, InterfaceSpec, Query, SingleThreaded, Stack, StackConfig};
use hoststack_wire::{
    Flags, IpProtocol, NotedSegment, Segment, SegmentHeader, SeqNum, Timestamps, icmpv4, icmpv6, ipv4, ipv6,
    tcp,
};

use super::app::{Call, Event, ScriptApp};
use super::grammar::{Ecn, Icmp, IcmpKind};
use super::settings::Setup;

/// The clock at the start: not zero, so that "before" exists.
const EPOCH_US: u64 = 1_000_000;
/// After the script the clock runs this far for what ends by itself (TIME-WAIT).
const END_US: u64 = 130_000_000;
const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Where the app listens, and where it connects to.
pub const SERVICE_PORT: u16 = 80;
/// The port that the peer connects from.
pub const CLIENT_PORT: u16 = 40_000;

/// Byte number `offset` of every stream, either way.
pub fn byte_at(offset: u64) -> u8 {
    // A prime, so that a shifted or repeated piece shows.
    (offset % 251) as u8
}

/// Bytes from `offset` on.
pub fn bytes_at(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(byte_at).collect()
}

/// A segment that the stack sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When, in microseconds of the script.
    pub at_us: u64,
    /// What, in relative numbers.
    pub noted: NotedSegment,
    /// The mark in its IP header.
    pub ecn: Ecn,
}

/// The agreed timestamps of the connection.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// The first value that the stack sent; values in scripts are relative to it.
    stack_base: Option<u32>,
    /// The last value that the stack sent.
    stack_last: u32,
    /// The peer's value in its SYN, and when that was sent.
    peer_base: Option<(u32, u64)>,
}

/// See the module.
pub struct World {
    stack: SingleThreaded,
    app: AppId,
    app_worker: AppWorkerId,
    /// The app's notes.
    pub notes: ScriptApp,
    line: RawIpEnd,
    setup: Setup,
    /// The stack's port, and the peer's.
    pub ports: (u16, u16),
    stack_isn: SeqNum,
    peer_isn: SeqNum,
    clock: Clock,
    /// Segments that no statement has taken.
    pub sent: VecDeque<Sent>,
    /// What a packet of the stack was found to be wrong with.
    pub wrong: Option<String>,
    /// What happened so far.
    pub log: Vec<String>,
    logged_events: usize,
}

impl World {
    /// # Errors
    /// Why there can be none, in words.
    pub fn new(setup: &Setup) -> Result<World, String> {
        let line = RawIpEnd::default();
        let cidr = |text: String| text.parse::<Cidr>().map_err(|error| format!("{text}: {error}"));
        let (local, peer) = if setup.is_v6 {
            (format!("{LOCAL_V6}/64"), format!("{PEER_V6}/128"))
        } else {
            (format!("{LOCAL_V4}/24"), format!("{PEER_V4}/32"))
        };
        let interface = InterfaceSpec::new(line.device("script", setup.mtu))
            .address(cidr(local)?)
            .route(cidr(peer)?, None);
        let config = StackConfig {
            workers: 1,
            tcp: setup.tcp,
            sessions: setup.sessions,
            pin: false,
            seed: Some(setup.seed),
            ..StackConfig::default()
        };
        let builder = Stack::builder().config(config).interface(interface);
        let mut stack = Stack::single_threaded(builder).map_err(|error| error.to_string())?;
        stack.use_virtual_time_from(Instant::from_micros(EPOCH_US));
        let notes = ScriptApp::default();
        let attached =
            stack.attach(notes.clone(), AttachOptions::named("script")).map_err(|error| error.to_string())?;
        Ok(World {
            stack,
            app: attached.app,
            app_worker: attached.app_workers[0],
            notes,
            line,
            setup: setup.clone(),
            ports: (SERVICE_PORT, CLIENT_PORT),
            stack_isn: SeqNum(0),
            peer_isn: SeqNum(setup.peer_isn),
            clock: Clock::default(),
            sent: VecDeque::new(),
            wrong: None,
            log: Vec::new(),
            logged_events: 0,
        })
    }

    // ---- Time ----

    /// Microseconds since the script began.
    pub fn now_us(&self) -> u64 {
        self.stack.now().as_micros() - EPOCH_US
    }

    /// Lets happen what can happen now; when the stack wants to go on, in microseconds of the script.
    pub fn settle(&mut self) -> Option<u64> {
        let step = self.stack.settle();
        self.stack.check_consistency();
        self.collect();
        step.next_deadline.map(|deadline| deadline.as_micros().saturating_sub(EPOCH_US))
    }

    /// Moves the clock to the next deadline, or to `target` if that is earlier, and lets happen what is due then. Whether
    /// there is anything left to do until `target`.
    pub fn hop(&mut self, target_us: u64) -> bool {
        let now_us = self.now_us();
        // A deadline that has passed and is still there would hold the clock for ever.
        let next_us = self.settle().map_or(target_us, |deadline| deadline.max(now_us + 1)).min(target_us);
        self.stack.advance(Duration::from_micros(next_us.saturating_sub(now_us)));
        self.settle();
        next_us < target_us
    }

    /// Moves the clock on, from deadline to deadline.
    pub fn run_to(&mut self, target_us: u64) {
        while self.hop(target_us) {}
    }

    /// Adds a line to the log.
    pub fn say(&mut self, words: &str) {
        self.say_at(self.now_us(), words);
    }

    fn say_at(&mut self, at_us: u64, words: &str) {
        self.log.push(format!("{:>4}.{:06}  {words}", at_us / 1_000_000, at_us % 1_000_000));
    }

    // ---- What the stack sent ----

    fn collect(&mut self) {
        while let Some((at_us, packet)) = self.line.take() {
            let at_us = at_us - EPOCH_US;
            match self.read(at_us, &packet) {
                Ok(Some(sent)) => {
                    self.say_at(at_us, &format!("> {}{}", mark(sent.ecn), sent.noted));
                    self.sent.push_back(sent);
                }
                Ok(None) => self.say_at(at_us, "> something other than TCP"),
                Err(words) => {
                    self.say_at(at_us, &format!("> {words}"));
                    self.wrong.get_or_insert(words);
                }
            }
        }
        let notes = self.notes.0.lock();
        let fresh: Vec<(u64, Event)> = notes.events.iter().skip(self.logged_events).copied().collect();
        self.logged_events = notes.events.len();
        drop(notes);
        for (at_us, event) in fresh {
            self.say_at(at_us - EPOCH_US, &format!("  {event}"));
        }
    }

    /// Takes the oldest callback that no statement has taken, with its time.
    pub fn take_event(&mut self) -> Option<(u64, Event)> {
        let event = self.notes.0.lock().events.pop_front();
        if event.is_some() {
            self.logged_events -= 1;
        }
        event.map(|(at_us, event)| (at_us - EPOCH_US, event))
    }

    /// Reads and checks a packet; `None` when it is not TCP.
    fn read(&mut self, at_us: u64, packet: &[u8]) -> Result<Option<Sent>, String> {
        let (src, dst, protocol, tos, payload) = unpack(packet)?;
        if protocol != IpProtocol::TCP {
            return Ok(None);
        }
        if !tcp::verify_checksum(src, dst, payload) {
            return Err("a segment with a wrong checksum".into());
        }
        if packet.len() > self.setup.mtu {
            return Err(format!("a packet of {} bytes, above the MTU", packet.len()));
        }
        let segment = Segment::parse(payload).map_err(|error| format!("a malformed segment: {error}"))?;
        let header = &segment.header;
        if header.flags.has(Flags::SYN) {
            self.ports.0 = header.src_port;
            self.stack_isn = header.seq;
            // A SYN sent again has another value; scripts count from the first of a connection.
            if let (Some(timestamps), None) = (header.options.timestamps, self.clock.stack_base) {
                self.clock.stack_base = Some(timestamps.val);
            }
        }
        if (src, dst) != self.addrs() || (header.src_port, header.dst_port) != self.ports {
            return Err(format!("a segment of another flow, from {src} port {}", header.src_port));
        }
        let mut noted = segment.noted(self.stack_isn, self.peer_isn);
        if let Some(timestamps) = &mut noted.options.timestamps {
            self.clock.stack_last = timestamps.val;
            timestamps.val = timestamps.val.wrapping_sub(self.clock.stack_base.unwrap_or(0));
        }
        if !segment.payload.is_empty() && !header.flags.has(Flags::SYN) {
            let offset = u64::from(noted.seq.wrapping_sub(1));
            if segment.payload != bytes_at(offset, segment.payload.len()) {
                return Err(format!("{noted}, with other bytes than were written"));
            }
        }
        Ok(Some(Sent { at_us, noted, ecn: tos & 3 }))
    }

    // ---- What the peer sends ----

    /// The stack's address and the peer's.
    fn addrs(&self) -> (IpAddr, IpAddr) {
        if self.setup.is_v6 { (LOCAL_V6.into(), PEER_V6.into()) } else { (LOCAL_V4.into(), PEER_V4.into()) }
    }

    /// Sends a segment of the peer.
    pub fn send(&mut self, segment: &NotedSegment, has_options: bool, ecn: Ecn) {
        let now_us = self.now_us();
        let mut noted = *segment;
        let is_syn = noted.flags.has(Flags::SYN);
        if is_syn && !noted.flags.has(Flags::ACK) {
            // A new connection, or the first segment of one again.
            self.clock.stack_base = None;
        }
        match (&mut noted.options.timestamps, self.clock.peer_base, self.clock.stack_base) {
            (Some(timestamps), _, _) => {
                if is_syn {
                    self.clock.peer_base = Some((timestamps.val, now_us));
                }
                if noted.flags.has(Flags::ACK) {
                    timestamps.ecr = timestamps.ecr.wrapping_add(self.clock.stack_base.unwrap_or(0));
                }
            }
            (absent, Some((base, at_us)), Some(_)) if !has_options && !noted.flags.has(Flags::RST) => {
                // Cannot cut much: a script lasts hours, not weeks.
                let val = base.wrapping_add(((now_us - at_us) / 1000) as u32);
                *absent = Some(Timestamps { val, ecr: self.clock.stack_last });
            }
            _ => {}
        }
        if is_syn && noted.options.timestamps.is_none() {
            self.clock.peer_base = None;
        }
        self.say(&format!("< {}{noted}", mark(ecn)));
        let header = noted.to_header(self.ports.1, self.ports.0, self.peer_isn, self.stack_isn, 65_535);
        let offset = u64::from(noted.seq.wrapping_sub(1));
        let payload = bytes_at(if is_syn { 0 } else { offset }, noted.payload_len() as usize);
        let (local, peer) = self.addrs();
        self.line.send(pack_segment(peer, local, &header, &payload, ecn));
    }

    /// Sends an ICMP error.
    pub fn send_icmp(&mut self, icmp: &Icmp) {
        self.say(&format!("< icmp {:?} about {}", icmp.error, icmp.seq));
        let (local, peer) = self.addrs();
        let header = SegmentHeader {
            src_port: self.ports.0,
            dst_port: self.ports.1,
            seq: self.stack_isn + icmp.seq,
            ack: self.peer_isn + 1,
            flags: Flags::ACK,
            wnd: 65_535,
            urgent: 0,
            options: Default::default(),
        };
        let quote = pack_segment(local, peer, &header, &[], 0);
        self.line.send(pack_icmp(peer, local, icmp.error, &quote));
    }

    /// The peer's initial sequence number moves on.
    pub fn move_peer_isn(&mut self, by: u32) {
        self.peer_isn += by;
    }

    // ---- The app ----

    /// Does something inside a callback of the app.
    pub fn within<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> T {
        let (result, done) = channel();
        let call = Call(Box::new(move |ctx| {
            // The other end waits for it below.
            let _ = result.send(act(ctx));
        }));
        self.stack
            .notify(self.app_worker, WorkerId(0), Box::new(call))
            .expect("cannot fail because nothing stops the stack");
        self.settle();
        done.try_recv().expect("a message for an app is delivered while there is something to do")
    }

    /// Does something with the session.
    ///
    /// # Errors
    /// When there is none.
    pub fn with_session<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Context<'_>, SessionHandle) -> T + Send + 'static,
    ) -> Result<T, String> {
        let session = self.notes.0.lock().session.ok_or("there is no session")?;
        Ok(self.within(move |ctx| act(ctx, session)))
    }

    /// Asks the stack.
    pub fn ask(&mut self) -> Answer {
        let answer = self.stack.inspect(Query::sessions(64, true));
        self.collect();
        answer.expect("cannot fail because nothing stops the stack")
    }

    /// What must be given to a listen or a connect.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where to connect to.
    pub fn peer(&self) -> SocketAddr {
        (self.addrs().1, SERVICE_PORT).into()
    }

    /// Where to listen.
    pub fn local(&self) -> SocketAddr {
        (self.addrs().0, SERVICE_PORT).into()
    }

    /// Ends everything; says what the stack still holds then.
    ///
    /// # Errors
    /// What is left, in words.
    pub fn end(mut self) -> Result<(), String> {
        self.stack.detach(self.app, DetachPolicy::Reset).map_err(|error| error.to_string())?;
        self.run_to(self.now_us() + END_US);
        let answer = self.ask();
        if answer.leaks.is_clean() && answer.time_wait == 0 {
            Ok(())
        } else {
            Err(format!("{:?}, {} in TIME-WAIT", answer.leaks, answer.time_wait))
        }
    }
}

/// A mark as scripts write it.
fn mark(ecn: Ecn) -> &'static str {
    ["", "[ect1] ", "[ect0] ", "[ce] "][usize::from(ecn & 3)]
}

/// Addresses, protocol, traffic class and payload of an IP packet.
fn unpack(packet: &[u8]) -> Result<(IpAddr, IpAddr, IpProtocol, u8, &[u8]), String> {
    let wrong = |error| format!("a malformed packet: {error}");
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let (header, payload) = ipv4::Header::parse(packet).map_err(wrong)?;
            Ok((header.src.into(), header.dst.into(), header.protocol, header.dscp_ecn, payload))
        }
        Some(6) => {
            let (header, payload) = ipv6::Header::parse(packet).map_err(wrong)?;
            Ok((header.src.into(), header.dst.into(), header.next_header, header.traffic_class, payload))
        }
        _ => Err("a packet of no IP version".into()),
    }
}

fn pack_segment(src: IpAddr, dst: IpAddr, header: &SegmentHeader, payload: &[u8], ecn: Ecn) -> Vec<u8> {
    let mut segment = vec![0; header.header_len() + payload.len()];
    let at = header.emit(&mut segment);
    segment[at..].copy_from_slice(payload);
    tcp::set_checksum(src, dst, &mut segment);
    pack(src, dst, IpProtocol::TCP, &segment, ecn)
}

fn pack(src: IpAddr, dst: IpAddr, protocol: IpProtocol, payload: &[u8], ecn: Ecn) -> Vec<u8> {
    let mut packet;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet = vec![0; ipv4::Header::LEN];
            let header = ipv4::Header::new(src, dst, protocol, payload.len());
            ipv4::Header { dscp_ecn: ecn, ..header }.emit(&mut packet);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet = vec![0; ipv6::Header::LEN];
            let header = ipv6::Header::new(src, dst, protocol, payload.len());
            ipv6::Header { traffic_class: ecn, ..header }.emit(&mut packet);
        }
        _ => unreachable!("both ends of the wire are of one family"),
    }
    packet.extend_from_slice(payload);
    packet
}

fn pack_icmp(src: IpAddr, dst: IpAddr, error: IcmpKind, quote: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let unreachable = |code| icmpv6::Message::Unreachable { code, quote };
            let message = match error {
                IcmpKind::NetUnreachable => unreachable(icmpv6::unreachable::NO_ROUTE),
                IcmpKind::HostUnreachable => unreachable(icmpv6::unreachable::ADDRESS),
                IcmpKind::PortUnreachable => unreachable(icmpv6::unreachable::PORT),
                IcmpKind::Prohibited => unreachable(icmpv6::unreachable::PROHIBITED),
                IcmpKind::TooBig(mtu) => icmpv6::Message::PacketTooBig { mtu: mtu.into(), quote },
                IcmpKind::TimeExceeded => icmpv6::Message::TimeExceeded { code: 0, quote },
                IcmpKind::ProtocolUnreachable => icmpv6::Message::ParameterProblem {
                    code: icmpv6::parameter::NEXT_HEADER,
                    pointer: 6,
                    quote,
                },
                IcmpKind::ParameterProblem => {
                    icmpv6::Message::ParameterProblem { code: icmpv6::parameter::FIELD, pointer: 0, quote }
                }
            };
            let mut bytes = vec![0; message.len()];
            message.emit(src, dst, &mut bytes);
            pack(src.into(), dst.into(), IpProtocol::ICMPV6, &bytes, 0)
        }
        _ => {
            let unreachable = |code, mtu| icmpv4::Message::Unreachable { code, mtu, quote };
            let message = match error {
                IcmpKind::NetUnreachable => unreachable(icmpv4::unreachable::NET, 0),
                IcmpKind::HostUnreachable => unreachable(icmpv4::unreachable::HOST, 0),
                IcmpKind::ProtocolUnreachable => unreachable(icmpv4::unreachable::PROTOCOL, 0),
                IcmpKind::PortUnreachable => unreachable(icmpv4::unreachable::PORT, 0),
                IcmpKind::Prohibited => unreachable(icmpv4::unreachable::PROHIBITED, 0),
                IcmpKind::TooBig(mtu) => unreachable(icmpv4::unreachable::FRAGMENTATION_NEEDED, mtu),
                IcmpKind::TimeExceeded => icmpv4::Message::TimeExceeded { code: 0, quote },
                IcmpKind::ParameterProblem => {
                    icmpv4::Message::ParameterProblem { code: 0, pointer: 0, quote }
                }
            };
            let mut bytes = vec![0; message.len()];
            message.emit(&mut bytes);
            pack(src, dst, IpProtocol::ICMPV4, &bytes, 0)
        }
    }
}
