use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness};
use proptest::prelude::*;

use super::*;
use crate::loopback::Loopback;
use crate::memory_wire::{MemoryWireConfig, memory_wire};

/// A file in memory that the test can still read when the writer has it.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn writer(&self, options: PcapOptions) -> PcapWriter {
        PcapWriter::new(Box::new(self.clone()), options).unwrap()
    }

    fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn read(&self) -> (Vec<(String, DataLink)>, Vec<Read>) {
        let bytes = self.0.lock().unwrap().clone();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        assert_eq!(reader.section().endianness, Endianness::Little);
        let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(idb) => {
                    assert!(idb.options.contains(&InterfaceDescriptionOption::IfTsResol(6)));
                    let name = idb.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    });
                    interfaces.push((name.unwrap(), idb.linktype));
                }
                Block::EnhancedPacket(epb) => {
                    let flags = epb.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Flags(flags) => Some(*flags),
                        _ => None,
                    });
                    packets.push(Read {
                        interface: epb.interface_id,
                        // The reader hands the raw number out as nanoseconds, whatever if_tsresol says.
                        at_us: epb.timestamp.as_nanos() as u64,
                        flags: flags.unwrap(),
                        original_len: epb.original_len,
                        data: epb.data.into_owned(),
                    });
                }
                other => panic!("unexpected block {other:?}"),
            }
        }
        (interfaces, packets)
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    interface: u32,
    at_us: u64,
    flags: u32,
    original_len: u32,
    data: Vec<u8>,
}

#[test]
fn written_packets_read_back_equal() {
    let file = Shared::default();
    let mut writer = file.writer(PcapOptions { epoch_us: 1_700_000_000_000_000, ..PcapOptions::default() });
    assert_eq!(writer.add_interface("tap0", LinkType::Ethernet).unwrap(), 0);
    assert_eq!(writer.add_interface("wire", LinkType::RawIp).unwrap(), 1);
    writer.write_packet(1, 5, Direction::Outbound, b"hello");
    writer.write_packet(0, 6, Direction::Inbound, b"");
    let summary = writer.finish();
    assert_eq!((summary.packets, summary.bytes, summary.missed), (2, file.len(), 0));
    let (interfaces, packets) = file.read();
    assert_eq!(interfaces, [("tap0".to_owned(), DataLink::ETHERNET), ("wire".to_owned(), DataLink::RAW)]);
    let read = |interface, at_us: u64, flags, data: &[u8]| Read {
        interface,
        at_us: 1_700_000_000_000_000 + at_us,
        flags,
        original_len: data.len() as u32,
        data: data.to_vec(),
    };
    assert_eq!(packets, [read(1, 5, 2, b"hello"), read(0, 6, 1, b"")]);
}

#[test]
fn comments_read_back_and_blocks_encoded_elsewhere_count_like_others() {
    let file = Shared::default();
    let mut writer = file.writer(PcapOptions { packets_max: Some(3), ..PcapOptions::default() });
    writer.add_interface("tap0", LinkType::Ethernet).unwrap();
    let mut packets = PacketBlocks::default();
    assert!(packets.is_empty());
    packets.add(0, 5, Direction::Inbound, 100, b"first", "dropped: tcp-bad-checksum; worker 1");
    packets.add(0, 6, Direction::Outbound, 100, b"second", "");
    assert_eq!(packets.len(), 2);
    writer.write(&packets);
    writer.write(&packets);
    let summary = writer.finish();
    assert_eq!((summary.packets, summary.missed), (3, 1));
    let bytes = file.0.lock().unwrap().clone();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut comments = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            comments.push(packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                _ => None,
            }));
        }
    }
    let said = Some("dropped: tcp-bad-checksum; worker 1".to_owned());
    assert_eq!(comments, [said.clone(), None, said]);
}

#[test]
#[should_panic(expected = "described first")]
fn a_block_of_an_interface_that_is_not_described_is_refused() {
    let mut writer = Shared::default().writer(PcapOptions::default());
    let mut packets = PacketBlocks::default();
    packets.add(0, 0, Direction::Inbound, 100, b"x", "");
    writer.write(&packets);
}

#[test]
fn snap_len_cuts_the_data_and_keeps_the_length() {
    let file = Shared::default();
    let mut writer = file.writer(PcapOptions { snap_len: 3, ..PcapOptions::default() });
    writer.add_interface("i", LinkType::RawIp).unwrap();
    writer.write_packet(0, 0, Direction::Inbound, b"abcdef");
    writer.finish();
    let (_, packets) = file.read();
    assert_eq!((packets[0].original_len, &packets[0].data[..]), (6, &b"abc"[..]));
}

#[test]
fn packet_and_byte_limits_end_the_capture() {
    let file = Shared::default();
    let mut writer = file.writer(PcapOptions { packets_max: Some(2), ..PcapOptions::default() });
    writer.add_interface("i", LinkType::RawIp).unwrap();
    for n in 0..5 {
        assert_eq!(writer.is_full(), n >= 2);
        writer.write_packet(0, n, Direction::Inbound, b"x");
    }
    let summary = writer.finish();
    assert_eq!((summary.packets, summary.missed, file.read().1.len()), (2, 3, 2));

    let file = Shared::default();
    let mut writer = file.writer(PcapOptions { bytes_max: Some(1000), ..PcapOptions::default() });
    writer.add_interface("i", LinkType::RawIp).unwrap();
    for n in 0..50 {
        writer.write_packet(0, n, Direction::Inbound, &[0; 100]);
    }
    assert!(writer.is_full());
    let summary = writer.finish();
    assert!(summary.bytes <= 1000 && summary.bytes == file.len() && summary.packets > 3);
    assert_eq!(summary.packets + summary.missed, 50);
}

#[test]
fn every_batch_flushes_at_once_and_bytes_when_there_are_enough() {
    for (flush, at_once) in [(FlushPolicy::EveryBatch, true), (FlushPolicy::Bytes(4096), false)] {
        let file = Shared::default();
        let mut writer = file.writer(PcapOptions { flush, ..PcapOptions::default() });
        writer.add_interface("i", LinkType::RawIp).unwrap();
        writer.write_packet(0, 0, Direction::Inbound, &[1; 100]);
        assert_eq!(file.len() == writer.summary().bytes, at_once);
        writer.write_packet(0, 0, Direction::Inbound, &[1; 5000]);
        assert_eq!(file.len(), writer.summary().bytes);
    }
}

#[test]
fn failed_write_ends_the_capture_and_is_told() {
    struct Broken(usize);
    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("disk full"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let options = PcapOptions { flush: FlushPolicy::EveryBatch, ..PcapOptions::default() };
    let mut writer = PcapWriter::new(Box::new(Broken(400)), options).unwrap();
    writer.add_interface("i", LinkType::RawIp).unwrap();
    for _ in 0..4 {
        writer.write_packet(0, 0, Direction::Inbound, &[0; 150]);
    }
    let summary = writer.finish();
    assert_eq!((summary.packets, summary.missed), (1, 3));
    assert_eq!(summary.error.as_deref(), Some("disk full"));
}

fn vector(bytes: &[u8]) -> Vec<Packet> {
    bytes.iter().map(|&b| Packet::copy_of(&[b; 7])).collect()
}

#[test]
fn device_is_captured_both_ways_once_and_only_what_was_taken() {
    let capture_point = Capture::new();
    let loopback = Box::new(Loopback { ring_packets: 2, ..Loopback::default() });
    let device = capture(loopback, &capture_point);
    assert_eq!((device.name(), device.mtu(), device.mac()), ("lo", 1500, None));
    let mut queue = Box::new(device).into_queues(1).unwrap().remove(0);
    let mut pool = PacketPool::default();

    // Before the start nothing is recorded.
    let mut packets = vector(&[9]);
    queue.transmit(0, &mut pool, &mut packets);
    queue.receive(0, &mut pool, &mut packets, 10);
    assert!(!capture_point.is_active());

    let file = Shared::default();
    assert!(capture_point.start(file.writer(PcapOptions::default())).unwrap().is_none());
    let mut packets = vector(&[1, 2, 3]);
    assert_eq!(queue.transmit(10, &mut pool, &mut packets), 2);
    assert_eq!(queue.transmit(11, &mut pool, &mut packets), 0);
    packets.truncate(0);
    assert_eq!(queue.receive(12, &mut pool, &mut packets, 10), 2);
    let summary = capture_point.stop().unwrap();
    assert_eq!(summary.packets, 4);

    // After the stop neither.
    queue.transmit(20, &mut pool, &mut packets);
    let (interfaces, read) = file.read();
    assert_eq!(interfaces, [("lo".to_owned(), DataLink::RAW)]);
    let seen: Vec<_> = read.iter().map(|r| (r.at_us, r.flags, r.data[0], r.data.len())).collect();
    assert_eq!(seen, [(10, 2, 1, 7), (10, 2, 2, 7), (12, 1, 1, 7), (12, 1, 2, 7)]);
}

#[test]
fn devices_and_queues_share_one_file() {
    let capture_point = Capture::new();
    let macs = Some([MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])]);
    let (a, b) = memory_wire(MemoryWireConfig { macs, ..MemoryWireConfig::default() });
    let a = Box::new(capture(Box::new(a), &capture_point));
    let file = Shared::default();
    capture_point.start(file.writer(PcapOptions::default())).unwrap();
    // A device that comes while the capture runs is described when it comes.
    let b = Box::new(capture(Box::new(b), &capture_point));
    let (a, b) = (a.into_queues(2).unwrap(), b.into_queues(2).unwrap());
    std::thread::scope(|scope| {
        for (n, (mut a, mut b)) in (1..).zip(a.into_iter().zip(b)) {
            scope.spawn(move || {
                let mut pool = PacketPool::default();
                for now in 0..100 {
                    let mut packets = vector(&[n, n]);
                    a.transmit(now, &mut pool, &mut packets);
                    b.receive(now, &mut pool, &mut packets, 10);
                    pool.give_all(&mut packets);
                }
            });
        }
    });
    assert_eq!(capture_point.summary().unwrap().packets, 800);
    capture_point.flush().unwrap();
    let (interfaces, packets) = file.read();
    assert_eq!(
        interfaces,
        [("wire0".to_owned(), DataLink::ETHERNET), ("wire1".to_owned(), DataLink::ETHERNET)]
    );
    for (interface, flags, data) in [(0, 2, 1), (0, 2, 2), (1, 1, 1), (1, 1, 2)] {
        let matching =
            packets.iter().filter(|p| (p.interface, p.flags, p.data[0]) == (interface, flags, data));
        assert_eq!(matching.count(), 200);
    }
}

#[test]
fn reached_limit_stops_the_capture_point() {
    let capture_point = Capture::new();
    let device = Box::new(capture(Box::new(Loopback::default()), &capture_point));
    let mut queue = device.into_queues(1).unwrap().remove(0);
    let options = PcapOptions { packets_max: Some(3), ..PcapOptions::default() };
    let file = Shared::default();
    capture_point.start(file.writer(options)).unwrap();
    queue.transmit(0, &mut PacketPool::default(), &mut vector(&[1, 2, 3, 4, 5]));
    assert!(!capture_point.is_active());
    assert_eq!(file.read().1.len(), 3);
    let again = Shared::default();
    let ended = capture_point.start(again.writer(PcapOptions::default())).unwrap().unwrap();
    assert_eq!((ended.packets, ended.missed), (3, 2));
    assert!(capture_point.is_active());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packets_read_back_equal(
        packets in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..30),
    ) {
        let file = Shared::default();
        let mut writer = file.writer(PcapOptions::default());
        writer.add_interface("x", LinkType::RawIp).unwrap();
        for (at, data) in &packets {
            writer.write_packet(0, u64::from(*at) << 8, Direction::Inbound, data);
        }
        writer.finish();
        let (_, read) = file.read();
        let read: Vec<_> = read.into_iter().map(|r| ((r.at_us >> 8) as u32, r.data)).collect();
        prop_assert_eq!(read, packets);
    }
}
