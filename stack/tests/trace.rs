//! Packet traces: each stage's decision is there, nothing else changes, and nothing is recorded that nobody asked for.

mod common;

use std::sync::Arc;

use common::peer::{segment, stack_and_peer};
use common::*;
use hoststack::app::*;
use hoststack::inspect::TraceRecord;
use hoststack::net::{
    Device, DeviceCounters, DeviceQueue, Impairments, MemoryWireConfig, Packet, PacketPool, impair,
    memory_wire,
};
use hoststack::{Builder, CaptureSpec, Query, Recording, SingleThreaded, Stack, StackConfig, TraceError};
use hoststack_wire::icmp::Echo;
use hoststack_wire::{Flags, IpProtocol, MacAddr, Options, SegmentHeader, icmpv4, ipv4};
use parking_lot::Mutex;

const LONG: Duration = Duration::from_secs(600);

fn trace(stack: &mut SingleThreaded, words: &str) {
    stack.trace_add(words.parse().unwrap()).unwrap();
}

fn records(stack: &mut SingleThreaded) -> Vec<TraceRecord> {
    stack.inspect(Query::Trace { limit: 100_000 }).unwrap().trace.records
}

/// A record in lines: what it is, then its stages.
fn lines(record: &TraceRecord) -> Vec<String> {
    let stages = record.stages.iter().map(|stage| format!("{}: {}", stage.stage, stage.text));
    [format!("{} {}", record.direction, record.summary)].into_iter().chain(stages).collect()
}

#[track_caller]
fn has(record: &TraceRecord, stage: &str, text: &str) {
    let found = record.stages.iter().any(|at| at.stage == stage && at.text.contains(text));
    assert!(found, "no `{stage}: {text}` in {:#?}", lines(record));
}

#[test]
fn syn_to_a_closed_port_shows_the_look_up_the_reason_and_the_reset() {
    let (mut stack, mut peer) = stack_and_peer(1);
    trace(&mut stack, "tcp port 81");
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    let records = records(&mut stack);
    assert_eq!(
        lines(&records[0]),
        [
            "in tcp 10.0.0.2:4000 > 10.0.0.1:81: S 0:0(0) win 65535",
            "device-input: wire0 len 40",
            "ip-input: 10.0.0.2 -> 10.0.0.1 tcp ttl 64",
            "steer: worker 0: here",
            "tcp-lookup: no flow, no listener",
            "tcp-input: dropped: no-flow: It belongs to no flow and no listener; answered with a reset unless it was one.",
            "ip-output: wire0 tcp 10.0.0.1:81 > 10.0.0.2:4000: R. 0:0(0) ack 101 win 0",
        ]
    );
    assert_eq!((records[0].dropped, &records[0].session), (Some("no-flow"), &None));
    // And the reset itself, as it leaves.
    assert_eq!(
        lines(&records[1]),
        [
            "out tcp 10.0.0.1:81 > 10.0.0.2:4000: R. 0:0(0) ack 101 win 0",
            "tcp-output: no session",
            "ip-output: 10.0.0.1 -> 10.0.0.2 ttl 64",
            "device-output: wire0 len 40",
        ]
    );
    assert_eq!(records.len(), 2);
}

#[test]
fn a_bad_checksum_is_the_reason_that_is_shown() {
    let (mut stack, mut peer) = stack_and_peer(1);
    trace(&mut stack, "dropped");
    let mut packet = segment("10.0.0.2", 80, Flags::SYN, 100, 0, b"");
    *packet.last_mut().unwrap() ^= 1;
    peer.sends(&mut stack, &packet);
    let mut header = segment("10.0.0.2", 80, Flags::SYN, 100, 0, b"");
    header[10] ^= 1;
    peer.sends(&mut stack, &header);
    peer.sends(&mut stack, b"\x45no packet at all");
    let records = records(&mut stack);
    assert_eq!(
        records.iter().map(|record| record.dropped).collect::<Vec<_>>(),
        [Some("tcp-bad-checksum"), Some("ip-bad-checksum"), Some("ip-truncated")]
    );
    has(&records[0], "ip-input", "dropped: tcp-bad-checksum: The TCP checksum does not match.");
    assert!(records[1].summary.starts_with("tcp 10.0.0.2:4000 > 10.0.0.1:80: S 0:0(0)"));
    assert!(peer.takes(&stack).is_empty());
}

#[test]
fn an_answer_that_cannot_be_sent_says_why() {
    let (mut stack, mut peer) = stack_and_peer(1);
    trace(&mut stack, "any");
    peer.sends(&mut stack, &segment("192.0.2.9", 80, Flags::SYN, 100, 0, b""));
    let records = records(&mut stack);
    has(&records[0], "ip-output", "the answer is dropped: no-route");
    assert_eq!((records[1].direction, records[1].dropped), ("out", Some("no-route")));
    assert!(
        records[1].summary.contains("10.0.0.1:80 > 192.0.2.9:4000: R. 0:0(0) ack 101"),
        "{:?}",
        records[1]
    );
    assert_eq!(records.len(), 2);
}

#[test]
fn a_connection_shows_its_handshake_its_session_and_its_end() {
    let (mut stack, mut peer) = stack_and_peer(1);
    let log = Log::default();
    let app = attach(&mut stack, "server", Probe::sink(&log));
    stack
        .listen(app.app_workers[0], ListenOptions::on("10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap()))
        .unwrap();
    trace(&mut stack, "in");
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::SYN, 100, 0, b""));
    let (syn_ack, _) = peer.takes(&stack)[0];
    let ack = (syn_ack.seq + 1).0;
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::ACK, 101, ack, b""));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::ACK, 101, ack, b"hello"));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::ACK, 101, ack, b"hello"));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::ACK | Flags::FIN, 106, ack, b""));
    let session = log.sessions()[0].to_string();
    let records = records(&mut stack);
    let [syn, ack, data, again, fin] = &records[..] else { panic!("{records:#?}") };
    has(syn, "tcp-lookup", "listener l");
    has(syn, "tcp-input", "CLOSED -> SYN-RECEIVED");
    has(syn, "ip-output", "S. 0:0(0) ack 1");
    has(ack, "tcp-lookup", "handshake of listener l");
    has(ack, "tcp-input", "SYN-RECEIVED -> ESTABLISHED");
    has(ack, "session", &format!("{session} accepted"));
    assert_eq!(ack.session.as_ref(), Some(&session));
    assert_eq!(data.summary, "tcp 10.0.0.2:4000 > 10.0.0.1:80: . 1:6(5) ack 1 win 65535");
    has(data, "tcp-lookup", &format!("session {session}"));
    has(data, "tcp-input", "ESTABLISHED, rcv.nxt 1 -> 6");
    has(data, "session", &format!("{session} readable"));
    assert_eq!((data.dropped, again.dropped), (None, Some("out-of-window")));
    has(fin, "tcp-input", "ESTABLISHED -> CLOSE-WAIT, rcv.nxt 6 -> 7");
    has(fin, "session", &format!("{session} peer closed"));
    // By its session alone.
    stack.trace_clear().unwrap();
    trace(&mut stack, &format!("session {session}"));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::RST, 107, 0, b""));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::RST, 107, 0, b""));
    let records = self::records(&mut stack);
    assert!(records.iter().all(|record| record.session.as_ref() == Some(&session)));
    assert_eq!(records.iter().filter(|record| record.direction == "in").count(), 1, "{records:#?}");
}

#[test]
fn a_syn_that_is_sent_again_is_told_from_the_first() {
    let (mut stack, mut peer) = stack_and_peer(1);
    let log = Log::default();
    let app = attach(&mut stack, "client", Probe::idle(&log));
    trace(&mut stack, "out syn");
    let options = ConnectOptions::to("10.0.0.2:80".parse::<std::net::SocketAddr>().unwrap());
    stack.connect(app.app_workers[0], options).unwrap();
    pass(&mut stack, Duration::from_secs(4));
    assert_eq!(peer.takes(&stack).len(), 3);
    let records = records(&mut stack);
    assert_eq!(records.iter().map(|r| r.retransmission).collect::<Vec<_>>(), [false, true, true]);
    has(&records[1], "tcp-output", "sent again");
    assert!(records.iter().all(|record| record.summary.contains(" S 0:0(0) win ")), "{records:#?}");
}

/// A stack whose client sends 300 kB to its server over a wire that loses packets, with `words` traced.
fn lossy(words: &str) -> (SingleThreaded, Vec<TraceRecord>) {
    let bad = |seed| Impairments { seed, loss: 0.03, delay_us: 2000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(1), bad(1), bad(2));
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    serve(&mut stack, Probe::sink(&server_log), 80);
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event
                && streams.send(ctx, session, 300_000)
            {
                ctx.close(session);
            }
        }),
    );
    trace(&mut stack, words);
    stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    until(&mut stack, LONG, || log.closed() == 1 && server_log.closed() == 1);
    let records = records(&mut stack);
    (stack, records)
}

#[test]
fn every_retransmission_is_marked_and_nothing_else() {
    let (mut stack, records) = lossy("tcp out count 10000");
    let marked = records.iter().filter(|record| record.retransmission).count() as u64;
    let worker = &summary(&mut stack).workers[0];
    let counted = worker.tcp.iter().find(|(name, _)| name == "retransmitted_segments").unwrap().1;
    assert_eq!(marked, counted);
    assert!(marked > 3 && records.len() > 200);
    assert!(records.iter().all(|record| record.session.is_some() || record.summary.contains(" S")));
}

#[test]
fn the_first_are_kept_or_the_last_and_never_more_than_asked_for() {
    let (_, all) = lossy("interface wire0 count 10000");
    let (_, first) = lossy("interface wire0 count 40");
    let (_, last) = lossy("interface wire0 count 40 last");
    assert!(all.len() > 250);
    assert_eq!(first, all[..40]);
    let strip = |records: &[TraceRecord]| -> Vec<_> { records.iter().map(lines).collect() };
    assert_eq!(strip(&last), strip(&all[all.len() - 40..]));
    assert_eq!(last.last().unwrap().number, all.len() as u64);
    assert!(all.iter().all(|record| record.interface == "wire0"));
}

#[test]
fn a_trace_that_keeps_the_last_ones_leaves_another_its_first_ones() {
    let (mut stack, mut peer) = stack_and_peer(1);
    trace(&mut stack, "in count 2");
    trace(&mut stack, "in count 3 last");
    for seq in 0..10 {
        peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, seq, 0, b""));
    }
    let numbers: Vec<u64> = records(&mut stack).iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 2, 8, 9, 10]);
    let newest = stack.inspect(Query::Trace { limit: 4 }).unwrap().trace;
    let numbers: Vec<u64> = newest.records.iter().map(|record| record.number).collect();
    assert_eq!((newest.total, numbers), (5, vec![2, 8, 9, 10]));
    stack.trace_clear().unwrap();
    trace(&mut stack, "in");
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 0, 0, b""));
    assert_eq!(records(&mut stack).iter().map(|record| record.number).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_packet_that_waited_for_its_device_was_not_sent_before() {
    // Who is at the other end takes nothing, and the wire holds one packet.
    let (a, _b) = memory_wire(MemoryWireConfig { ring_packets: 1, ..MemoryWireConfig::default() });
    let mut stack = virtual_stack(config(1), [interface(a, CLIENT, 1)]);
    let log = Log::default();
    let app = attach(&mut stack, "client", Probe::idle(&log));
    trace(&mut stack, "out syn");
    for port in 80..83 {
        let to = std::net::SocketAddr::from(([10, 0, 0, 2], port));
        stack.connect(app.app_workers[0], ConnectOptions::to(to)).unwrap();
    }
    pass(&mut stack, Duration::from_millis(500));
    let records = records(&mut stack);
    let fates: Vec<_> = records.iter().map(|record| (record.dropped, record.retransmission)).collect();
    assert_eq!(fates, [(None, false), (Some("device-stuck"), false), (Some("device-stuck"), false)]);
}

#[test]
fn nothing_is_recorded_unless_asked_and_clear_forgets() {
    let (mut stack, mut peer) = stack_and_peer(1);
    let syn = segment("10.0.0.2", 80, Flags::SYN, 100, 0, b"");
    peer.sends(&mut stack, &syn);
    let answer = stack.inspect(Query::Trace { limit: 100 }).unwrap();
    assert_eq!((answer.trace.total, answer.trace.traces.len(), answer.trace.records.len()), (0, 0, 0));
    trace(&mut stack, "udp");
    trace(&mut stack, "tcp port 80 count 1");
    peer.sends(&mut stack, &syn);
    peer.sends(&mut stack, &syn);
    let answer = stack.inspect(Query::Trace { limit: 100 }).unwrap();
    assert_eq!(answer.trace.traces, ["udp count 50", "tcp port 80 count 1"]);
    assert_eq!((answer.trace.total, answer.trace.records.len()), (1, 1));
    stack.trace_clear().unwrap();
    peer.sends(&mut stack, &syn);
    assert_eq!(stack.inspect(Query::Trace { limit: 100 }).unwrap().trace, Default::default());
    for _ in 0..8 {
        trace(&mut stack, "any");
    }
    let full = stack.trace_add("any".parse().unwrap()).unwrap_err();
    assert_eq!(full, TraceError::TooMany);
    let no_interface = stack.trace_add("interface eth7".parse().unwrap()).unwrap_err();
    assert!(no_interface.to_string().contains("there are wire0"), "{no_interface}");
    // Two traces see a packet: it is recorded once.
    peer.sends(&mut stack, &syn);
    assert_eq!(records(&mut stack).len(), 2);
    let newest = stack.inspect(Query::Trace { limit: 1 }).unwrap().trace;
    assert_eq!((newest.total, newest.records[0].direction), (2, "out"));
}

#[test]
fn questions_and_answers_about_neighbours_show_what_was_done() {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let wire = MemoryWireConfig { macs: Some([mac(1), mac(2)]), ..MemoryWireConfig::default() };
    let mut stack = stack_of(config(1), wire);
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    trace(&mut stack, "any");
    stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    until(&mut stack, LONG, || log.up() == 1);
    let records = records(&mut stack);
    let asked = records.iter().find(|r| r.direction == "in" && r.summary.contains("who has it")).unwrap();
    has(asked, "arp-input", "asks for an address of ours: answered");
    has(asked, "ip-output", "here I am");
    let told = records.iter().find(|r| r.direction == "in" && r.summary.contains("here I am")).unwrap();
    has(told, "arp-input", "tells of a neighbour: heeded");
}

/// An ICMP message from the peer.
fn icmp(message: &icmpv4::Message<'_>) -> Vec<u8> {
    let mut body = vec![0; message.len()];
    message.emit(&mut body);
    let (src, dst) = ([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
    let mut packet = vec![0; ipv4::Header::LEN];
    ipv4::Header::new(src, dst, IpProtocol::ICMPV4, body.len()).emit(&mut packet);
    packet.extend(body);
    packet
}

#[test]
fn a_ping_and_icmp_errors_show_what_was_done() {
    let (mut stack, mut peer) = stack_and_peer(1);
    let log = Log::default();
    let app = attach(&mut stack, "client", Probe::idle(&log));
    let options = ConnectOptions::to("10.0.0.2:80".parse::<std::net::SocketAddr>().unwrap());
    stack.connect(app.app_workers[0], options).unwrap();
    let _ = stack.settle();
    let (syn, _) = peer.takes(&stack)[0];
    trace(&mut stack, "icmp in");
    peer.sends(&mut stack, &icmp(&icmpv4::Message::EchoRequest(Echo { id: 7, seq: 1, data: b"x" })));
    // What the peer's router quotes: the SYN, and then one that was never sent.
    for seq in [syn.seq, syn.seq + 1000] {
        let mut quote = vec![0; ipv4::Header::LEN];
        ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), IpProtocol::TCP, 20).emit(&mut quote);
        let mut header = vec![0; 60];
        let len = SegmentHeader { seq, options: Options::default(), ..syn }.emit(&mut header);
        quote.extend(&header[..len]);
        peer.sends(&mut stack, &icmp(&icmpv4::Message::Unreachable { code: 1, mtu: 0, quote: &quote }));
    }
    let records = records(&mut stack);
    let [ping, heard, forged] = &records[..] else { panic!("{records:#?}") };
    has(ping, "ip-input", "an echo request: answered");
    has(ping, "ip-output", "wire0 icmp 10.0.0.1 > 10.0.0.2: echo reply id 7 seq 1");
    assert!(heard.summary.contains("unreachable, code 1 about tcp 10.0.0.1:"), "{}", heard.summary);
    has(heard, "tcp-lookup", "half-open ho");
    has(heard, "main", "the error for half-open ho");
    assert_eq!((heard.dropped, forged.dropped), (None, Some("icmp-out-of-window")));
    has(forged, "icmp-input", "dropped: icmp-out-of-window");
}

/// A device of one hardware queue: worker 0 receives everything, all workers send.
struct OneQueue(Box<dyn Device>);

impl Device for OneQueue {
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
        let queue = Arc::new(Mutex::new(self.0.into_queues(1)?.remove(0)));
        let share = |number| Shared { queue: queue.clone(), receives: number == 0 };
        Ok((0..count).map(|number| Box::new(share(number)) as Box<dyn DeviceQueue>).collect())
    }
}

struct Shared {
    queue: Arc<Mutex<Box<dyn DeviceQueue>>>,
    receives: bool,
}

impl DeviceQueue for Shared {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        if self.receives { self.queue.lock().receive(now_us, pool, into, max) } else { 0 }
    }
    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.queue.lock().transmit(now_us, pool, packets)
    }
    fn next_deadline_us(&self) -> Option<u64> {
        if self.receives { self.queue.lock().next_deadline_us() } else { None }
    }
    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        if self.receives {
            self.queue.lock().set_notify(notify);
        }
    }
    fn counters(&self) -> DeviceCounters {
        DeviceCounters::default()
    }
}

#[test]
fn a_packet_that_is_handed_over_shows_on_both_workers_as_the_same() {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let (a, b) = (OneQueue(Box::new(a)), OneQueue(Box::new(b)));
    let mut stack = virtual_stack(config(2), [interface(a, CLIENT, 1), interface(b, SERVER, 2)]);
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    trace(&mut stack, "tcp in count 1000");
    for _ in 0..20 {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 20 && server_log.accepted() == 20);
    let records = records(&mut stack);
    let handed: Vec<_> = records
        .iter()
        .filter(|record| record.stages.iter().any(|stage| stage.text == "worker 1: handed over"))
        .collect();
    assert!(handed.len() > 10);
    for sender in handed {
        assert_eq!((sender.worker, &sender.session), (0, &None));
        let receiver =
            records.iter().find(|record| record.worker == 1 && record.packet == sender.packet).unwrap();
        has(receiver, "handover-input", "from the worker that received it");
        has(receiver, "steer", "worker 1: here");
        assert!(receiver.stages.iter().any(|stage| stage.stage == "tcp-lookup"));
        assert!(receiver.at_us >= sender.at_us);
    }
}

#[test]
fn a_segment_that_waits_for_main_shows_when_it_waits_and_when_it_goes_on() {
    // The SYN-ACK comes twice: the second finds main deciding.
    let twice = Impairments { duplicate: 1.0, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(1), Impairments::default(), twice);
    let (log, server_log) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server_log), 80);
    let client = attach(&mut stack, "client", Probe::idle(&log));
    trace(&mut stack, "in interface wire0 count 1000");
    for _ in 0..4 {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    }
    until(&mut stack, LONG, || log.up() == 4);
    let records = records(&mut stack);
    let main = records.iter().find(|record| record.stages.iter().any(|stage| stage.stage == "main")).unwrap();
    has(main, "tcp-lookup", "half-open ho");
    has(main, "main", "goes to main");
    let parked = records.iter().filter(|record| record.stages.iter().any(|stage| stage.stage == "park"));
    let mut count = 0;
    for parked in parked {
        count += 1;
        let again = records
            .iter()
            .find(|record| record.packet == parked.packet && record.stages[0].stage == "unpark")
            .unwrap_or_else(|| panic!("{parked:#?} did not go on"));
        assert!(again.session.is_some());
        has(again, "tcp-input", "ESTABLISHED");
    }
    assert!(count > 0, "{records:#?}");
}

// ---- a watched run is like any other ----

fn builder(seed: u64) -> Builder {
    let bad = |seed| Impairments {
        seed,
        loss: 0.05,
        reorder: 0.05,
        duplicate: 0.02,
        corrupt: 0.02,
        delay_us: 700,
        jitter_us: 300,
        ..Impairments::default()
    };
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let (a, b) = (impair(Box::new(OneQueue(Box::new(a))), bad(seed)), impair(Box::new(b), bad(seed + 1)));
    let config = StackConfig { seed: Some(seed), ..config(2) };
    Stack::builder().config(config).interface(interface(a, CLIENT, 1)).interface(interface(b, SERVER, 2))
}

/// Runs the same clients and server on a stack, watched or not.
fn world(mut stack: SingleThreaded, capture: Option<&std::path::Path>) -> (SingleThreaded, Log) {
    let (log, server_log) = (Log::default(), Log::default());
    let server = stack.attach(Probe::echo(&server_log), AttachOptions::named("server")).unwrap();
    stack.listen(server.app_workers[0], listen_on(Family::V4, 80)).unwrap();
    let does = |ctx: &mut Context<'_>, event: &Event| match *event {
        Event::Connected(_, _, Ok(session)) => _ = ctx.write(session, &[7; 3000]),
        Event::Readable(session) => {
            let got = ctx.opaque(session) + drain(ctx, session) as u64;
            ctx.set_opaque(session, got);
            if got >= 3000 {
                ctx.close(session);
            }
        }
        _ => {}
    };
    let client = stack.attach(Probe::new(&log, does), AttachOptions::named("client")).unwrap();
    if let Some(file) = capture {
        trace(&mut stack, "any count 10000");
        trace(&mut stack, "dropped last");
        stack.pcap_start(CaptureSpec::new(file)).unwrap();
    }
    for port in [80, 81] {
        for _ in 0..20 {
            stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(port))).unwrap();
        }
    }
    (stack, log)
}

fn run(capture: Option<&std::path::Path>) -> (Recording, Vec<TraceRecord>) {
    let mut stack = Stack::single_threaded(builder(5)).unwrap();
    stack.use_virtual_time_from(Instant::from_micros(1));
    stack.record();
    let (mut stack, log) = world(stack, capture);
    until(&mut stack, LONG, || log.outcomes().len() == 40 && log.closed() == log.up());
    let recording = stack.take_recording();
    let records = records(&mut stack);
    if capture.is_some() {
        let report = stack.pcap_stop().unwrap();
        assert!(report.packets > 400 && report.missed == 0, "{report:?}");
    }
    (recording, records)
}

#[test]
fn a_watched_run_sends_what_an_unwatched_one_sends_and_replays_to_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, _) = run(None);
    let (watched, records) = run(Some(&folder.path().join("run.pcapng")));
    assert_eq!(plain.digest, watched.digest);
    assert!(records.len() > 400);
    let mut replay = Stack::replay(builder(5), &watched).unwrap();
    (replay, _) = world(replay, Some(&folder.path().join("replay.pcapng")));
    assert_eq!(replay.finish_replay(), watched.digest);
}
