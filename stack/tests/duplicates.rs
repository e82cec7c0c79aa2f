//! Segments that come from nowhere: a SYN that the network kept and delivers again when its connection is long over, and
//! SYNs that nobody sent. The ends that they mislead must not answer each other for ever.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::*;
use hoststack::SingleThreaded;
use hoststack::app::*;
use hoststack::net::{
    Device, DeviceCounters, DeviceQueue, Impairments, MemoryWireConfig, Packet, PacketPool, impair,
    memory_wire,
};
use hoststack_wire::tcp::set_checksum;
use hoststack_wire::{Flags, IpProtocol, MacAddr, Options, SegmentHeader, SeqNum, ipv4};
use parking_lot::Mutex;

/// What a [`Playback`] keeps, and what it plays.
#[derive(Default)]
struct Tape {
    first: Option<Vec<u8>>,
    play: Vec<Vec<u8>>,
}

/// A device that keeps the first packet it received, and receives what it is told to.
struct Playback(Box<dyn Device>, Arc<Mutex<Tape>>);

impl Device for Playback {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn mtu(&self) -> usize {
        self.0.mtu()
    }
    fn mac(&self) -> Option<MacAddr> {
        self.0.mac()
    }
    fn into_queues(self: Box<Self>, count: usize) -> std::io::Result<Vec<Box<dyn DeviceQueue>>> {
        let tape = self.1;
        let queues = self.0.into_queues(count)?.into_iter();
        Ok(queues.map(|queue| Box::new(PlaybackQueue(queue, tape.clone())) as Box<dyn DeviceQueue>).collect())
    }
}

struct PlaybackQueue(Box<dyn DeviceQueue>, Arc<Mutex<Tape>>);

impl DeviceQueue for PlaybackQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let before = into.len();
        let mut tape = self.1.lock();
        into.extend(tape.play.drain(..).map(|bytes| Packet::copy_of(&bytes)));
        let played = into.len() - before;
        let count = self.0.receive(now_us, pool, into, max);
        if tape.first.is_none() {
            tape.first = into.get(before + played).map(|packet| packet.data().to_vec());
        }
        played + count
    }
    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.0.transmit(now_us, pool, packets)
    }
    fn next_deadline_us(&self) -> Option<u64> {
        if self.1.lock().play.is_empty() { self.0.next_deadline_us() } else { Some(0) }
    }
    fn counters(&self) -> DeviceCounters {
        self.0.counters()
    }
}

/// A stack whose ends play tapes, over links of half a millisecond.
fn playback_stack() -> (SingleThreaded, [Arc<Mutex<Tape>>; 2]) {
    let delay = Impairments { delay_us: 500, ..Impairments::default() };
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let tapes: [Arc<Mutex<Tape>>; 2] = Default::default();
    let a = Playback(Box::new(impair(Box::new(a), delay)), tapes[0].clone());
    let b = Playback(Box::new(impair(Box::new(b), delay)), tapes[1].clone());
    (virtual_stack(config(1), [interface(a, CLIENT, 1), interface(b, SERVER, 2)]), tapes)
}

/// Packets that the stack receives in the next 10 s.
fn packets_in_ten_seconds(stack: &mut SingleThreaded) -> u64 {
    let before = summary(stack).workers[0].rx_packets;
    pass(stack, Duration::from_secs(10));
    summary(stack).workers[0].rx_packets - before
}

/// The client closed first and is in TIME-WAIT; the server, which has forgotten the connection, takes the old SYN for
/// a new one. The two ends then disagree about everything: they may say so, but not answer each other for ever
/// (RFC 5961 §7 limits such acknowledgments).
//
// Found by `swarm`, seed 1814. In `tcp`: `TimeWait::judge` answers an empty acknowledgment that is out of its place,
// and `SynReceived::judge` answers one that is out of its window, each with an acknowledgment, without a limit.
// covers: T07
#[test]
fn an_old_syn_does_not_set_time_wait_and_syn_received_against_each_other() {
    for bytes in [10, 200_000] {
        let (mut stack, tapes) = playback_stack();
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::sink(&server_log), 80);
        let streams = Streams::default();
        let probe = Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event
                && streams.send(ctx, session, bytes)
            {
                ctx.close(session);
            }
        });
        let client = attach(&mut stack, "client", probe);
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
        until(&mut stack, Duration::from_secs(60), || log.closed() == 1 && server_log.closed() == 1);
        pass(&mut stack, Duration::from_secs(1));
        assert_eq!(summary(&mut stack).time_wait, 1);
        {
            let mut tape = tapes[1].lock();
            let syn = tape.first.clone().expect("the client's SYN came first");
            tape.play.push(syn);
        }
        let packets = packets_in_ten_seconds(&mut stack);
        assert!(packets > 1, "the SYN came and was answered");
        assert!(packets < 200, "{packets} packets in 10 s about nothing");
        assert_eq!(server_log.accepted(), 1);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}

/// Someone sends each of two listeners a SYN in the other's name: two handshakes of which neither end has heard.
//
// In `tcp`: `SynReceived::judge` answers whatever is out of its window with an acknowledgment, without a limit.
#[test]
fn two_spoofed_syns_do_not_set_two_listeners_against_each_other() {
    let (mut stack, tapes) = playback_stack();
    let log = Log::default();
    let app = attach(&mut stack, "app", Probe::idle(&log));
    let ends = [std::net::SocketAddr::new(Family::V4.client_addr(), 80), Family::V4.server(80)];
    for (domain, end) in [CLIENT, SERVER].into_iter().zip(ends) {
        stack.listen(app.app_workers[0], ListenOptions { domain, ..ListenOptions::on(end) }).unwrap();
    }
    for (to, tape) in tapes.iter().enumerate() {
        tape.lock().play.push(syn(ends[1 - to], ends[to], 1_000_000 * (to as u32 + 1)));
    }
    let packets = packets_in_ten_seconds(&mut stack);
    assert!(packets > 3, "the SYNs came and were answered");
    assert!(packets < 200, "{packets} packets in 10 s about nothing");
    assert_eq!(log.accepted(), 0);
    finish(stack, &[&app], &[&log]);
}

/// A SYN as a packet.
fn syn(from: std::net::SocketAddr, to: std::net::SocketAddr, seq: u32) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (from.ip(), to.ip()) else { panic!("IPv4 only") };
    let header = SegmentHeader {
        src_port: from.port(),
        dst_port: to.port(),
        seq: SeqNum(seq),
        ack: SeqNum(0),
        flags: Flags::SYN,
        wnd: 1000,
        urgent: 0,
        options: Options::default(),
    };
    let mut packet = vec![0; ipv4::Header::LEN + header.header_len()];
    let (ip, segment) = packet.split_at_mut(ipv4::Header::LEN);
    ipv4::Header::new(src, dst, IpProtocol::TCP, segment.len()).emit(ip);
    header.emit(segment);
    set_checksum(from.ip(), to.ip(), segment);
    packet
}
