use super::*;
use crate::ip_testing::*;
use crate::{IpLimits, NetUpdate, NextHop, RouterAction};
use hoststack_wire::ethernet::multicast_mac;
use hoststack_wire::icmpv6::Message;
use hoststack_wire::{Segment, arp, solicited_node_multicast, tcp};

// covers: MUST-2
#[test]
fn segment_goes_out_whole_in_either_family_and_on_either_link() {
    for (interface, src, dst) in [
        (RAW, "10.0.0.1", "10.0.0.2"),
        (RAW, "2001:db8::1", "2001:db8::2"),
        (ETH, "192.168.1.1", "192.168.1.2"),
        (ETH, "2001:db8:2::1", "2001:db8:2::2"),
    ] {
        let mut bench = Bench::new();
        bench.knows("192.168.1.2", PEER);
        bench.knows("2001:db8:2::2", PEER);
        let flow = OutFlow { domain: 0, src: ip(src), dst: ip(dst), ip: IpFields { tos: 2, ttl: 9 } };
        let header = segment_header(4000, 80);
        bench.path.tcp(0, &mut bench.pool, flow, &header, 5, |into| into.copy_from_slice(b"hello")).unwrap();
        let sent = bench.sent(interface).pop().unwrap();
        let mut bytes = &sent[..];
        if interface == ETH {
            let (link, body) = ethernet::Header::parse(bytes).unwrap();
            let ether_type = if ip(src).is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
            assert_eq!(link, ethernet::Header { dst: PEER, src: OURS, ether_type });
            bytes = body;
        }
        let segment = if ip(src).is_ipv4() {
            let (ip_header, segment) = ipv4::Header::parse(bytes).unwrap();
            assert_eq!((IpAddr::V4(ip_header.src), IpAddr::V4(ip_header.dst)), (ip(src), ip(dst)));
            assert_eq!((ip_header.ttl, ip_header.dont_fragment, ip_header.dscp_ecn), (9, true, 2));
            segment
        } else {
            let (ip_header, segment) = ipv6::Header::parse(bytes).unwrap();
            assert_eq!((IpAddr::V6(ip_header.src), IpAddr::V6(ip_header.dst)), (ip(src), ip(dst)));
            assert_eq!((ip_header.hop_limit, ip_header.traffic_class), (9, 2));
            let hash = hasher().hash(ip(src), 4000, ip(dst), 80);
            assert_eq!(ip_header.flow_label, (hash & 0xf_ffff) as u32);
            segment
        };
        assert!(tcp::verify_checksum(ip(src), ip(dst), segment));
        assert_eq!(Segment::parse(segment), Ok(Segment { header, payload: b"hello", ecn: 0 }));
        assert_eq!((bench.path.drops().total(), bench.path.counters().segments_sent), (0, 1));
    }
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_reason_and_keeps_no_buffer() {
    for (src, dst, len, reason) in [
        ("10.0.0.1", "2001:db8::2", 0, DropReason::FamilyMismatch),
        ("10.0.0.1", "10.0.0.1", 0, DropReason::DestinationOurs),
        ("10.0.0.1", "192.168.1.1", 0, DropReason::DestinationOurs),
        ("10.0.0.1", "10.0.0.255", 0, DropReason::DestinationNotUnicast),
        ("10.0.0.1", "255.255.255.255", 0, DropReason::DestinationNotUnicast),
        ("10.0.0.1", "224.0.0.1", 0, DropReason::DestinationNotUnicast),
        ("2001:db8::1", "ff02::1", 0, DropReason::DestinationNotUnicast),
        ("10.0.0.1", "10.0.0.2", 1461, DropReason::ExceedsMtu),
        ("2001:db8::1", "2001:db8::2", 1441, DropReason::ExceedsMtu),
    ] {
        let mut bench = Bench::new();
        bench.pool.fill(8);
        assert_eq!(bench.sends(src, dst, &vec![0; len]), Err(reason), "{src} to {dst}");
        assert_eq!(
            (bench.path.drops().of(reason), bench.path.drops().total(), bench.pool.free_len()),
            (1, 1, 8)
        );
    }
    let mut bench = Bench::new();
    let flow = OutFlow { domain: 4, src: ip("10.0.0.1"), dst: ip("10.0.0.2"), ip: IpFields::DEFAULT };
    assert_eq!(
        bench.path.tcp(0, &mut bench.pool, flow, &segment_header(1, 2), 0, |_| {}),
        Err(DropReason::NoRoute)
    );
    assert_eq!(bench.sends("10.0.0.1", "10.0.0.2", &[0; 1460]), Ok(()));
}

#[test]
fn payload_larger_than_a_buffer_is_refused() {
    let mut bench = Bench::new();
    let jumbo = crate::InterfaceConfig {
        mtu: 9000,
        addresses: vec![cidr("172.16.0.1/30")],
        ..crate::InterfaceConfig::new(InterfaceId(3), "jumbo")
    };
    let update = bench.router.add_interface(jumbo).unwrap();
    bench.apply(&update);
    assert_eq!(bench.sends("172.16.0.1", "172.16.0.2", &[0; 5000]), Err(DropReason::ExceedsMtu));
    assert_eq!(bench.pool.free_len(), 1);
}

#[test]
fn full_transmit_vector_pushes_back() {
    let mut bench = Bench::with(IpLimits { tx_max: 3, tx_hard_max: 5, ..IpLimits::default() }, 0, 1);
    assert_eq!((bench.path.tx_room(RAW), bench.path.room()), (3, 3));
    // Two more than data would send: what input calls for still goes out.
    for _ in 0..5 {
        bench.sends("10.0.0.1", "10.0.0.2", b"x").unwrap();
    }
    assert_eq!((bench.path.tx_room(RAW), bench.path.tx_room(ETH), bench.path.room()), (0, 3, 0));
    assert_eq!(bench.sends("10.0.0.1", "10.0.0.2", b"x"), Err(DropReason::TxFull));
    bench.path.tx(RAW).drain(..3);
    assert_eq!(bench.path.room(), 1);
}

#[test]
fn first_wave_waits_for_the_router_and_goes_out_with_its_answer() {
    let mut bench = Bench::new();
    for n in 0..200u8 {
        assert_eq!(bench.sends("192.168.1.1", "8.8.8.8", &[n]), Ok(()));
    }
    assert_eq!((bench.path.waiting_len(), bench.path.drops().of(DropReason::NeighborQueueFull)), (64, 136));
    assert!(bench.sent(ETH).is_empty());
    // Asked for once, for all of them, and for the router rather than the destination.
    let router = ip("192.168.1.254");
    bench.settle();
    assert_eq!(bench.actions, [RouterAction::Probe { interface: ETH, target: router }]);
    let request = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&request).unwrap();
    assert_eq!(link.dst, MacAddr::BROADCAST);
    let request = arp::Packet::parse(body).unwrap();
    assert_eq!(request, arp::Packet::request(OURS, v4("192.168.1.1"), v4("192.168.1.254")));
    bench.gets(ETH, &arp_frame(OURS, &request.reply(PEER)));
    bench.settle();
    let sent = bench.sent(ETH);
    let payloads: Vec<u8> = sent.iter().map(|frame| *frame.last().unwrap()).collect();
    assert_eq!(payloads, (136..200).collect::<Vec<u8>>());
    assert!(sent.iter().all(|frame| ethernet::Header::parse(frame).unwrap().0.dst == PEER));
    assert_eq!(bench.path.waiting_len(), 0);
    bench.sends("192.168.1.1", "9.9.9.9", b"y").unwrap();
    assert_eq!(bench.sent(ETH).len(), 1);
}

#[test]
fn wave_to_an_ipv6_neighbour_is_resolved_by_neighbour_discovery() {
    let mut bench = Bench::new();
    bench.sends("2001:db8:2::1", "2001:db8:2::7", b"x").unwrap();
    bench.settle();
    let request = bench.sent(ETH).pop().unwrap();
    let (link, body) = ethernet::Header::parse(&request).unwrap();
    let (header, body) = ipv6::Header::parse(body).unwrap();
    let group = solicited_node_multicast(v6("2001:db8:2::7"));
    assert_eq!((link.dst, header.dst, header.hop_limit), (multicast_mac(group), group, 255));
    let question = Message::NeighbourSolicitation { target: v6("2001:db8:2::7"), source_mac: Some(OURS) };
    assert_eq!(Message::parse(header.src, header.dst, body), Ok(question));
    let answer = Message::NeighbourAdvertisement {
        target: v6("2001:db8:2::7"),
        is_router: false,
        is_solicited: true,
        is_override: true,
        target_mac: Some(PEER),
    };
    let answer = icmp_v6("2001:db8:2::7", &header.src.to_string(), 255, &answer);
    bench.gets(ETH, &frame(OURS, PEER, EtherType::IPV6, &answer));
    bench.settle();
    assert_eq!(bench.sent(ETH).len(), 1);
}

#[test]
fn neighbour_that_never_answers_costs_its_queue_and_is_told_to_main() {
    let mut bench = Bench::new();
    bench.pool.fill(20);
    for n in 0..10 {
        bench.sends("192.168.1.1", "192.168.1.66", &[n]).unwrap();
    }
    for _ in 0..4 {
        bench.settle();
        bench.now_us += 1_000_000;
        let probes = bench.sent(ETH).len();
        assert!(probes <= 1);
    }
    let next_hop = NextHop { interface: ETH, addr: ip("192.168.1.66") };
    assert_eq!(bench.actions.last(), Some(&RouterAction::Failed { next_hop }));
    assert_eq!(bench.actions.len(), 4);
    assert_eq!((bench.path.waiting_len(), bench.path.drops().of(DropReason::NeighborFailed)), (0, 10));
}

#[test]
fn miss_is_told_once_per_second_and_neighbour() {
    let mut bench = Bench::new();
    let miss = |addr: &str| NetEvent::NeighborMiss { interface: ETH, addr: ip(addr) };
    for _ in 0..5 {
        bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
        bench.sends("192.168.1.1", "192.168.1.3", b"").unwrap();
    }
    assert_eq!(bench.events(), [miss("192.168.1.2"), miss("192.168.1.3")]);
    bench.now_us += 999_999;
    bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
    assert!(bench.events().is_empty());
    bench.now_us += 1;
    bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
    assert_eq!(bench.events(), [miss("192.168.1.2")]);
}

#[test]
fn waiting_packets_are_bounded_in_all() {
    let limits = IpLimits { neighbor_queues_max: 10, neighbors_max: 3, ..IpLimits::default() };
    let mut bench = Bench::with(limits, 0, 1);
    for _ in 0..12 {
        bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
    }
    assert_eq!(bench.sends("192.168.1.1", "192.168.1.3", b""), Err(DropReason::NeighborQueueFull));
    assert_eq!(bench.sends("192.168.1.1", "192.168.1.4", b""), Err(DropReason::NeighborQueueFull));
    assert_eq!(bench.sends("192.168.1.1", "192.168.1.5", b""), Err(DropReason::NeighborTableFull));
    assert_eq!((bench.path.waiting_len(), bench.path.drops().total()), (10, 5));
}

#[test]
fn stale_neighbour_is_used_at_once_and_the_first_use_told() {
    let mut bench = Bench::new();
    let addr = ip("192.168.1.2");
    bench.knows("192.168.1.2", PEER);
    bench.apply(&NetUpdate::NeighborStale { interface: ETH, addr });
    for _ in 0..3 {
        bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
    }
    assert_eq!(bench.sent(ETH).len(), 3);
    assert_eq!(bench.events(), [NetEvent::NeighborUsed { interface: ETH, addr }]);
    // A known neighbour is asked by unicast.
    bench.path.probe(ETH, addr, &mut bench.pool).unwrap();
    let probe = bench.sent(ETH).pop().unwrap();
    assert_eq!(ethernet::Header::parse(&probe).unwrap().0.dst, PEER);
}

#[test]
fn neighbour_that_goes_stale_is_checked_while_packets_flow() {
    let mut bench = Bench::new();
    bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
    bench.settle();
    let reply = arp::Packet {
        operation: arp::Operation::Reply,
        sender_mac: PEER,
        sender_ip: v4("192.168.1.2"),
        target_mac: OURS,
        target_ip: v4("192.168.1.1"),
    };
    bench.gets(ETH, &arp_frame(OURS, &reply));
    bench.settle();
    bench.sent(ETH);
    for round in 0..3 {
        bench.now_us += 31_000_000;
        bench.settle();
        bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
        bench.settle();
        let sent = bench.sent(ETH);
        assert_eq!(sent.len(), 2, "round {round}: the segment and one question");
        assert_eq!(
            ethernet::Header::parse(&sent[1]).unwrap().0,
            ethernet::Header { dst: PEER, src: OURS, ether_type: EtherType::ARP }
        );
        bench.gets(ETH, &arp_frame(OURS, &reply));
        bench.settle();
    }
    assert_eq!((bench.router.neighbors().count(), bench.path.drops().total()), (1, 0));
}

#[test]
fn cache_follows_every_change_of_the_tables() {
    let mut bench = Bench::new();
    bench.knows("192.168.1.254", PEER);
    bench.knows("192.168.1.7", OTHER);
    let to = |bench: &mut Bench| {
        bench.sends("192.168.1.1", "8.8.8.8", b"").unwrap();
        bench.sent(ETH).pop().map(|frame| ethernet::Header::parse(&frame).unwrap().0.dst)
    };
    assert_eq!(to(&mut bench), Some(PEER));
    let route =
        crate::Route { domain: 0, prefix: cidr("8.0.0.0/8"), via: Some(ip("192.168.1.7")), interface: ETH };
    let update = bench.router.add_route(route).unwrap();
    bench.apply(&update);
    assert_eq!(to(&mut bench), Some(OTHER));
    bench.knows("192.168.1.7", PEER);
    assert_eq!(to(&mut bench), Some(PEER));
    bench.apply(&NetUpdate::NeighborForgotten { interface: ETH, addr: ip("192.168.1.7") });
    assert_eq!(to(&mut bench), None);
    let update = bench.router.remove_route(0, route.prefix).unwrap();
    bench.apply(&update);
    assert_eq!(to(&mut bench), Some(PEER));
    let misses = bench.path.counters().destination_misses;
    for _ in 0..10 {
        to(&mut bench);
    }
    assert_eq!(bench.path.counters().destination_misses, misses);
}

#[test]
fn cache_generation_wraps_without_reviving_old_entries() {
    let mut bench = Bench::new();
    bench.sends("10.0.0.1", "10.0.0.2", b"").unwrap();
    assert_eq!(bench.path.counters().destination_misses, 1);
    bench.path.destinations.generation = u32::MAX;
    bench.path.destinations.forget_all();
    assert_eq!(bench.path.destinations.generation, 1);
    bench.sends("10.0.0.1", "10.0.0.2", b"").unwrap();
    assert_eq!(bench.path.counters().destination_misses, 2);
}

#[test]
fn one_place_in_the_cache_serves_many_destinations_correctly() {
    let mut bench = Bench::with(IpLimits { destinations: 1, ..IpLimits::default() }, 0, 1);
    bench.knows("192.168.1.2", PEER);
    for _ in 0..3 {
        bench.sends("10.0.0.1", "10.0.0.2", b"").unwrap();
        bench.sends("192.168.1.1", "192.168.1.2", b"").unwrap();
        assert_eq!((bench.sent(RAW).len(), bench.sent(ETH).len()), (1, 1));
    }
}

#[test]
fn path_mtu_is_learned_when_told_and_ends() {
    let mut bench = Bench::new();
    let dst = ip("10.0.0.2");
    let mtu = |bench: &mut Bench| bench.path.path_mtu(bench.now_us, 0, dst);
    assert_eq!(mtu(&mut bench), Some(1500));
    assert!(bench.path.learn_path_mtu(bench.now_us, 0, dst, Some(1400)));
    assert_eq!(mtu(&mut bench), Some(1400));
    assert!(!bench.path.learn_path_mtu(bench.now_us, 0, dst, Some(1450)));
    assert_eq!(bench.path.path_mtus(bench.now_us).collect::<Vec<_>>(), [(0, dst, 1400)]);
    // Larger packets may still leave: retransmissions of what was in flight.
    bench.sends("10.0.0.1", "10.0.0.2", &[0; 1460]).unwrap();
    bench.now_us += crate::PATH_MTU_LIFETIME_US;
    assert_eq!(mtu(&mut bench), Some(1500));
    assert_eq!(bench.path.path_mtu(bench.now_us, 9, dst), None);
    assert!(!bench.path.learn_path_mtu(bench.now_us, 9, dst, Some(1400)));
}

#[test]
fn probe_needs_an_ethernet_interface_with_an_address() {
    let mut bench = Bench::new();
    let bare = crate::InterfaceConfig {
        mac: Some(OTHER),
        mtu: 1000,
        ..crate::InterfaceConfig::new(InterfaceId(3), "bare")
    };
    let update = bench.router.add_interface(bare).unwrap();
    bench.apply(&update);
    let mut probe = |id, addr: &str| bench.path.probe(InterfaceId(id), ip(addr), &mut bench.pool);
    assert_eq!(probe(1, "10.0.0.2"), Err(DropReason::InterfaceUnknown));
    assert_eq!(probe(9, "10.0.0.2"), Err(DropReason::InterfaceUnknown));
    assert_eq!(probe(3, "10.0.0.2"), Err(DropReason::NoSource));
}
