//! Captures that are started and stopped while the stack runs: one file of all workers and interfaces, with what became of
//! each packet as its comment.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use common::peer::{segment, stack_and_peer};
use common::*;
use hoststack::app::*;
use hoststack::inspect::CaptureState;
use hoststack::net::{Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::{CaptureError, CaptureSpec, SingleThreaded, Stack};
use hoststack_wire::Flags;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

const LONG: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Captured {
    interface: String,
    at_us: u64,
    is_out: bool,
    comment: String,
    data: Vec<u8>,
}

fn read(file: &Path) -> Vec<Captured> {
    let mut reader = PcapNgReader::new(File::open(file).unwrap()).unwrap();
    let (mut names, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                names.push(interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                }));
            }
            Block::EnhancedPacket(packet) => packets.push(captured(&names, &packet)),
            other => panic!("unexpected {other:?}"),
        }
    }
    packets
}

fn captured(names: &[Option<String>], packet: &EnhancedPacketBlock<'_>) -> Captured {
    let (mut comment, mut flags) = (String::new(), 0);
    for option in &packet.options {
        match option {
            EnhancedPacketOption::Comment(text) => comment = text.to_string(),
            EnhancedPacketOption::Flags(bits) => flags = *bits,
            _ => {}
        }
    }
    Captured {
        interface: names[packet.interface_id as usize].clone().unwrap(),
        // The reader hands the raw number out as nanoseconds, whatever if_tsresol says.
        at_us: packet.timestamp.as_nanos() as u64,
        is_out: flags == 2,
        comment,
        data: packet.data.to_vec(),
    }
}

fn spec(folder: &tempfile::TempDir, name: &str, words: &str) -> CaptureSpec {
    let spec = CaptureSpec::new(folder.path().join(name)).with_words(words).unwrap();
    CaptureSpec { epoch_us: Some(1_000_000_000_000), ..spec }
}

/// A peer whose segments are refused, damaged and accepted while a capture runs.
fn eventful(folder: &tempfile::TempDir, words: &str) -> (Vec<Captured>, String) {
    let (mut stack, mut peer) = stack_and_peer(1);
    let log = Log::default();
    let app = attach(&mut stack, "server", Probe::sink(&log));
    let on = ListenOptions::on("10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
    stack.listen(app.app_workers[0], on).unwrap();
    let spec = spec(folder, "x.pcapng", words);
    stack.pcap_start(spec.clone()).unwrap();
    stack.advance(Duration::from_millis(5));
    let mut bad = segment("10.0.0.2", 80, Flags::SYN, 100, 0, b"");
    *bad.last_mut().unwrap() ^= 1;
    peer.sends(&mut stack, &bad);
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::SYN, 100, 0, b""));
    let (syn_ack, _) = *peer.takes(&stack).last().unwrap();
    let ack = (syn_ack.seq + 1).0;
    peer.sends(&mut stack, &segment("10.0.0.2", 80, Flags::ACK, 101, ack, b"hello"));
    pass(&mut stack, Duration::from_millis(500));
    let report = stack.pcap_stop().unwrap();
    let packets = read(&spec.file);
    assert_eq!((report.packets, report.missed), (packets.len() as u64, 0));
    assert_eq!(
        (report.bytes, report.state),
        (std::fs::metadata(&spec.file).unwrap().len(), CaptureState::Stopped)
    );
    // After the stop nothing is written.
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    assert_eq!(read(&spec.file).len(), packets.len());
    (packets, log.sessions()[0].to_string())
}

#[test]
fn comments_tell_session_drop_reason_and_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (packets, session) = eventful(&folder, "");
    let comments: Vec<(bool, &str)> = packets.iter().map(|p| (p.is_out, p.comment.as_str())).collect();
    let of_session = format!("session {session}; worker 0");
    assert_eq!(
        comments,
        [
            (false, "dropped: tcp-bad-checksum; worker 0"),
            (false, "dropped: no-flow; worker 0"),
            (true, "worker 0"),
            (false, "worker 0"),
            (true, "worker 0"),
            (false, of_session.as_str()),
            (true, of_session.as_str()),
        ]
    );
    assert!(packets.iter().all(|packet| packet.interface == "wire0" && packet.data.len() >= 40));
    let after_start: Vec<u64> = packets.iter().map(|packet| packet.at_us - 1_000_000_000_000).collect();
    assert!(after_start[0] == 5000 && after_start.is_sorted(), "{after_start:?}");
}

#[test]
fn a_filter_also_by_what_became_of_a_packet() {
    let folder = tempfile::tempdir().unwrap();
    let (packets, _) = eventful(&folder, "dropped");
    assert_eq!(packets.len(), 2);
    let (packets, _) = eventful(&folder, "tcp syn out");
    assert_eq!(packets.len(), 1);
    let (packets, session) = eventful(&folder, "session 0:0.0");
    assert_eq!((packets.len(), session.as_str()), (2, "0:0.0"));
    let (packets, _) = eventful(&folder, "udp");
    assert_eq!(packets.len(), 0);
}

#[test]
fn a_file_that_cannot_be_created_is_an_error_that_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut stack, mut peer) = stack_and_peer(1);
    assert!(matches!(stack.pcap_stop(), Err(CaptureError::NotRunning)));
    let nowhere = CaptureSpec::new(folder.path().join("no/such/folder/x.pcapng"));
    let error = stack.pcap_start(nowhere.clone()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot write {}: ", nowhere.file.display())), "{error}");
    assert_eq!(stack.pcap(), None);
    // It can be started all the same; and another start leaves it, and its file, alone.
    let good = spec(&folder, "x.pcapng", "");
    stack.pcap_start(good.clone()).unwrap();
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    for again in [nowhere, good.clone()] {
        let error = stack.pcap_start(again).unwrap_err();
        assert!(error.to_string().contains("`pcap stop` it first"), "{error}");
    }
    let no_interface = spec(&folder, "y.pcapng", "interface eth7");
    assert!(stack.pcap_start(no_interface.clone()).unwrap_err().to_string().contains("there are wire0"));
    assert!(!no_interface.file.exists());
    assert_eq!(stack.pcap().unwrap().state, CaptureState::Running);
    peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    assert_eq!(stack.pcap_stop().unwrap().packets, 4);
    assert_eq!(read(&good.file).len(), 4);
    assert!(matches!(stack.pcap_stop(), Err(CaptureError::NotRunning)));
}

#[test]
fn the_file_grows_no_larger_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let (mut stack, mut peer) = stack_and_peer(1);
    let spec = spec(&folder, "x.pcapng", "size 4096");
    stack.pcap_start(spec.clone()).unwrap();
    for _ in 0..100 {
        peer.sends(&mut stack, &segment("10.0.0.2", 81, Flags::SYN, 100, 0, b""));
    }
    let report = stack.pcap_stop().unwrap();
    let len = std::fs::metadata(&spec.file).unwrap().len();
    assert!(len == report.bytes && len <= 4096 && len > 4096 - 200, "{report:?}");
    assert_eq!((report.state, read(&spec.file).len() as u64), (CaptureState::Full, report.packets));
}

#[test]
fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (mut stack, _peer) = stack_and_peer(1);
    let spec = spec(&folder, "x.pcapng", "");
    stack.pcap_start(spec.clone()).unwrap();
    assert_eq!(std::fs::metadata(&spec.file).unwrap().permissions().mode() & 0o077, 0);
}

/// Clients on all workers, whose sessions echo.
fn echoes(sessions: usize) -> (Log, Probe) {
    let log = Log::default();
    let probe = Probe::new(&log, |ctx, event| match *event {
        Event::Connected(_, _, Ok(session)) => _ = ctx.write(session, b"hello"),
        Event::Readable(session) => {
            drain(ctx, session);
            ctx.close(session);
        }
        _ => {}
    });
    assert!(sessions > 0);
    (log, probe)
}

/// Every packet is there once as it leaves one interface and once as it comes in at the other.
fn assert_paired(packets: &[Captured]) {
    let mut balance: BTreeMap<&[u8], i64> = BTreeMap::new();
    for packet in packets {
        *balance.entry(&packet.data).or_default() += if packet.is_out { 1 } else { -1 };
    }
    assert!(balance.values().all(|count| *count == 0), "{balance:?}");
}

#[test]
fn all_workers_and_interfaces_of_a_threaded_stack_go_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let builder = Stack::builder().config(config(2));
    let builder = builder.interface(interface(a, CLIENT, 1)).interface(interface(b, SERVER, 2));
    let stack = builder.start().unwrap();
    let handle = stack.handle();
    let spec = CaptureSpec { epoch_us: None, ..spec(&folder, "x.pcapng", "tcp") };
    handle.pcap_start(spec.clone()).unwrap();
    let server_log = Log::default();
    let server = handle.attach(Probe::echo(&server_log), AttachOptions::named("server")).unwrap();
    handle.listen(server.app_workers[0], listen_on(Family::V4, 80)).unwrap();
    let (log, probe) = echoes(40);
    let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
    for _ in 0..40 {
        handle.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    }
    // Answers come when workers have stepped: a wait that is none for time.
    while log.closed() < 40 || server_log.closed() < 40 {
        handle.inspect(hoststack::Query::Summary).unwrap();
    }
    let report = handle.pcap_stop().unwrap();
    let packets = read(&spec.file);
    assert_eq!((report.packets, report.missed), (packets.len() as u64, 0));
    assert!(packets.len() >= 40 * 2 * 7, "{}", packets.len());
    assert_paired(&packets);
    for (interface, worker) in [("wire0", "0"), ("wire0", "1"), ("wire1", "0"), ("wire1", "1")] {
        let suffix = format!("worker {worker}");
        let found = packets.iter().filter(|p| p.interface == interface && p.comment.ends_with(&suffix));
        assert!(found.count() > 20, "{interface}, worker {worker}");
    }
    let sessions: std::collections::BTreeSet<&str> = packets
        .iter()
        .filter_map(|packet| packet.comment.strip_prefix("session ")?.split(';').next())
        .collect();
    assert_eq!(sessions.len(), 80);
    // The host's clock: this century.
    assert!(packets[0].at_us > 1_700_000_000_000_000);
}

#[test]
fn a_capture_that_nobody_stops_is_whole_when_the_stack_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let builder = Stack::builder().config(config(1));
    let stack =
        builder.interface(interface(a, CLIENT, 1)).interface(interface(b, SERVER, 2)).start().unwrap();
    let handle = stack.handle();
    let spec = spec(&folder, "x.pcapng", "tcp");
    handle.pcap_start(spec.clone()).unwrap();
    let (log, probe) = echoes(1);
    let client = handle.attach(probe, AttachOptions::named("client")).unwrap();
    handle.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    while log.cleaned() < 1 {
        handle.inspect(hoststack::Query::Summary).unwrap();
    }
    drop(stack);
    assert_eq!(read(&spec.file).len(), 4, "a SYN and a reset, as they leave and as they come");
    assert!(handle.pcap_start(spec).unwrap_err().to_string().contains("stopped"));
}

fn lossy_echo(stack: &mut SingleThreaded) {
    let server_log = Log::default();
    serve(stack, Probe::echo(&server_log), 80);
    let (log, probe) = echoes(30);
    let client = attach(stack, "client", probe);
    for _ in 0..30 {
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
    }
    until(stack, LONG, || log.closed() == 30 && server_log.closed() == 30);
}

#[test]
fn tshark_reads_the_file_and_its_comments() {
    if Command::new("tshark").arg("--version").output().is_err() {
        // Past what the runner captures: a test that did not run is no test that passed.
        let _ = writeln!(std::io::stderr(), "skipped: needs tshark");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = |seed| Impairments { seed, loss: 0.1, corrupt: 0.05, ..Impairments::default() };
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let (a, b) = (impair(Box::new(a), bad(1)), impair(Box::new(b), bad(2)));
    let mut stack = virtual_stack(config(1), [interface(a, CLIENT, 1), interface(b, SERVER, 2)]);
    let spec = spec(&folder, "x.pcapng", "");
    stack.pcap_start(spec.clone()).unwrap();
    lossy_echo(&mut stack);
    let report = stack.pcap_stop().unwrap();
    let fields = ["frame.comment", "frame.interface_name", "ip.src", "tcp.flags.syn"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&spec.file).args(["-T", "fields", "-E", "separator=|"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("cut short") && !stderr.contains("damaged"), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len() as u64, report.packets);
    let ours: Vec<String> = read(&spec.file).into_iter().map(|packet| packet.comment).collect();
    let theirs: Vec<&str> = lines.iter().map(|line| line.split('|').next().unwrap()).collect();
    assert_eq!(theirs, ours);
    for wanted in ["session 0:", "sent again", "dropped: tcp-bad-checksum"] {
        assert!(theirs.iter().any(|comment| comment.contains(wanted)), "no comment says `{wanted}`");
    }
    assert!(lines.iter().any(|line| line.contains("|wire0|10.0.0.1|1")));
}
