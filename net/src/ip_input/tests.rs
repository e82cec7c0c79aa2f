use super::*;
use crate::ip_testing::*;
use crate::{InterfaceConfig, IpLimits, NetEvent, OutFlow, RxChecksum, Sighting};
use hoststack_wire::{Segment as WireSegment, arp, icmpv4, icmpv6, multicast_mac, solicited_node_multicast};

fn v4_with(change: impl FnOnce(&mut ipv4::Header)) -> Vec<u8> {
    let whole = tcp_packet("10.0.0.2", 80, "10.0.0.1", 4000, b"hello");
    let mut header = ipv4::Header::new(v4("10.0.0.2"), v4("10.0.0.1"), IpProtocol::TCP, whole.len() - 20);
    change(&mut header);
    v4_packet(header, &whole[20..])
}

#[test]
fn segment_is_found_in_either_family_and_on_either_link() {
    for (interface, peer, ours) in [
        (RAW, "10.0.0.2", "10.0.0.1"),
        (RAW, "2001:db8::2", "2001:db8::1"),
        (ETH, "192.168.1.2", "192.168.1.1"),
        (ETH, "2001:db8:2::2", "2001:db8:2::1"),
        // A host answers for all addresses of the domain on all its interfaces (RFC 1122 §3.3.4.2, weak).
        (ETH, "192.168.1.2", "10.0.0.1"),
    ] {
        let mut bench = Bench::new();
        let mut bytes = tcp_packet(peer, 80, ours, 4000, b"hello");
        if interface == ETH {
            let ether_type = if ip(peer).is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
            bytes = frame(OURS, PEER, ether_type, &bytes);
            // Ethernet pads short frames; the padding is not payload.
            bytes.extend([0xee; 9]);
        }
        bench.gets(interface, &bytes);
        assert_eq!(bench.path.drops().total(), 0);
        let segment = bench.out.segments.pop().unwrap();
        assert_eq!(
            (segment.src, segment.src_port, segment.dst, segment.dst_port),
            (ip(peer), 80, ip(ours), 4000)
        );
        assert_eq!((segment.interface, segment.domain, segment.ecn), (interface, 0, 0));
        assert_eq!(segment.hash, hasher().hash(ip(ours), 4000, ip(peer), 80));
        assert_eq!(WireSegment::parse(segment.tcp_bytes()).unwrap().payload, b"hello");
    }
}

// covers: MUST-50
#[test]
fn ip_options_are_skipped_unread() {
    let plain = v4_with(|_| {});
    // Record Route with room for one address, No-Operations, an option that nobody has defined, End of List.
    for list in [&[7u8, 7, 4, 0, 0, 0, 0, 1][..], &[1; 4], &[0x9e, 6, 1, 2, 3, 4, 0, 0], &[0; 40]] {
        let mut bytes = plain[..20].to_vec();
        bytes.extend(list);
        bytes.extend(&plain[20..]);
        bytes[0] = 0x40 | (5 + list.len() / 4) as u8;
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = hoststack_wire::checksum(&bytes[..20 + list.len()]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut bench = Bench::new();
        assert_eq!(bench.drops(RAW, &bytes), None, "{list:?}");
        let segment = bench.out.segments.pop().unwrap();
        assert_eq!(bytes[segment.l4_offset as usize..], plain[20..], "{list:?}");
    }
}

#[test]
fn ecn_bits_are_passed_up() {
    let mut bench = Bench::new();
    bench.gets(RAW, &v4_with(|header| header.dscp_ecn = 0xb8 | 3));
    assert_eq!(bench.out.segments[0].ecn, 3);
}

// covers: MUST-57, MUST-63
#[test]
fn ipv4_headers_that_must_not_be_are_dropped_with_their_reason() {
    let good = v4_with(|_| {});
    let mut damaged = good.clone();
    damaged[8] ^= 1;
    let mut short_header = good.clone();
    short_header[0] = 0x44;
    let mut version = good.clone();
    version[0] = 0x55;
    for (bytes, reason) in [
        (damaged, DropReason::IpBadChecksum),
        (short_header, DropReason::IpBadLength),
        (version, DropReason::IpBadVersion),
        (good[..19].to_vec(), DropReason::IpTruncated),
        (good[..good.len() - 1].to_vec(), DropReason::IpTruncated),
        (Vec::new(), DropReason::IpTruncated),
        (v4_with(|header| header.total_len = 10), DropReason::IpBadLength),
        (v4_with(|header| header.more_fragments = true), DropReason::IpFragment),
        (v4_with(|header| header.fragment_offset = 800), DropReason::IpFragment),
        (v4_with(|header| header.protocol = IpProtocol(99)), DropReason::ProtocolUnknown),
        (v4_with(|header| header.src = v4("0.0.0.0")), DropReason::SourceUnspecified),
        (v4_with(|header| header.src = v4("0.1.2.3")), DropReason::SourceUnspecified),
        (v4_with(|header| header.src = v4("127.0.0.1")), DropReason::SourceMartian),
        (v4_with(|header| header.src = v4("240.0.0.1")), DropReason::SourceMartian),
        (v4_with(|header| header.src = v4("224.0.0.1")), DropReason::SourceGroup),
        (v4_with(|header| header.src = v4("255.255.255.255")), DropReason::SourceGroup),
        (v4_with(|header| header.src = v4("10.0.0.255")), DropReason::SourceGroup),
        (v4_with(|header| header.src = v4("10.0.0.1")), DropReason::SourceOurs),
        (v4_with(|header| header.src = v4("192.168.1.1")), DropReason::SourceOurs),
        (v4_with(|header| header.dst = v4("10.0.0.3")), DropReason::DestinationNotOurs),
        (v4_with(|header| header.dst = v4("10.0.0.255")), DropReason::DestinationGroup),
        (v4_with(|header| header.dst = v4("255.255.255.255")), DropReason::DestinationGroup),
        (v4_with(|header| header.dst = v4("224.0.0.1")), DropReason::DestinationGroup),
    ] {
        assert_eq!(Bench::new().drops(RAW, &bytes), Some(reason), "{bytes:02x?}");
    }
    assert_eq!(Bench::new().drops(RAW, &good), None);
    assert_eq!(Bench::new().drops(InterfaceId(77), &good), Some(DropReason::InterfaceUnknown));
}

// covers: MUST-57, MUST-63
#[test]
fn ipv6_headers_that_must_not_be_are_dropped_with_their_reason() {
    let good = tcp_packet("2001:db8::2", 80, "2001:db8::1", 4000, b"hello");
    let with = |change: &dyn Fn(&mut ipv6::Header)| {
        let mut header =
            ipv6::Header::new(v6("2001:db8::2"), v6("2001:db8::1"), IpProtocol::TCP, good.len() - 40);
        change(&mut header);
        v6_packet(header, &good[40..])
    };
    let mut fragment = vec![6, 0, 0, 1, 0, 0, 0, 9];
    fragment.extend(&good[40..64]);
    let fragment = ip_packet("2001:db8::2", "2001:db8::1", IpProtocol::FRAGMENT, &fragment);
    let mut routed = vec![6, 0, 0, 1, 0, 0, 0, 0];
    routed.extend(&good[40..]);
    let routed = ip_packet("2001:db8::2", "2001:db8::1", IpProtocol::ROUTING, &routed);
    for (bytes, reason) in [
        (good[..39].to_vec(), DropReason::IpTruncated),
        (good[..good.len() - 1].to_vec(), DropReason::IpTruncated),
        (fragment, DropReason::IpFragment),
        (routed, DropReason::IpUnsupported),
        (with(&|header| header.next_header = IpProtocol(99)), DropReason::ProtocolUnknown),
        (with(&|header| header.src = v6("::")), DropReason::SourceUnspecified),
        (with(&|header| header.src = v6("::1")), DropReason::SourceMartian),
        (with(&|header| header.src = v6("::ffff:10.0.0.2")), DropReason::SourceMartian),
        (with(&|header| header.src = v6("ff02::1")), DropReason::SourceGroup),
        (with(&|header| header.src = v6("2001:db8::1")), DropReason::SourceOurs),
        (with(&|header| header.dst = v6("2001:db8::3")), DropReason::DestinationNotOurs),
        (with(&|header| header.dst = v6("ff02::1")), DropReason::DestinationGroup),
    ] {
        assert_eq!(Bench::new().drops(RAW, &bytes), Some(reason), "{bytes:02x?}");
    }
    assert_eq!(Bench::new().drops(RAW, &good), None);
}

#[test]
fn frames_for_others_and_odd_frames_are_dropped() {
    let good = tcp_packet("192.168.1.2", 80, "192.168.1.1", 4000, b"");
    let good6 = tcp_packet("2001:db8:2::2", 80, "2001:db8:2::1", 4000, b"");
    let group = MacAddr([0x33, 0x33, 0, 0, 0, 9]);
    let all_nodes = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    for (bytes, reason) in [
        (vec![0; 13], DropReason::FrameTruncated),
        (frame(PEER, OTHER, EtherType::IPV4, &good), DropReason::FrameNotForUs),
        (frame(group, PEER, EtherType::IPV4, &good), DropReason::FrameNotForUs),
        (frame(OURS, PEER, EtherType::VLAN, &good), DropReason::EtherTypeUnknown),
        (frame(OURS, PEER, EtherType(46), &good), DropReason::EtherTypeUnknown),
        (frame(OURS, PEER, EtherType::IPV6, &good), DropReason::IpBadVersion),
        (frame(OURS, PEER, EtherType::IPV4, &good6), DropReason::IpBadVersion),
        // RFC 1122 §3.3.6.
        (frame(MacAddr::BROADCAST, PEER, EtherType::IPV4, &good), DropReason::DestinationGroup),
        (frame(all_nodes, PEER, EtherType::IPV6, &good6), DropReason::DestinationGroup),
    ] {
        assert_eq!(Bench::new().drops(ETH, &bytes), Some(reason), "{bytes:02x?}");
    }
}

// covers: MUST-3
#[test]
fn tcp_checksum_is_verified_unless_the_interface_trusts_it() {
    let mut bytes = tcp_packet("10.0.0.2", 80, "10.0.0.1", 4000, b"hello");
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(Bench::new().drops(RAW, &bytes), Some(DropReason::TcpBadChecksum));
    let mut bench = Bench::new();
    let config = InterfaceConfig {
        addresses: vec![cidr("172.16.0.1/30")],
        rx_checksum: RxChecksum::Trust,
        ..InterfaceConfig::new(InterfaceId(3), "trusting")
    };
    let update = bench.router.add_interface(config).unwrap();
    bench.apply(&update);
    bytes[12..20].copy_from_slice(&[172, 16, 0, 2, 172, 16, 0, 1]);
    bytes[10..12].fill(0);
    let sum = hoststack_wire::checksum(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(bench.drops(InterfaceId(3), &bytes), None);
    assert_eq!(bench.out.segments.len(), 1);
    let short = ip_packet("10.0.0.2", "10.0.0.1", IpProtocol::TCP, &[0; 19]);
    assert_eq!(Bench::new().drops(RAW, &short), Some(DropReason::TcpTruncated));
}

#[test]
fn segments_are_steered_and_handed_over_to_the_worker_that_sends_on_the_flow() {
    const WORKERS: u8 = 4;
    let mut benches: Vec<_> =
        (0..WORKERS).map(|worker| Bench::with(IpLimits::default(), worker, WORKERS)).collect();
    let mut owned = [0u32; WORKERS as usize];
    for port in 1000..1200u16 {
        let (peer, ours) =
            if port % 2 == 0 { ("10.0.0.2", "10.0.0.1") } else { ("2001:db8::2", "2001:db8::1") };
        benches[0].gets(RAW, &tcp_packet(peer, 80, ours, port, b"x"));
        // The worker that main opens the flow on: hashed from our end.
        let owner = benches[0].path.worker_of(ip(ours), port, ip(peer), 80);
        owned[usize::from(owner)] += 1;
        if owner == 0 {
            assert_eq!(benches[0].out.segments.pop().unwrap().dst_port, port);
        } else {
            let handover = benches[0].out.handovers.pop().unwrap();
            assert_eq!(handover.worker, owner);
            let Bench { now_us, path, pool, out, .. } = &mut benches[usize::from(owner)];
            path.input_handed_over(*now_us, &mut vec![handover], pool, out);
            let segment = out.segments.pop().unwrap();
            assert_eq!((segment.dst_port, segment.src), (port, ip(peer)));
            assert!(out.handovers.is_empty());
        }
        assert!(benches[0].out.segments.is_empty() && benches[0].out.handovers.is_empty());
    }
    assert!(owned.iter().all(|count| *count > 20), "{owned:?}");
    assert_eq!(u64::from(owned[1] + owned[2] + owned[3]), benches[0].path.counters().handovers);
}

// covers: MUST-54
#[test]
fn icmp_error_is_steered_by_the_flow_that_it_quotes() {
    const WORKERS: u8 = 4;
    let mut benches: Vec<_> =
        (0..WORKERS).map(|worker| Bench::with(IpLimits::default(), worker, WORKERS)).collect();
    for port in 1000..1050u16 {
        let quote = tcp_packet("10.0.0.1", port, "203.0.113.9", 80, b"");
        let message =
            icmpv4::Message::Unreachable { code: icmpv4::unreachable::HOST, mtu: 0, quote: &quote[..28] };
        benches[0].gets(RAW, &icmp_v4("198.51.100.1", "10.0.0.1", &message));
        let owner = benches[0].path.worker_of(ip("203.0.113.9"), 80, ip("10.0.0.1"), port);
        let error = if owner == 0 {
            benches[0].out.icmp_errors.pop().unwrap()
        } else {
            let handover = benches[0].out.handovers.pop().unwrap();
            assert_eq!(handover.worker, owner);
            let Bench { now_us, path, pool, out, .. } = &mut benches[usize::from(owner)];
            path.input_handed_over(*now_us, &mut vec![handover], pool, out);
            out.icmp_errors.pop().unwrap()
        };
        assert_eq!(
            (error.local, error.local_port, error.remote, error.remote_port),
            (ip("10.0.0.1"), port, ip("203.0.113.9"), 80)
        );
        assert_eq!((error.kind, error.seq, error.mtu), (IcmpErrorKind::HostUnreachable, SeqNum(1000), None));
    }
}

#[test]
fn icmp_errors_of_both_families_are_told_apart() {
    use IcmpErrorKind::*;
    let quote = tcp_packet("10.0.0.1", 4000, "203.0.113.9", 80, b"");
    let quote = &quote[..28];
    for (message, kind, mtu) in [
        (icmpv4::Message::Unreachable { code: 0, mtu: 0, quote }, NetUnreachable, None),
        (icmpv4::Message::Unreachable { code: 2, mtu: 0, quote }, ProtocolUnreachable, None),
        (icmpv4::Message::Unreachable { code: 3, mtu: 0, quote }, PortUnreachable, None),
        (icmpv4::Message::Unreachable { code: 4, mtu: 1400, quote }, PacketTooBig, Some(1400)),
        (icmpv4::Message::Unreachable { code: 4, mtu: 0, quote }, PacketTooBig, None),
        (icmpv4::Message::Unreachable { code: 13, mtu: 0, quote }, Prohibited, None),
        (icmpv4::Message::TimeExceeded { code: 0, quote }, TimeExceeded, None),
        (icmpv4::Message::ParameterProblem { code: 0, pointer: 1, quote }, ParameterProblem, None),
    ] {
        let mut bench = Bench::new();
        bench.gets(RAW, &icmp_v4("198.51.100.1", "10.0.0.1", &message));
        let error = bench.out.icmp_errors.pop().unwrap();
        assert_eq!((error.kind, error.mtu), (kind, mtu), "{message:?}");
    }
    let quote = &tcp_packet("2001:db8::1", 4000, "2001:db8:9::9", 80, b"")[..];
    for (message, kind, mtu) in [
        (icmpv6::Message::Unreachable { code: 0, quote }, NetUnreachable, None),
        (icmpv6::Message::Unreachable { code: 1, quote }, Prohibited, None),
        (icmpv6::Message::Unreachable { code: 3, quote }, HostUnreachable, None),
        (icmpv6::Message::Unreachable { code: 4, quote }, PortUnreachable, None),
        (icmpv6::Message::PacketTooBig { mtu: 1300, quote }, PacketTooBig, Some(1300)),
        (icmpv6::Message::TimeExceeded { code: 0, quote }, TimeExceeded, None),
        (icmpv6::Message::ParameterProblem { code: 1, pointer: 6, quote }, ProtocolUnreachable, None),
        (icmpv6::Message::ParameterProblem { code: 0, pointer: 6, quote }, ParameterProblem, None),
    ] {
        let mut bench = Bench::new();
        bench.gets(RAW, &icmp_v6("2001:db8:5::1", "2001:db8::1", 60, &message));
        let error = bench.out.icmp_errors.pop().unwrap();
        assert_eq!((error.kind, error.mtu, error.local_port), (kind, mtu, 4000), "{message:?}");
    }
}

// covers: MUST-55
#[test]
fn icmp_that_concerns_no_flow_of_ours_is_dropped() {
    let foreign = tcp_packet("10.0.0.77", 4000, "203.0.113.9", 80, b"");
    let udp = ip_packet("10.0.0.1", "203.0.113.9", IpProtocol::UDP, &[0; 8]);
    let ours = tcp_packet("10.0.0.1", 4000, "203.0.113.9", 80, b"");
    let unreachable =
        |quote| icmp_v4("198.51.100.1", "10.0.0.1", &icmpv4::Message::Unreachable { code: 1, mtu: 0, quote });
    let mut damaged = unreachable(&ours);
    damaged[21] ^= 1;
    for (bytes, reason) in [
        (unreachable(&foreign), DropReason::IcmpQuoteForeign),
        (unreachable(&udp), DropReason::IcmpQuoteForeign),
        (unreachable(&ours[..26]), DropReason::IcmpQuoteForeign),
        (unreachable(&[]), DropReason::IcmpQuoteForeign),
        (damaged, DropReason::IcmpBadChecksum),
        (ip_packet("10.0.0.2", "10.0.0.1", IpProtocol::ICMPV4, &[8, 0, 0]), DropReason::IcmpMalformed),
        (
            icmp_v4("10.0.0.2", "10.0.0.1", &icmpv4::Message::Other { kind: 5, code: 1 }),
            DropReason::IcmpIgnored,
        ),
        // Source Quench.
        (
            icmp_v4("10.0.0.2", "10.0.0.1", &icmpv4::Message::Other { kind: 4, code: 0 }),
            DropReason::IcmpIgnored,
        ),
    ] {
        assert_eq!(Bench::new().drops(RAW, &bytes), Some(reason));
    }
}

#[test]
fn echo_is_answered_with_its_data_by_any_worker() {
    let echo = icmpv4::Echo { id: 7, seq: 9, data: b"ping data" };
    let mut bench = Bench::with(IpLimits::default(), 2, 3);
    bench.gets(RAW, &icmp_v4("10.0.0.2", "10.0.0.1", &icmpv4::Message::EchoRequest(echo)));
    let reply = bench.sent(RAW).pop().unwrap();
    let (header, body) = ipv4::Header::parse(&reply).unwrap();
    assert_eq!((header.src, header.dst, header.ttl), (v4("10.0.0.1"), v4("10.0.0.2"), 64));
    assert_eq!(icmpv4::Message::parse(body), Ok(icmpv4::Message::EchoReply(echo)));

    let mut bench = Bench::new();
    bench.knows("192.168.1.2", PEER);
    bench.knows("fe80::2", PEER);
    let request = icmp_v4("192.168.1.2", "192.168.1.1", &icmpv4::Message::EchoRequest(echo));
    bench.gets(ETH, &frame(OURS, PEER, EtherType::IPV4, &request));
    let reply = bench.sent(ETH).pop().unwrap();
    assert_eq!(
        ethernet::Header::parse(&reply).unwrap().0,
        ethernet::Header { dst: PEER, src: OURS, ether_type: EtherType::IPV4 }
    );

    // From a link-local address to all nodes: answered from our link-local address, on that link.
    let request = icmp_v6("fe80::2", "ff02::1", 64, &icmpv6::Message::EchoRequest(echo));
    bench.gets(ETH, &frame(MacAddr([0x33, 0x33, 0, 0, 0, 1]), PEER, EtherType::IPV6, &request));
    let reply = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&reply).unwrap();
    let (header, body) = ipv6::Header::parse(body).unwrap();
    assert_eq!((link.dst, header.src, header.dst), (PEER, crate::link_local(OURS), v6("fe80::2")));
    assert_eq!(icmpv6::Message::parse(header.src, header.dst, body), Ok(icmpv6::Message::EchoReply(echo)));
    assert_eq!((bench.path.counters().echo_replies, bench.path.drops().total()), (2, 0));
}

#[test]
fn echo_in_a_buffer_without_headroom_is_answered_from_another() {
    let echo = icmpv4::Echo { id: 7, seq: 9, data: b"tight" };
    let request = icmp_v4("8.8.8.8", "10.0.0.1", &icmpv4::Message::EchoRequest(echo));
    let mut packet = Packet::with_size(request.len(), 0);
    packet.extend(&request);
    let mut bench = Bench::new();
    bench.knows("192.168.1.254", PEER);
    // It came in without a link header and leaves with one.
    bench.path.input(0, RAW, &mut vec![packet], &mut bench.pool, &mut bench.out);
    let reply = bench.sent(ETH).pop().unwrap();
    let (_, body) = ipv4::Header::parse(&reply[14..]).unwrap();
    assert_eq!(icmpv4::Message::parse(body), Ok(icmpv4::Message::EchoReply(echo)));
}

#[test]
fn echo_to_a_broadcast_address_is_not_answered() {
    let echo = icmpv4::Echo { id: 7, seq: 9, data: b"" };
    let request = icmp_v4("192.168.1.2", "192.168.1.255", &icmpv4::Message::EchoRequest(echo));
    let bytes = frame(MacAddr::BROADCAST, PEER, EtherType::IPV4, &request);
    let mut bench = Bench::new();
    assert_eq!(bench.drops(ETH, &bytes), Some(DropReason::DestinationGroup));
    assert!(bench.sent(ETH).is_empty());
}

#[test]
fn udp_is_answered_with_port_unreachable_within_the_rate() {
    let limits = IpLimits { unreachables_burst: 2, unreachables_per_second: 1, ..IpLimits::default() };
    let mut bench = Bench::with(limits, 0, 1);
    let datagram =
        ip_packet("10.0.0.2", "10.0.0.1", IpProtocol::UDP, b"\x00\x35\x10\x00\x00\x0c\x00\x00data");
    for _ in 0..3 {
        bench.gets(RAW, &datagram);
    }
    assert_eq!(bench.path.drops().of(DropReason::UdpClosed), 2);
    assert_eq!(bench.path.drops().of(DropReason::UnreachableLimited), 1);
    let sent = bench.sent(RAW);
    assert_eq!(sent.len(), 2);
    let (header, body) = ipv4::Header::parse(&sent[0]).unwrap();
    assert_eq!((header.src, header.dst), (v4("10.0.0.1"), v4("10.0.0.2")));
    let message = icmpv4::Message::parse(body).unwrap();
    assert_eq!(message, icmpv4::Message::Unreachable { code: 3, mtu: 0, quote: &datagram });
    bench.now_us += 1_000_000;
    let datagram = ip_packet("2001:db8::2", "2001:db8::1", IpProtocol::UDP, &[7; 1400]);
    bench.gets(RAW, &datagram);
    let sent = bench.sent(RAW);
    assert_eq!(sent[0].len(), 1280);
    let (header, body) = ipv6::Header::parse(&sent[0]).unwrap();
    let message = icmpv6::Message::parse(header.src, header.dst, body).unwrap();
    assert_eq!(message, icmpv6::Message::Unreachable { code: 4, quote: &datagram[..icmpv6::QUOTE_MAX] });
}

#[test]
fn arp_request_for_our_address_is_answered_and_its_sender_told_to_main() {
    let request = arp::Packet::request(PEER, v4("192.168.1.2"), v4("192.168.1.1"));
    let mut bench = Bench::new();
    bench.gets(ETH, &arp_frame(MacAddr::BROADCAST, &request));
    let reply = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&reply).unwrap();
    assert_eq!((link.dst, link.src, link.ether_type), (PEER, OURS, EtherType::ARP));
    assert_eq!(arp::Packet::parse(body), Ok(request.reply(OURS)));
    let seen = NetEvent::NeighborSeen {
        interface: ETH,
        addr: ip("192.168.1.2"),
        mac: PEER,
        how: Sighting::Question,
    };
    assert_eq!(bench.events(), [seen]);
    // Nothing new to tell about a known neighbour.
    bench.knows("192.168.1.2", PEER);
    bench.gets(ETH, &arp_frame(OURS, &request));
    assert_eq!((bench.sent(ETH).len(), bench.events()), (1, vec![]));
    // A probe has no sender address yet.
    let probe = arp::Packet { sender_ip: v4("0.0.0.0"), ..request };
    bench.gets(ETH, &arp_frame(MacAddr::BROADCAST, &probe));
    assert_eq!((bench.sent(ETH).len(), bench.events()), (1, vec![]));
    assert_eq!(bench.path.drops().total(), 0);
}

#[test]
fn arp_that_is_not_for_us_teaches_nothing() {
    let reply = |sender: &str, target: &str| arp::Packet {
        operation: arp::Operation::Reply,
        sender_mac: PEER,
        sender_ip: v4(sender),
        target_mac: OURS,
        target_ip: v4(target),
    };
    let request = |sender: &str, target: &str| arp::Packet::request(PEER, v4(sender), v4(target));
    for (to, packet, reason) in [
        (MacAddr::BROADCAST, request("192.168.1.2", "192.168.1.3"), DropReason::ArpNotForUs),
        // An address of the domain, but of another interface's link.
        (MacAddr::BROADCAST, request("192.168.1.2", "10.0.0.1"), DropReason::ArpNotForUs),
        (MacAddr::BROADCAST, request("192.168.1.2", "192.168.1.2"), DropReason::ArpNotForUs),
        (MacAddr::BROADCAST, request("10.9.9.9", "192.168.1.1"), DropReason::ArpBadSender),
        (MacAddr::BROADCAST, request("192.168.1.255", "192.168.1.1"), DropReason::ArpBadSender),
        (MacAddr::BROADCAST, request("192.168.1.1", "192.168.1.1"), DropReason::AddressConflict),
        (MacAddr::BROADCAST, request("10.0.0.1", "192.168.1.1"), DropReason::AddressConflict),
        (MacAddr::BROADCAST, reply("192.168.1.2", "192.168.1.1"), DropReason::ArpNotForUs),
        (OURS, reply("0.0.0.0", "192.168.1.1"), DropReason::ArpBadSender),
        (OURS, reply("192.168.1.2", "192.168.1.9"), DropReason::ArpNotForUs),
        (
            OURS,
            arp::Packet { sender_mac: MacAddr::BROADCAST, ..request("192.168.1.2", "192.168.1.1") },
            DropReason::ArpBadSender,
        ),
        (
            OURS,
            arp::Packet { sender_mac: OURS, ..request("192.168.1.2", "192.168.1.1") },
            DropReason::SourceOurs,
        ),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.drops(ETH, &arp_frame(to, &packet)), Some(reason), "{packet:?}");
        assert!(bench.sent(ETH).is_empty() && bench.events().is_empty(), "{packet:?}");
    }
    let mut bench = Bench::new();
    assert_eq!(
        bench.drops(ETH, &frame(OURS, PEER, EtherType::ARP, &[0; 27])),
        Some(DropReason::ArpMalformed)
    );
}

#[test]
fn arp_reply_to_us_and_announcements_of_neighbours_in_use_are_told_to_main() {
    let addr = ip("192.168.1.2");
    let reply = arp::Packet {
        operation: arp::Operation::Reply,
        sender_mac: PEER,
        sender_ip: v4("192.168.1.2"),
        target_mac: OURS,
        target_ip: v4("192.168.1.1"),
    };
    let mut bench = Bench::new();
    bench.gets(ETH, &arp_frame(OURS, &reply));
    assert_eq!(
        bench.events(),
        [NetEvent::NeighborSeen { interface: ETH, addr, mac: PEER, how: Sighting::Answer }]
    );
    bench.knows("192.168.1.2", PEER);
    let moved = arp::Packet { target_ip: reply.sender_ip, sender_mac: OTHER, ..reply };
    for operation in [arp::Operation::Request, arp::Operation::Reply] {
        bench.gets(ETH, &arp_frame(MacAddr::BROADCAST, &arp::Packet { operation, ..moved }));
        let told = NetEvent::NeighborSeen { interface: ETH, addr, mac: OTHER, how: Sighting::Announcement };
        assert_eq!(bench.events(), [told]);
    }
    assert_eq!(bench.path.drops().total(), 0);
}

fn solicitation(target: &str, source_mac: Option<MacAddr>) -> icmpv6::Message<'static> {
    icmpv6::Message::NeighbourSolicitation { target: v6(target), source_mac }
}

fn advertisement(
    target: &str,
    is_solicited: bool,
    is_override: bool,
    target_mac: Option<MacAddr>,
) -> icmpv6::Message<'static> {
    icmpv6::Message::NeighbourAdvertisement {
        target: v6(target),
        is_router: false,
        is_solicited,
        is_override,
        target_mac,
    }
}

#[test]
fn neighbour_solicitation_is_answered() {
    let target = v6("2001:db8:2::1");
    let group = solicited_node_multicast(target);
    let request = icmp_v6("fe80::2", &group.to_string(), 255, &solicitation("2001:db8:2::1", Some(PEER)));
    let mut bench = Bench::new();
    bench.gets(ETH, &frame(multicast_mac(group), PEER, EtherType::IPV6, &request));
    let answer = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&answer).unwrap();
    let (header, body) = ipv6::Header::parse(body).unwrap();
    assert_eq!((link.dst, header.src, header.dst, header.hop_limit), (PEER, target, v6("fe80::2"), 255));
    let expected = advertisement("2001:db8:2::1", true, true, Some(OURS));
    assert_eq!(icmpv6::Message::parse(header.src, header.dst, body), Ok(expected));
    let seen =
        NetEvent::NeighborSeen { interface: ETH, addr: ip("fe80::2"), mac: PEER, how: Sighting::Question };
    assert_eq!(bench.events(), [seen]);

    // Duplicate address detection: to all nodes, and nothing learned.
    let request = icmp_v6("::", &group.to_string(), 255, &solicitation("2001:db8:2::1", None));
    bench.gets(ETH, &frame(multicast_mac(group), PEER, EtherType::IPV6, &request));
    let answer = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&answer).unwrap();
    let (header, body) = ipv6::Header::parse(body).unwrap();
    assert_eq!((link.dst, header.dst), (MacAddr([0x33, 0x33, 0, 0, 0, 1]), v6("ff02::1")));
    let expected = advertisement("2001:db8:2::1", false, true, Some(OURS));
    assert_eq!(icmpv6::Message::parse(header.src, header.dst, body), Ok(expected));
    assert_eq!((bench.events(), bench.path.drops().total()), (vec![], 0));
}

#[test]
fn neighbour_discovery_that_breaks_the_rules_is_dropped() {
    let ours = "2001:db8:2::1";
    let group = solicited_node_multicast(v6(ours)).to_string();
    let ask = |src: &str, hop_limit, message: &icmpv6::Message<'_>| icmp_v6(src, &group, hop_limit, message);
    let other_group = multicast_mac(solicited_node_multicast(v6(ours)));
    for (bytes, reason) in [
        (ask("fe80::2", 254, &solicitation(ours, Some(PEER))), DropReason::NdpBadHopLimit),
        (ask("fe80::2", 255, &solicitation("2001:db8:2::7", Some(PEER))), DropReason::NdpNotForUs),
        (ask("2001:db8:99::2", 255, &solicitation("2001:db8::1", Some(PEER))), DropReason::NdpNotForUs),
        (ask("::", 255, &solicitation(ours, Some(PEER))), DropReason::NdpMalformed),
        (ask("fe80::2", 255, &solicitation(ours, Some(MacAddr::BROADCAST))), DropReason::NdpMalformed),
        (ask("fe80::2", 255, &advertisement(ours, false, true, Some(PEER))), DropReason::AddressConflict),
        (
            ask("fe80::2", 255, &advertisement("2001:db8:2::9", true, true, Some(PEER))),
            DropReason::NdpMalformed,
        ),
        (
            ask("fe80::2", 255, &advertisement("2001:db8:2::9", false, true, Some(PEER))),
            DropReason::NdpNotForUs,
        ),
        (
            ask("fe80::2", 255, &icmpv6::Message::RouterSolicitation { source_mac: None }),
            DropReason::IcmpIgnored,
        ),
        (
            ask("fe80::2", 64, &icmpv6::Message::EchoRequest(icmpv6::Echo { id: 1, seq: 1, data: b"" })),
            DropReason::DestinationGroup,
        ),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.drops(ETH, &frame(other_group, PEER, EtherType::IPV6, &bytes)), Some(reason));
        assert!(bench.sent(ETH).is_empty() && bench.events().is_empty());
    }
}

#[test]
fn neighbour_advertisements_are_told_to_main_as_the_flags_allow() {
    let us = crate::link_local(OURS).to_string();
    let addr = ip("2001:db8:2::9");
    let tell = |bench: &mut Bench, dst: &str, to: MacAddr, message: &icmpv6::Message<'_>| {
        let bytes = frame(to, PEER, EtherType::IPV6, &icmp_v6("fe80::9", dst, 255, message));
        (bench.drops(ETH, &bytes), bench.events())
    };
    let seen = |mac, how| vec![NetEvent::NeighborSeen { interface: ETH, addr, mac, how }];
    let all = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    let mut bench = Bench::new();
    let answer = advertisement("2001:db8:2::9", true, true, Some(PEER));
    assert_eq!(tell(&mut bench, &us, OURS, &answer), (None, seen(PEER, Sighting::Answer)));
    // Without the option, only a neighbour whose address is known can be confirmed.
    let bare = advertisement("2001:db8:2::9", true, false, None);
    assert_eq!(tell(&mut bench, &us, OURS, &bare), (Some(DropReason::NdpNotForUs), vec![]));
    bench.knows("2001:db8:2::9", PEER);
    assert_eq!(tell(&mut bench, &us, OURS, &bare), (None, seen(PEER, Sighting::Answer)));
    // Without the override flag another address is not taken.
    let meek = advertisement("2001:db8:2::9", true, false, Some(OTHER));
    assert_eq!(tell(&mut bench, &us, OURS, &meek), (Some(DropReason::NdpNotForUs), vec![]));
    let moved = advertisement("2001:db8:2::9", false, true, Some(OTHER));
    assert_eq!(tell(&mut bench, "ff02::1", all, &moved), (None, seen(OTHER, Sighting::Announcement)));
}

#[test]
fn events_for_main_are_bounded() {
    let mut bench = Bench::with(IpLimits { events_max: 5, ..IpLimits::default() }, 0, 1);
    for last in 2..12 {
        let sender = Ipv4Addr::new(192, 168, 1, last);
        let request = arp::Packet::request(PEER, sender, v4("192.168.1.1"));
        bench.gets(ETH, &arp_frame(MacAddr::BROADCAST, &request));
    }
    assert_eq!(bench.events().len(), 5);
    assert_eq!(bench.path.drops().of(DropReason::EventsFull), 5);
    assert_eq!(bench.sent(ETH).len(), 10);
}

#[test]
fn steady_state_allocates_nothing() {
    let mut bench = Bench::new();
    bench.knows("192.168.1.2", PEER);
    let arriving =
        frame(OURS, PEER, EtherType::IPV4, &tcp_packet("192.168.1.2", 80, "192.168.1.1", 4000, &[1; 1000]));
    let flow = OutFlow {
        domain: 0,
        src: ip("192.168.1.1"),
        dst: ip("192.168.1.2"),
        ip: hoststack_wire::IpFields::DEFAULT,
    };
    let mut packets = Vec::new();
    let mut shape = None;
    for round in 0..50 {
        for _ in 0..32 {
            let mut packet = bench.pool.take();
            packet.extend(&arriving);
            packets.push(packet);
        }
        let Bench { now_us, path, pool, out, .. } = &mut bench;
        path.input(*now_us, ETH, &mut packets, pool, out);
        for segment in out.segments.drain(..) {
            path.tcp(*now_us, pool, flow, &segment_header(4000, 80), 100, |into| into.fill(1)).unwrap();
            pool.give(segment.packet);
        }
        pool.give_all(path.tx(ETH));
        let now = (pool.allocated(), packets.capacity(), out.segments.capacity(), path.tx(ETH).capacity());
        assert_eq!(*shape.get_or_insert(now), now, "round {round} needed no more than the first");
    }
    assert_eq!(bench.path.drops().total(), 0);
    assert_eq!(bench.path.counters().destination_misses, 1);
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    use proptest::prelude::*;
    let valid = [
        tcp_packet("192.168.1.2", 80, "192.168.1.1", 4000, b"hello"),
        tcp_packet("2001:db8:2::2", 80, "2001:db8:2::1", 4000, b"hello"),
        icmp_v4(
            "192.168.1.2",
            "192.168.1.1",
            &icmpv4::Message::EchoRequest(icmpv4::Echo { id: 1, seq: 2, data: b"xyz" }),
        ),
        icmp_v6("fe80::2", "2001:db8:2::1", 255, &solicitation("2001:db8:2::1", Some(PEER))),
    ];
    let config = ProptestConfig::with_cases(256);
    proptest!(config, |(which in 0usize..4, changes in prop::collection::vec((0usize..90, any::<u8>()), 0..6), len in 0usize..120)| {
        let ether_type = if which % 2 == 0 { EtherType::IPV4 } else { EtherType::IPV6 };
        let mut bytes = frame(OURS, PEER, ether_type, &valid[which]);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(len);
        let mut bench = Bench::new();
        bench.gets(ETH, &bytes);
        bench.gets(RAW, bytes.get(14..).unwrap_or_default());
        let counters = *bench.path.counters();
        let accounted = bench.path.drops().total() + counters.segments + counters.icmp_errors + counters.echo_replies
            + counters.neighbor_replies + counters.neighbor_news + bench.path.waiting_len() as u64;
        prop_assert!(accounted >= 2, "nothing vanishes: {counters:?}");
    });
}
