//! Ethernet, ARP, IPv4 and IPv6 against etherparse, both ways, and against bytes that are none of them.

use etherparse as theirs;
use hoststack_wire::arp::{self, Operation};
use hoststack_wire::{
    EtherType, IpProtocol, MacAddr, ParseError, ethernet, ipv4, ipv6, multicast_mac, solicited_node_multicast,
};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn any_ipv4() -> impl Strategy<Value = ipv4::Header> {
    (any::<(u32, u32, u8, u8, u8, u16)>(), any::<(bool, bool)>(), 0..1000u16, 0..200u16).prop_map(
        |(
            (src, dst, protocol, ttl, dscp_ecn, id),
            (dont_fragment, more_fragments),
            fragment,
            payload_len,
        )| {
            ipv4::Header {
                ttl,
                dscp_ecn,
                id,
                dont_fragment,
                more_fragments,
                fragment_offset: fragment * 8,
                ..ipv4::Header::new(
                    Ipv4Addr::from_bits(src),
                    Ipv4Addr::from_bits(dst),
                    IpProtocol(protocol),
                    usize::from(payload_len),
                )
            }
        },
    )
}

fn ipv4_packet(header: &ipv4::Header) -> Vec<u8> {
    let mut packet = vec![0xab; usize::from(header.total_len)];
    assert_eq!(header.emit(&mut packet), 20);
    packet
}

fn their_ipv4(header: &ipv4::Header) -> theirs::Ipv4Header {
    let mut their = theirs::Ipv4Header {
        dscp: (header.dscp_ecn >> 2).try_into().unwrap(),
        ecn: (header.dscp_ecn & 3).try_into().unwrap(),
        total_len: header.total_len,
        identification: header.id,
        dont_fragment: header.dont_fragment,
        more_fragments: header.more_fragments,
        fragment_offset: (header.fragment_offset / 8).try_into().unwrap(),
        time_to_live: header.ttl,
        protocol: theirs::IpNumber(header.protocol.0),
        header_checksum: 0,
        source: header.src.octets(),
        destination: header.dst.octets(),
        options: theirs::Ipv4Options::default(),
    };
    their.header_checksum = their.calc_header_checksum();
    their
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn ipv4_headers_agree_with_etherparse(header in any_ipv4(), words in 0..=10usize, padding in 0..40usize) {
        let mut packet = ipv4_packet(&header);
        let mut their = their_ipv4(&header);
        prop_assert_eq!(&packet[..20], &their.to_bytes()[..]);
        prop_assert_eq!(theirs::Ipv4Header::from_slice(&packet).unwrap().0, their.clone());

        // Ethernet padding behind the packet is no payload.
        packet.resize(packet.len() + padding, 0);
        let (read, payload) = ipv4::Header::parse(&packet).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!(payload, &vec![0xab; usize::from(header.total_len) - 20][..]);

        // With options, which only etherparse writes.
        their.options = vec![1; words * 4][..].try_into().unwrap();
        their.total_len += (words * 4) as u16;
        their.header_checksum = their.calc_header_checksum();
        let packet = [&their.to_bytes()[..], payload].concat();
        let (read, payload) = ipv4::Header::parse(&packet).unwrap();
        prop_assert_eq!(
            read,
            ipv4::Header { header_len: 20 + words as u8 * 4, total_len: their.total_len, ..header }
        );
        prop_assert_eq!(payload.len(), usize::from(header.total_len) - 20);
    }

    #[test]
    fn any_flipped_bit_of_an_ipv4_header_is_found(header in any_ipv4(), bit in 0..160usize) {
        let mut packet = ipv4_packet(&header);
        packet[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 if bit % 8 >= 4 => vec![ParseError::BadVersion],
            0 => vec![ParseError::BadChecksum, ParseError::BadLength, ParseError::Truncated],
            _ => vec![ParseError::BadChecksum],
        };
        prop_assert!(expected.contains(&ipv4::Header::parse(&packet).unwrap_err()));
    }

    #[test]
    fn ipv6_headers_agree_with_etherparse(
        src: [u8; 16], dst: [u8; 16], hop_limit: u8, traffic_class: u8, flow_label in 0..1u32 << 20,
        payload_len in 0..200usize, padding in 0..40usize,
    ) {
        let header = ipv6::Header {
            hop_limit,
            traffic_class,
            flow_label,
            ..ipv6::Header::new(Ipv6Addr::from(src), Ipv6Addr::from(dst), IpProtocol::TCP, payload_len)
        };
        let mut packet = vec![0xab; 40 + payload_len];
        prop_assert_eq!(header.emit(&mut packet), 40);
        let their = theirs::Ipv6Header {
            traffic_class,
            flow_label: flow_label.try_into().unwrap(),
            payload_length: payload_len as u16,
            next_header: theirs::ip_number::TCP,
            hop_limit,
            source: src,
            destination: dst,
        };
        prop_assert_eq!(&packet[..40], &their.to_bytes()[..]);
        packet.resize(packet.len() + padding, 0);
        let (read, payload) = ipv6::Header::parse(&packet).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!(payload, &vec![0xab; payload_len][..]);
    }

    #[test]
    fn ipv6_extensions_are_walked_as_etherparse_walks_them(
        hop_by_hop in proptest::option::of(0..4usize),
        destination in proptest::option::of(0..4usize),
        routing in proptest::option::of(0..4usize),
        fragment in any::<Option<(u16, bool, u32)>>(),
        payload_len in 0..20usize,
    ) {
        // PadN options fill a header of (units + 1) * 8 bytes behind its first two.
        let raw = |units: usize| {
            let mut payload = vec![0; units * 8 + 6];
            payload[0] = 1;
            payload[1] = (units * 8 + 4) as u8;
            theirs::Ipv6RawExtHeader::new_raw(theirs::IpNumber(0), &payload).unwrap()
        };
        let live_less = |units: usize| {
            let mut payload = vec![0xcd; units * 8 + 6];
            payload[1] = 0;
            theirs::Ipv6RawExtHeader::new_raw(theirs::IpNumber(0), &payload).unwrap()
        };
        let mut extensions = theirs::Ipv6Extensions {
            hop_by_hop_options: hop_by_hop.map(raw),
            destination_options: destination.map(raw),
            routing: routing.map(|units| theirs::Ipv6RoutingExtensions {
                routing: live_less(units),
                final_destination_options: None,
            }),
            fragment: fragment.map(|(offset, more, id)| theirs::Ipv6FragmentHeader::new(
                theirs::IpNumber(0), (offset % 1000).try_into().unwrap(), more, id,
            )),
            auth: None,
        };
        let payload = vec![0xab; payload_len * 8];
        let first = extensions.set_next_headers(theirs::ip_number::TCP);
        let their = theirs::Ipv6Header {
            payload_length: (extensions.header_len() + payload.len()) as u16,
            next_header: first,
            ..theirs::Ipv6Header::default()
        };
        let mut packet = their.to_bytes().to_vec();
        extensions.write(&mut packet, first).unwrap();
        packet.extend(&payload);

        let (read, rest) = ipv6::Header::parse(&packet).unwrap();
        prop_assert_eq!(read.next_header, IpProtocol::TCP);
        prop_assert_eq!(rest, &payload[..]);
        prop_assert_eq!(usize::from(read.payload_offset), packet.len() - payload.len());
        prop_assert_eq!(usize::from(read.payload_len), payload.len());
        prop_assert_eq!(
            read.fragment,
            fragment.map(|(offset, more, id)| ipv6::Fragment { id, offset: offset % 1000 * 8, more })
        );
        prop_assert_eq!(read.is_fragment(), extensions.is_fragmenting_payload());
        for len in 0..packet.len() {
            prop_assert_eq!(ipv6::Header::parse(&packet[..len]), Err(ParseError::Truncated));
        }
    }

    #[test]
    fn ethernet_and_arp_agree_with_etherparse(a: [u8; 6], b: [u8; 6], ether_type: u16, p: [u8; 4], q: [u8; 4], is_reply: bool) {
        let header = ethernet::Header { dst: MacAddr(a), src: MacAddr(b), ether_type: EtherType(ether_type) };
        let their = theirs::Ethernet2Header { destination: a, source: b, ether_type: theirs::EtherType(ether_type) };
        let mut frame = [0xab; 20];
        prop_assert_eq!(header.emit(&mut frame), 14);
        prop_assert_eq!(&frame[..14], &their.to_bytes()[..]);
        prop_assert_eq!(ethernet::Header::parse(&frame), Ok((header, &[0xab; 6][..])));
        prop_assert_eq!(MacAddr(a).is_multicast(), a[0] & 1 == 1);

        let packet = arp::Packet {
            operation: if is_reply { Operation::Reply } else { Operation::Request },
            sender_mac: MacAddr(a),
            sender_ip: Ipv4Addr::from(p),
            target_mac: MacAddr(b),
            target_ip: Ipv4Addr::from(q),
        };
        let their = theirs::ArpPacket::from(theirs::ArpEthIpv4Packet {
            operation: if is_reply { theirs::ArpOperation::REPLY } else { theirs::ArpOperation::REQUEST },
            sender_mac: a,
            sender_ipv4: p,
            target_mac: b,
            target_ipv4: q,
        });
        let mut bytes = [0; 46];
        prop_assert_eq!(packet.emit(&mut bytes), 28);
        prop_assert_eq!(&bytes[..28], &their.to_bytes()[..]);
        prop_assert_eq!(arp::Packet::parse(&bytes), Ok(packet));
        for len in 0..28 {
            prop_assert_eq!(arp::Packet::parse(&bytes[..len]), Err(ParseError::Truncated));
        }
    }

    #[test]
    fn mac_addresses_read_back(mac: [u8; 6]) {
        let text = MacAddr(mac).to_string();
        prop_assert_eq!(text.parse(), Ok(MacAddr(mac)));
        prop_assert_eq!(text.replace(':', "-").to_uppercase().parse(), Ok(MacAddr(mac)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first in any::<Option<bool>>(), next in 0..61u8) {
        if let (Some(is_v4), Some(head)) = (first, bytes.get_mut(..7)) {
            head[0] = if is_v4 { 0x45 } else { 0x60 };
            if !is_v4 {
                head[4] = 0;
                head[6] = next;
            }
        }
        let _ = ethernet::Header::parse(&bytes);
        let _ = arp::Packet::parse(&bytes);
        let _ = ipv4::Header::parse(&bytes);
        if let Ok((header, payload)) = ipv6::Header::parse(&bytes) {
            let start = usize::from(header.payload_offset);
            prop_assert_eq!(payload, &bytes[start..start + usize::from(header.payload_len)]);
        }
    }
}

#[test]
fn every_cut_of_an_ipv4_packet_is_truncated() {
    let header = ipv4::Header::new(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, IpProtocol::TCP, 30);
    let packet = ipv4_packet(&header);
    for len in 0..packet.len() {
        assert_eq!(ipv4::Header::parse(&packet[..len]), Err(ParseError::Truncated), "{len}");
    }
}

#[test]
fn ipv4_lengths_that_contradict_the_header_are_refused() {
    let good = ipv4::Header::new(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, IpProtocol::TCP, 80);
    let short = ipv4::Header { total_len: 19, ..good };
    let mut packet = [0; 100];
    short.emit(&mut packet);
    assert_eq!(ipv4::Header::parse(&packet), Err(ParseError::BadLength));
    // The "ping of death": the last fragment reaches past 65535.
    let far = ipv4::Header { fragment_offset: 65528, ..good };
    far.emit(&mut packet);
    assert_eq!(ipv4::Header::parse(&packet), Err(ParseError::BadLength));
    good.emit(&mut packet);
    packet[0] = 0x44;
    assert_eq!(ipv4::Header::parse(&packet), Err(ParseError::BadLength));
}

fn ipv6_packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header =
        ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, IpProtocol(next_header), payload.len());
    let mut packet = vec![0; 40];
    header.emit(&mut packet);
    packet.extend(payload);
    packet
}

#[test]
fn ipv6_extensions_that_must_not_be_skipped_are_refused() {
    let parse = |next_header, payload: &[u8]| {
        ipv6::Header::parse(&ipv6_packet(next_header, payload)).map(|(header, _)| header.next_header)
    };
    // A routing header with a segment left; then without.
    assert_eq!(parse(43, &[6, 0, 0, 1, 0, 0, 0, 0]), Err(ParseError::Unsupported));
    assert_eq!(parse(43, &[6, 0, 0, 0, 0, 0, 0, 0]), Ok(IpProtocol::TCP));
    // Options: router alert is skipped, a jumbo payload is not, one that runs past its header is malformed.
    assert_eq!(parse(0, &[6, 0, 5, 2, 0, 0, 0, 0]), Ok(IpProtocol::TCP));
    assert_eq!(parse(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]), Err(ParseError::Unsupported));
    assert_eq!(parse(60, &[6, 0, 1, 5, 0, 0, 0, 0]), Err(ParseError::BadOption));
    assert_eq!(parse(60, &[6, 0, 1, 3, 0, 0, 0, 1]), Err(ParseError::BadOption));
    // Hop-by-hop options anywhere but first; two fragment headers; a middle fragment of 9 bytes.
    assert_eq!(parse(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]), Err(ParseError::Unsupported));
    assert_eq!(
        parse(44, &[[44, 0, 0, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0, 0]].concat()),
        Err(ParseError::Unsupported)
    );
    assert_eq!(parse(44, &[6, 0, 0, 1, 0, 0, 0, 0, 9]), Err(ParseError::BadLength));
    // What follows in a later fragment is not a header, whatever the fragment header says comes next.
    let later = ipv6_packet(44, &[60, 0, 0, 8, 0, 0, 0, 1, 6, 0, 1, 9, 0, 0, 0, 0]);
    let (header, payload) = ipv6::Header::parse(&later).unwrap();
    assert_eq!((header.next_header, payload), (IpProtocol::DESTINATION_OPTIONS, &later[48..]));
    assert_eq!(header.fragment, Some(ipv6::Fragment { id: 1, offset: 8, more: false }));
    // Eight extension headers are walked, nine are not.
    let chain = |count: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        payload[(count - 1) * 8] = 6;
        payload
    };
    assert_eq!(parse(60, &chain(8)), Ok(IpProtocol::TCP));
    assert_eq!(parse(60, &chain(9)), Err(ParseError::Unsupported));
    // Not ours to walk: the caller sees what comes next.
    assert_eq!(parse(51, &[6, 0, 0, 0]), Ok(IpProtocol(51)));
    assert_eq!(parse(59, &[]), Ok(IpProtocol::NO_NEXT));
    let mut packet = ipv6_packet(6, &[]);
    packet[0] = 0x40;
    assert_eq!(ipv6::Header::parse(&packet), Err(ParseError::BadVersion));
}

#[test]
fn arp_of_other_kinds_is_refused() {
    let request = arp::Packet::request(
        MacAddr([2, 0, 0, 0, 0, 1]),
        Ipv4Addr::new(10, 0, 0, 1),
        Ipv4Addr::new(10, 0, 0, 2),
    );
    let mut good = [0; arp::Packet::LEN];
    request.emit(&mut good);
    for (at, error) in [
        (1, ParseError::Unsupported),
        (2, ParseError::Unsupported),
        (4, ParseError::BadLength),
        (5, ParseError::BadLength),
        (7, ParseError::Unsupported),
    ] {
        let mut bad = good;
        bad[at] = 0x77;
        assert_eq!(arp::Packet::parse(&bad), Err(error), "byte {at}");
    }
    let reply = request.reply(MacAddr([2, 0, 0, 0, 0, 2]));
    assert_eq!((reply.sender_ip, reply.target_ip), (request.target_ip, request.sender_ip));
    assert_eq!((reply.sender_mac, reply.target_mac), (MacAddr([2, 0, 0, 0, 0, 2]), request.sender_mac));
}

#[test]
fn texts_that_are_no_mac_address_are_refused() {
    for text in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "2:0:0:0:0:1",
        "02:00:00:00:00:0g",
        "+2:00:00:00:00:01",
    ] {
        assert!(text.parse::<MacAddr>().is_err(), "{text}");
    }
    assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
    assert!(!MacAddr::ZERO.is_unicast() && MacAddr([2, 0, 0, 0, 0, 1]).is_unicast());
}

#[test]
fn multicast_addresses_map_as_the_rfcs_say() {
    assert_eq!(multicast_mac(Ipv4Addr::new(224, 129, 2, 3)), MacAddr([1, 0, 0x5e, 1, 2, 3]));
    assert_eq!(multicast_mac(Ipv4Addr::BROADCAST), MacAddr::BROADCAST);
    let host: Ipv6Addr = "4037::1:800:200e:8c6c".parse().unwrap();
    let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
    assert_eq!(solicited_node_multicast(host), group);
    assert_eq!(multicast_mac(group), MacAddr([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]));
}
