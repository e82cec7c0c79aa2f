//! A TCP engine and a peer that says anything. Numbers are relative to the engine's variables, so that most segments
//! are nearly right; the app, the network and time act in between.
//!
//! `Exchange` calls `check_consistency` on both engines after every step, and its session layer asserts that no byte is
//! sent that was not written and none acknowledged twice. What else must hold is asserted here.

use std::collections::BTreeSet;

use hoststack_tcp::testing::Exchange;
use hoststack_tcp::{IcmpError, State, SynCookies};
use hoststack_transport::{
    AcceptError, Algorithm, Duration, Keepalive, SessionId, SocketOption, SocketOptions, Transport,
};
use hoststack_wire::tcp::OptionProfile;
use hoststack_wire::{
    FastOpenCookie, Flags, NotedSegment, Options, SackBlocks, SeqNum, Timestamps, parse_notation,
};

use crate::input::Input;

/// Acts of one input.
const ACTS_MAX: usize = 150;
/// Bytes that the app writes in all.
const WRITTEN_MAX: u32 = 1 << 18;
/// By then everything has given up: the longest is retransmission at `RTO_MAX`.
const SILENCE_MS: u64 = 20_000_000;
/// ISN of the peer of an `Exchange`, and one that wraps soon.
const PEER_ISN: u32 = 0x1000;
const PEER_ISN_WRAPS: u32 = u32::MAX - 400;
/// The cookie that the engine gives the peer of an `Exchange` under the key `[1; 16]`.
const FAST_OPEN_SYN: &str = "S <FO dcfa12da5bd712d8>";
const RETRANSMITS_MAX: u8 = 4;
/// Longest wait in one act.
const WAIT_MS_MAX: u32 = 100_000;

/// Six bytes choose the state to start from and the options; then acts, a byte each with their numbers.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut peer = Peer::new(&mut input);
    let is_reset_at_last = input.bool();
    for _ in 0..ACTS_MAX {
        if input.is_empty() {
            break;
        }
        peer.act(&mut input);
        peer.check();
    }
    peer.falls_silent(is_reset_at_last);
}

struct Peer {
    x: Exchange,
    /// Segments that arrive together with the next.
    held: Vec<String>,
    written: u32,
    peers: u16,
    /// A Fast Open cookie that the engine takes for its own.
    cookie: Option<FastOpenCookie>,
    /// The peer's ISN. A stream that began elsewhere is not the one whose bytes `Exchange` knows.
    isn: SeqNum,
    /// Sessions whose streams began there.
    known: BTreeSet<u32>,
    /// Of the connection under test: the highest right edge of its receive window, and which connection it was.
    offered: Option<(SessionId, SeqNum)>,
}

impl Peer {
    fn new(input: &mut Input<'_>) -> Peer {
        let reach: [fn() -> Exchange; 13] = [
            Exchange::established,
            Exchange::connected,
            Exchange::listen,
            Exchange::syn_sent,
            Exchange::syn_received,
            Exchange::crossed_syns,
            Exchange::fin_wait_1,
            Exchange::fin_wait_2,
            Exchange::close_wait,
            Exchange::closing,
            Exchange::last_ack,
            Exchange::time_wait,
            Exchange::closed,
        ];
        let which = usize::from(input.u8()) % reach.len();
        let (reach, is_open) = (reach[which], which == 2 || which == 12);
        let [wire, ours, more, new] = [input.u8(), input.u8(), input.u8(), input.u8()];
        let bit = |byte: u8, n: u8| byte >> n & 1 == 1;
        let mut x = reach().config(|config| {
            config.retransmits_max = RETRANSMITS_MAX;
            config.quick_acks = if bit(ours, 7) { 16 } else { 0 };
            config.tail_loss_probe = !bit(more, 7);
            config.challenge_acks_per_second = if bit(more, 6) { 1 } else { 10 };
            config.fast_open_key = Some([1; 16].into());
            config.syn_cookies = [SynCookies::UnderPressure, SynCookies::Never][usize::from(new >> 1 & 1)];
            if bit(new, 2) {
                config.option_profile = OptionProfile::FreeBsd;
            }
        });
        x = x.options(|options| {
            *options = SocketOptions {
                congestion: Algorithm::ALL[usize::from(ours & 3) % Algorithm::ALL.len()],
                nodelay: bit(ours, 2),
                cork: bit(ours, 3),
                quick_ack: bit(ours, 4),
                pacing: bit(ours, 5),
                abort_on_icmp: bit(ours, 6),
                keepalive: bit(more, 0).then_some(Keepalive { idle_ms: 5000, interval_ms: 1000, probes: 3 }),
                user_timeout_ms: if bit(more, 1) { 7000 } else { 0 },
                linger_ms: bit(more, 2).then_some(3000),
                mss_max: bit(more, 3).then_some(700),
                mtu_probing: bit(more, 4),
                fast_open: bit(new, 0),
                ..*options
            }
        });
        if bit(wire, 0) {
            x = x.sack();
        }
        if bit(wire, 1) {
            x = x.timestamps();
        }
        if bit(wire, 2) {
            x = x.scale(3).options(|options| options.rx_window = 200_000);
        }
        if bit(wire, 3) {
            x = x.isns(u32::MAX - 500, PEER_ISN_WRAPS);
        }
        if bit(wire, 4) {
            x = x.mss(if bit(wire, 5) { Some(88) } else { None });
        }
        if bit(wire, 6) {
            x = x.rtt_ms(30);
        }
        if bit(wire, 7) {
            x = x.mtu(576);
        }
        if bit(new, 3) {
            x = x.backlog(1);
        }
        // Only here: the other states are reached through a SYN-ACK with an ISS that is remembered.
        if bit(new, 4) && is_open {
            x = x.config(|config| config.syn_cookies = SynCookies::Always);
        }
        let cookie = parse_notation(FAST_OPEN_SYN).expect("a segment").options.fast_open;
        if bit(new, 5) {
            // As an earlier connection would have learnt it.
            x.half_opens.remember(&x.flow(), cookie.expect("it is there"), 1000);
        }
        if bit(wire, 2) {
            x.layer.rx_capacity = 200_000;
        }
        let isn = SeqNum(if bit(wire, 3) { PEER_ISN_WRAPS } else { PEER_ISN });
        Peer { x, held: Vec::new(), written: 0, peers: 0, cookie, isn, known: BTreeSet::new(), offered: None }
    }

    /// The variables to aim at, relative to the initial sequence numbers: SND.UNA, SND.NXT, RCV.NXT.
    fn aim(&self) -> (u32, u32, u32) {
        let Some(id) = self.x.engine.connection_of(&self.x.flow()) else { return (1, 1, 1) };
        let info = self.x.engine.connection(self.x.now, id).expect("it was found just now");
        let iss = self.x.iss();
        (info.snd_una.since(iss), info.snd_nxt.since(iss), info.rcv_nxt.since(self.isn))
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.u8() {
            0..=99 => self.segment(input),
            100..=119 => self.acknowledges(input),
            what => {
                // What follows happens after what was held back.
                self.arrive();
                self.other(what, input);
            }
        }
    }

    /// Any segment: flags, numbers, payload, window, SACK blocks, timestamps.
    fn segment(&mut self, input: &mut Input<'_>) {
        let (una, _, nxt) = self.aim();
        let shape = input.u8();
        let flags = Flags(match shape & 7 {
            0..=2 => 0x10,
            3 => 0x18,
            4 => 0x11,
            5 => input.choice(&[0x12, 0x02, 0x04, 0x14]),
            _ => input.u16() & 0x1ff,
        });
        let seq = nxt.wrapping_add_signed(input.near());
        let ack = una.wrapping_add_signed(input.near());
        let len = if shape & 8 == 0 { 0 } else { input.below(3000) };
        let win = if shape & 16 == 0 { None } else { Some(input.u16()) };
        let mut sack = SackBlocks::NONE;
        if shape & 32 != 0 {
            for _ in 0..=input.below(4) {
                let start = SeqNum(una.wrapping_add_signed(input.near()));
                sack.push(start, start + u32::from(input.u16() % 5000));
            }
        }
        let timestamps = (shape & 64 != 0).then(|| Timestamps {
            // The peer's clock counts milliseconds too, from 1000.
            val: 1000u32.wrapping_add_signed(input.near()),
            ecr: (self.x.now.as_millis() as u32).wrapping_add_signed(input.near()),
        });
        let mut options = Options { sack, timestamps, ..Options::default() };
        if flags.has(Flags::SYN) {
            options.mss = Some(input.u16());
            options.window_scale = (shape & 128 != 0).then_some(input.u8() % 15);
            options.sack_permitted = shape & 32 != 0;
            options.sack = SackBlocks::NONE;
            options.fast_open = match input.u8() % 8 {
                0..=3 => None,
                4 | 5 => self.cookie,
                6 => Some(FastOpenCookie::REQUEST),
                _ => FastOpenCookie::new(&[input.u8(); 4]),
            };
        }
        let ack = flags.has(Flags::ACK).then_some(ack);
        let urgent = if flags.has(Flags::URG) { input.u16() } else { 0 };
        self.hears(NotedSegment { flags, seq, end: seq.wrapping_add(len), ack, win, urgent, options }, shape);
    }

    /// What an honest peer says: an acknowledgment of some of what is in flight, perhaps with SACK blocks.
    fn acknowledges(&mut self, input: &mut Input<'_>) {
        let (una, snd_nxt, nxt) = self.aim();
        let flight = snd_nxt.wrapping_sub(una);
        let shape = input.u8();
        // One byte says which share of the flight.
        let share = |byte: u8| (u64::from(flight) * u64::from(byte) / 255) as u32;
        let ack = una.wrapping_add(if shape & 1 == 0 { 0 } else { share(input.u8()) });
        let mut sack = SackBlocks::NONE;
        if shape & 2 != 0 {
            for _ in 0..=input.below(4) {
                let start = share(input.u8());
                let end = start.saturating_add(1 + share(input.u8())).min(flight);
                if start < end {
                    sack.push(SeqNum(una.wrapping_add(start)), SeqNum(una.wrapping_add(end)));
                }
            }
        }
        let win = if shape & 4 == 0 { None } else { Some(input.u16()) };
        let options = Options { sack, ..Options::default() };
        let len = if shape & 8 == 0 { 0 } else { u32::from(input.u8()) };
        let flags = Flags::ACK;
        let noted = NotedSegment { flags, seq: nxt, end: nxt + len, ack: Some(ack), win, urgent: 0, options };
        self.hears(noted, shape);
    }

    /// The segment arrives, or waits for the next (bit 7 of `shape`), so that several arrive in one step.
    fn hears(&mut self, noted: NotedSegment, shape: u8) {
        self.held.push(noted.to_string());
        if shape & 0x80 == 0 || self.held.len() == 4 {
            self.arrive();
        }
    }

    fn arrive(&mut self) {
        let held = std::mem::take(&mut self.held);
        let texts: Vec<&str> = held.iter().map(String::as_str).collect();
        self.look();
        let (before, cwnd) = (self.x.engine.counters().segments_out, self.window());
        match *texts {
            [a] => drop(self.x.gets([a])),
            [a, b] => drop(self.x.gets([a, b])),
            [a, b, c] => drop(self.x.gets([a, b, c])),
            [a, b, c, d] => drop(self.x.gets([a, b, c, d])),
            _ => return,
        }
        self.check_answers(texts.len(), self.x.engine.counters().segments_out - before, cwnd);
    }

    /// The congestion window of the connection under test; 0 without one.
    fn window(&self) -> u32 {
        let id = self.x.engine.connection_of(&self.x.flow());
        id.and_then(|id| self.x.engine.connection(self.x.now, id)).map_or(0, |info| info.cwnd)
    }

    /// No peer makes the engine say more than its windows let it: a segment is answered by one without payload at
    /// most (and its burst by the acknowledgment of the step), and data is what the congestion window holds (`cwnd`
    /// before, or what it is now).
    fn check_answers(&self, heard: usize, said: u64, cwnd: u32) {
        let sent = &self.x.out.sent;
        assert_eq!(sent.len() as u64, said, "segments_out miscounts");
        let bare = sent.iter().filter(|sent| sent.payload.is_empty()).count();
        assert!(bare <= 2 * heard + 1, "{bare} segments without payload answer {heard}");
        let data: u64 = sent.iter().map(|sent| sent.payload.len() as u64).sum();
        if let Some(id) = self.x.engine.connection_of(&self.x.flow()) {
            let info = self.x.engine.connection(self.x.now, id).expect("it was found just now");
            // Window probes and limited transmit go beyond it by segments.
            let most = u64::from(info.cwnd.max(cwnd)) + 10 * u64::from(info.mss);
            assert!(data <= most, "{data} bytes answer {heard} segments, cwnd {cwnd}: {info}");
        } else {
            assert_eq!(data, 0, "data of no connection");
        }
    }

    fn other(&mut self, what: u8, input: &mut Input<'_>) {
        let x = &mut self.x;
        let session = x.layer.newest().filter(|&session| {
            x.layer.connection_of(session).is_some_and(|id| x.engine.connection(x.now, id).is_some())
        });
        match what {
            120..=139 => {
                let count = input.u16() % 20_000;
                let is_open = x.engine.connection_of(&x.flow()).is_some() && !x.info().fin_wanted;
                if session.is_some() && is_open && self.written < WRITTEN_MAX {
                    self.written += u32::from(count);
                    x.app_writes(count.into());
                }
            }
            140..=154 => {
                if let Some(session) = session {
                    let unread = x.layer.get(session).map_or(0, |session| session.received - session.read);
                    // One byte says which share.
                    let count = u64::from(unread) * (255 - u64::from(input.u8())) / 255;
                    x.app_reads(count as usize);
                }
            }
            155..=179 => {
                let ms = if input.bool() { input.below(WAIT_MS_MAX) } else { u32::from(input.u8()) };
                x.after(ms.into());
            }
            180..=184 => drop(x.app_half_closes()),
            185..=188 => drop(x.app_closes()),
            189 => drop(x.app_resets()),
            190..=197 => self.icmp(input),
            198..=203 => x.out.room = input.choice(&[usize::MAX, 0, 1, 2, 5, 20]),
            204..=207 => x.layer.is_full = input.bool(),
            208..=211 => {
                x.layer.rx_capacity = input.choice(&[65_535, 0, 1, 100, 1000, 5000, 200_000]);
            }
            212..=214 => {
                x.layer.refuses =
                    input.choice(&[None, Some(AcceptError::NoRoom), Some(AcceptError::NoListener)]);
            }
            215..=217 => x.out.mtu = input.choice(&[1500, 576, 68, 9000, 1280]),
            218..=222 => x.is_main_slow = true,
            223..=230 => {
                x.is_main_slow = false;
                x.main_catches_up();
            }
            231..=234 => {
                let half_opens = x.half_opens.is_empty();
                if half_opens && x.engine.state_of(&x.flow()).is_none() {
                    let early = if input.bool() { input.below(3000) } else { 0 };
                    let within = Duration::from_millis(1 + u64::from(input.u16()));
                    x.app_connects_with(within, early as usize);
                }
            }
            // Not during a connect: `Exchange` knows of one flow only.
            235..=237 if self.peers < 8 && x.half_opens.is_empty() => {
                self.peers += 1;
                x.peer_is_at(4000 + self.peers);
            }
            238..=240 => drop(x.peer_clock_jumps(input.near())),
            241..=250 => self.option(input),
            _ => {}
        }
    }

    fn icmp(&mut self, input: &mut Input<'_>) {
        let (una, _, _) = self.aim();
        let error = match input.u8() % 5 {
            0 => IcmpError::PacketTooBig { mtu: input.u16() },
            1 => IcmpError::PacketTooBig { mtu: 1500u16.wrapping_sub(input.u8().into()) },
            2 => IcmpError::Unreachable,
            3 => IcmpError::PortUnreachable,
            _ => IcmpError::Prohibited,
        };
        let seq = una.wrapping_add_signed(input.near());
        self.x.gets_icmp(seq, error);
    }

    fn option(&mut self, input: &mut Input<'_>) {
        let option = match input.u8() % 10 {
            0 => SocketOption::NoDelay(input.bool()),
            1 => SocketOption::Cork(input.bool()),
            2 => SocketOption::QuickAck(input.bool()),
            3 => SocketOption::Keepalive(input.bool().then(|| Keepalive {
                idle_ms: input.u16().into(),
                interval_ms: input.u16().into(),
                probes: input.u8(),
            })),
            4 => SocketOption::UserTimeout(input.u16().into()),
            5 => SocketOption::Linger(input.bool().then(|| input.u16().into())),
            6 => SocketOption::MssMax(input.u16()),
            7 => SocketOption::PacingRateMax(if input.bool() { u64::MAX } else { input.u32().into() }),
            8 => SocketOption::Congestion(input.choice(Algorithm::ALL)),
            _ => SocketOption::Dscp(input.u8()),
        };
        self.x.app_sets(option);
    }

    /// What was sent since the last look.
    fn look(&mut self) {
        let x = &mut self.x;
        if x.out.sent.back().is_some_and(|sent| sent.header.flags.has(Flags::SYN)) {
            // From now on numbers are relative to the new connection's.
            x.takes_iss();
        }
        let id = x.engine.connection_of(&x.flow());
        let info = id.map(|id| x.engine.connection(x.now, id).expect("it was found just now"));
        if let Some(info) = info.filter(|info| info.irs == self.isn) {
            self.known.insert(info.session.0.slot);
        }
        if self.offered.map(|(session, _)| session) != info.map(|info| info.session) {
            self.offered = None;
        }
        for sent in x.out.sent.drain(..) {
            assert!(sent.at <= x.now, "sent in the future");
            let options = sent.header.options;
            let Some(info) = info.filter(|info| info.flow == sent.flow) else { continue };
            let flags = sent.header.flags;
            if flags.has_any(Flags::SYN | Flags::RST) || !flags.has(Flags::ACK) {
                continue;
            }
            let ip = 20 + sent.header.header_len() + sent.payload.len();
            assert!(sent.payload.len() <= usize::from(info.mss).max(1) || ip <= 9000, "beyond any MSS");
            assert!(options.sack.is_empty() || info.sack, "SACK blocks to a peer that cannot read them");
            assert_eq!(options.timestamps.is_some(), info.timestamps, "RFC 7323 §3.2: on every segment");
            // RFC 9293 §3.8.6.2.1 (SHLD-14): the window is not shrunk, but for what scaling rounds off.
            let edge = sent.header.ack + (u32::from(sent.header.wnd) << info.rcv_scale);
            let slack = (1 << info.rcv_scale) - 1;
            if let Some((_, highest)) = self.offered {
                let is_less = (edge + slack).before(highest);
                assert!(!is_less, "the window shrinks by {}", highest.since(edge));
            }
            let highest = self.offered.map_or(edge, |(_, highest)| highest.max(edge));
            self.offered = Some((info.session, highest));
        }
    }

    fn check(&mut self) {
        self.look();
        let x = &self.x;
        let counts = x.counts();
        // A connection of Fast Open has its SYN-RECEIVED record besides.
        assert!(x.engine.armed_timers() <= 2 * counts.flows, "a timer of nothing");
        if let Some(id) = x.engine.connection_of(&x.flow()) {
            let info = x.engine.connection(x.now, id).expect("it was found just now");
            assert!(info.cwnd >= u32::from(info.mss.min(1)), "no window at all");
            assert!(
                info.snd_nxt.since(info.snd_una) <= WRITTEN_MAX + 20_000 + 2,
                "more in flight than written"
            );
            // Something waits for the peer: then something must wake it (design, invariant 6).
            let waits = info.snd_una != info.snd_nxt;
            assert!(!waits || x.engine.next_deadline().is_some(), "waits for an answer for ever: {info}");
        }
        for n in 0.. {
            let Some(session) = x.layer.get(slot(n)) else { break };
            assert!(
                !session.is_corrupt || !self.known.contains(&n),
                "bytes that the peer did not send there"
            );
            assert!(session.acknowledged <= session.written && session.read <= session.received);
        }
        self.x.events.clear();
    }

    /// The peer says nothing any more, and the apps let go: in the end nothing is left.
    fn falls_silent(mut self, is_reset: bool) {
        self.arrive();
        let x = &mut self.x;
        x.out.room = usize::MAX;
        x.layer.is_full = false;
        x.is_main_slow = false;
        x.main_catches_up();
        x.app_unlistens();
        for n in 0.. {
            if x.layer.get(slot(n)).is_none() {
                break;
            }
            let Some(id) = x.layer.connection_of(slot(n)) else { continue };
            if is_reset {
                x.engine.reset(x.now, id, &mut x.layer, &mut x.out, &mut x.events);
            } else {
                x.engine.close(x.now, id, &mut x.layer, &mut x.out, &mut x.events);
            }
        }
        // What was asked for is done before time passes.
        x.after(0);
        let before = x.engine.counters().segments_out;
        x.after(SILENCE_MS);
        let said = x.engine.counters().segments_out - before;
        let bound = 200 * (1 + u64::from(self.peers)) + 2 * u64::from(self.written);
        assert!(said <= bound, "{said} segments to a peer that is silent");
        // Connects under way end too: their deadline has passed.
        assert_eq!(x.state(), State::Closed);
        let counts = x.counts();
        assert_eq!((counts.flows, x.engine.armed_timers()), (0, 0), "{counts:?}");
        assert!(x.half_opens.is_empty(), "a half-open is left");
        assert!(x.engine.next_deadline().is_none() && x.half_opens.next_deadline().is_none());
    }
}

fn slot(n: u32) -> SessionId {
    SessionId(hoststack_transport::Key { slot: n, generation: 0 })
}
