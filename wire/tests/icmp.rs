//! ICMP of both versions against etherparse, both ways; quotes; neighbour discovery's rules.

use etherparse::{self as theirs, PacketBuilder};
use hoststack_wire::icmp::{Echo, Quoted};
use hoststack_wire::{
    Flags, IpProtocol, MacAddr, Options, ParseError, SegmentHeader, SeqNum, icmpv4, icmpv6, ipv4, ipv6,
    solicited_node_multicast,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const US: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const THEM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn emit_v4(message: &icmpv4::Message<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; message.len()];
    assert_eq!(message.emit(&mut bytes), bytes.len());
    bytes
}

fn emit_v6(src: Ipv6Addr, dst: Ipv6Addr, message: &icmpv6::Message<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; message.len()];
    assert_eq!(message.emit(src, dst, &mut bytes), bytes.len());
    bytes
}

/// A TCP packet as we would have sent it.
fn sent_v4(fragment_offset: u16) -> Vec<u8> {
    let mut packet = vec![0; 60];
    let header = ipv4::Header {
        fragment_offset,
        ..ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), IpProtocol::TCP, 40)
    };
    let at = header.emit(&mut packet);
    segment().emit(&mut packet[at..]);
    packet
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        src_port: 40000,
        dst_port: 80,
        seq: SeqNum(0x01020304),
        ack: SeqNum(0),
        flags: Flags::SYN,
        wnd: 0,
        urgent: 0,
        options: Options::default(),
    }
}

fn sent_v6() -> Vec<u8> {
    // Destination options between the IPv6 header and TCP.
    let mut packet = vec![0; 40 + 8 + 20];
    ipv6::Header::new(US, THEM, IpProtocol::DESTINATION_OPTIONS, 28).emit(&mut packet);
    packet[40..48].copy_from_slice(&[6, 0, 1, 4, 0, 0, 0, 0]);
    segment().emit(&mut packet[48..]);
    packet
}

fn quoted(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, seq: Option<u32>) -> Quoted {
    Quoted {
        src: src.into(),
        dst: dst.into(),
        protocol: IpProtocol::TCP,
        src_port: 40000,
        dst_port: 80,
        seq: seq.map(SeqNum),
        echo: None,
    }
}

fn any_v4(body: &[u8]) -> impl Strategy<Value = icmpv4::Message<'_>> {
    use icmpv4::Message::{EchoReply, EchoRequest, ParameterProblem, TimeExceeded, Unreachable};
    prop_oneof![
        any::<(u16, u16)>().prop_map(move |(id, seq)| EchoRequest(Echo { id, seq, data: body })),
        any::<(u16, u16)>().prop_map(move |(id, seq)| EchoReply(Echo { id, seq, data: body })),
        (0..16u8, any::<u16>()).prop_map(move |(code, mtu)| Unreachable {
            code,
            mtu: if code == 4 { mtu } else { 0 },
            quote: body
        }),
        (0..2u8).prop_map(move |code| TimeExceeded { code, quote: body }),
        any::<u8>().prop_map(move |pointer| ParameterProblem { code: 0, pointer, quote: body }),
    ]
}

fn their_v4(message: &icmpv4::Message<'_>) -> theirs::Icmpv4Type {
    use hoststack_wire::icmpv4::Message as Ours;
    use theirs::{IcmpEchoHeader, Icmpv4Type as Theirs, icmpv4};
    match *message {
        Ours::EchoRequest(Echo { id, seq, .. }) => Theirs::EchoRequest(IcmpEchoHeader { id, seq }),
        Ours::EchoReply(Echo { id, seq, .. }) => Theirs::EchoReply(IcmpEchoHeader { id, seq }),
        Ours::Unreachable { code, mtu, .. } => {
            Theirs::DestinationUnreachable(icmpv4::DestUnreachableHeader::from_values(code, mtu).unwrap())
        }
        Ours::TimeExceeded { code, .. } => {
            Theirs::TimeExceeded(icmpv4::TimeExceededCode::from_u8(code).unwrap())
        }
        Ours::ParameterProblem { pointer, .. } => {
            Theirs::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(pointer))
        }
        Ours::Other { .. } => unreachable!("not generated"),
    }
}

fn any_v6(body: &[u8]) -> impl Strategy<Value = icmpv6::Message<'_>> {
    use icmpv6::Message::{
        EchoReply, EchoRequest, PacketTooBig, ParameterProblem, TimeExceeded, Unreachable,
    };
    prop_oneof![
        any::<(u16, u16)>().prop_map(move |(id, seq)| EchoRequest(Echo { id, seq, data: body })),
        any::<(u16, u16)>().prop_map(move |(id, seq)| EchoReply(Echo { id, seq, data: body })),
        (0..7u8).prop_map(move |code| Unreachable { code, quote: body }),
        any::<u32>().prop_map(move |mtu| PacketTooBig { mtu, quote: body }),
        (0..2u8).prop_map(move |code| TimeExceeded { code, quote: body }),
        (0..3u8, any::<u32>()).prop_map(move |(code, pointer)| ParameterProblem {
            code,
            pointer,
            quote: body
        }),
    ]
}

fn their_v6(message: &icmpv6::Message<'_>) -> theirs::Icmpv6Type {
    use hoststack_wire::icmpv6::Message as Ours;
    use theirs::{IcmpEchoHeader, Icmpv6Type as Theirs, icmpv6};
    match *message {
        Ours::EchoRequest(Echo { id, seq, .. }) => Theirs::EchoRequest(IcmpEchoHeader { id, seq }),
        Ours::EchoReply(Echo { id, seq, .. }) => Theirs::EchoReply(IcmpEchoHeader { id, seq }),
        Ours::Unreachable { code, .. } => {
            Theirs::DestinationUnreachable(icmpv6::DestUnreachableCode::from_u8(code).unwrap())
        }
        Ours::PacketTooBig { mtu, .. } => Theirs::PacketTooBig { mtu },
        Ours::TimeExceeded { code, .. } => {
            Theirs::TimeExceeded(icmpv6::TimeExceededCode::from_u8(code).unwrap())
        }
        Ours::ParameterProblem { code, pointer, .. } => {
            Theirs::ParameterProblem(icmpv6::ParameterProblemHeader {
                code: icmpv6::ParameterProblemCode::from_u8(code).unwrap(),
                pointer,
            })
        }
        _ => unreachable!("not generated"),
    }
}

const BODY: &[u8] = b"an odd number of bytes is what checksums hate";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn icmpv4_agrees_with_etherparse(message in any_v4(BODY), bit: usize) {
        let mut bytes = emit_v4(&message);
        let their = theirs::Icmpv4Header::with_checksum(their_v4(&message), BODY);
        prop_assert_eq!(&bytes, &[&their.to_bytes()[..], BODY].concat());
        prop_assert_eq!(icmpv4::Message::parse(&bytes), Ok(message));
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(icmpv4::Message::parse(&bytes), Err(ParseError::BadChecksum));
    }

    #[test]
    fn icmpv6_agrees_with_etherparse(message in any_v6(BODY), src: [u8; 16], dst: [u8; 16], bit: usize) {
        let (from, to) = (Ipv6Addr::from(src), Ipv6Addr::from(dst));
        let mut bytes = emit_v6(from, to, &message);
        let their = theirs::Icmpv6Header::with_checksum(their_v6(&message), src, dst, BODY).unwrap();
        prop_assert_eq!(&bytes, &[&their.to_bytes()[..], BODY].concat());
        prop_assert_eq!(icmpv6::Message::parse(from, to, &bytes), Ok(message));
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(icmpv6::Message::parse(from, to, &bytes), Err(ParseError::BadChecksum));
    }

    #[test]
    fn neighbour_discovery_reads_back_and_etherparse_agrees(
        target: [u8; 16], mac: Option<[u8; 6]>, flags: [bool; 3], hop_limit: u8, lifetime_secs: u16,
    ) {
        let mac = mac.map(MacAddr);
        let target = Ipv6Addr::from(target);
        prop_assume!(!target.is_multicast());
        let [is_router, is_solicited, is_override] = flags;
        let messages = [
            icmpv6::Message::RouterSolicitation { source_mac: mac },
            icmpv6::Message::RouterAdvertisement { hop_limit, lifetime_secs, source_mac: mac },
            icmpv6::Message::NeighbourSolicitation { target, source_mac: mac },
            icmpv6::Message::NeighbourAdvertisement { target, is_router, is_solicited, is_override, target_mac: mac },
        ];
        for (message, kind) in messages.into_iter().zip(133..) {
            let bytes = emit_v6(US, THEM, &message);
            prop_assert_eq!(icmpv6::Message::parse(US, THEM, &bytes), Ok(message));
            prop_assert!(message.is_neighbour_discovery());
            let their = theirs::Icmpv6Slice::from_slice(&bytes).unwrap();
            prop_assert!(their.is_checksum_valid(US.octets(), THEM.octets()));
            prop_assert_eq!(their.type_u8(), kind);
            let option = mac.map(|mac| mac.0.to_vec());
            match their.icmp_type() {
                theirs::Icmpv6Type::NeighborAdvertisement(header) => {
                    prop_assert_eq!([header.router, header.solicited, header.r#override], flags);
                    prop_assert_eq!(&bytes[8..24], &target.octets());
                    prop_assert_eq!(bytes.get(26..32).map(<[u8]>::to_vec), option);
                }
                theirs::Icmpv6Type::RouterAdvertisement(header) => {
                    prop_assert_eq!((header.cur_hop_limit, header.router_lifetime), (hop_limit, lifetime_secs));
                }
                theirs::Icmpv6Type::NeighborSolicitation => {
                    prop_assert_eq!(&bytes[8..24], &target.octets());
                    prop_assert_eq!(bytes.get(26..32).map(<[u8]>::to_vec), option);
                }
                theirs::Icmpv6Type::RouterSolicitation => prop_assert_eq!(bytes.get(10..16).map(<[u8]>::to_vec), option),
                other => prop_assert!(false, "etherparse reads {:?}", other),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in any::<u8>(), nd in any::<bool>()) {
        let _ = icmpv4::Message::parse(&bytes);
        let _ = icmpv6::Message::parse(US, THEM, &bytes);
        let _ = Quoted::parse_v4(&bytes);
        let _ = Quoted::parse_v6(&bytes);
        // Again with a right checksum, so that what lies behind it is reached.
        if bytes.len() >= 8 {
            bytes[0] = if nd { 133 + kind % 4 } else { kind % 13 };
            bytes[1] = 0;
            bytes[2..4].fill(0);
            let sum = hoststack_wire::checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            let _ = icmpv4::Message::parse(&bytes).unwrap().quoted();
            bytes[2..4].fill(0);
            let mut sum = hoststack_wire::Sum::pseudo_v6(US, THEM, IpProtocol::ICMPV6, bytes.len() as u32);
            sum.add_bytes(&bytes);
            bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
            match icmpv6::Message::parse(US, THEM, &bytes) {
                Ok(message) => drop(message.quoted()),
                Err(error) => prop_assert!(error != ParseError::BadChecksum),
            }
        }
    }

    #[test]
    fn quotes_of_etherparse_packets_name_the_flow(src: [u8; 4], dst: [u8; 4], a: u16, b: u16, seq: u32, payload in 0..50usize) {
        let builder = PacketBuilder::ipv4(src, dst, 3).tcp(a, b, seq, 1);
        let mut packet = Vec::new();
        builder.write(&mut packet, &vec![0; payload]).unwrap();
        let expected = Quoted {
            src: src.into(), dst: dst.into(), protocol: IpProtocol::TCP, src_port: a, dst_port: b, seq: Some(SeqNum(seq)), echo: None,
        };
        prop_assert_eq!(Quoted::parse_v4(&packet), Ok(expected));
        let mut packet = Vec::new();
        PacketBuilder::ipv4(src, dst, 3).udp(a, b).write(&mut packet, &vec![0; payload]).unwrap();
        prop_assert_eq!(Quoted::parse_v4(&packet), Ok(Quoted { protocol: IpProtocol::UDP, seq: None, ..expected }));
    }
}

#[test]
fn a_quote_is_read_as_far_as_it_goes() {
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let packet = sent_v4(0);
    for len in 0..packet.len() {
        let expected = match len {
            0..24 => Err(ParseError::Truncated),
            24..28 => Ok(quoted(a, b, None)),
            _ => Ok(quoted(a, b, Some(0x01020304))),
        };
        assert_eq!(Quoted::parse_v4(&packet[..len]), expected, "{len}");
    }
    assert_eq!(Quoted::parse_v4(&sent_v4(8)), Err(ParseError::Unsupported));
    // A router counted the TTL down and left the checksum; another swapped the total length.
    let mut mangled = packet.clone();
    mangled[8] = 0;
    mangled[2..4].copy_from_slice(&[60, 0]);
    assert_eq!(Quoted::parse_v4(&mangled), Ok(quoted(a, b, Some(0x01020304))));

    // A later fragment, whose bytes look like another extension header.
    let mut packet = vec![0; 40];
    ipv6::Header::new(US, THEM, IpProtocol::FRAGMENT, 16).emit(&mut packet);
    packet.extend([60, 0, 0, 8, 0, 0, 0, 1, 6, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(Quoted::parse_v6(&packet), Err(ParseError::Unsupported));

    let packet = sent_v6();
    for len in 0..packet.len() {
        let expected = match len {
            0..52 => Err(ParseError::Truncated),
            52..56 => Ok(quoted(US, THEM, None)),
            _ => Ok(quoted(US, THEM, Some(0x01020304))),
        };
        assert_eq!(Quoted::parse_v6(&packet[..len]), expected, "{len}");
    }
}

#[test]
fn errors_name_the_flow_that_they_are_about() {
    let packet = sent_v4(0);
    let message = icmpv4::Message::Unreachable {
        code: icmpv4::unreachable::FRAGMENTATION_NEEDED,
        mtu: 1400,
        quote: &packet[..28],
    };
    let bytes = emit_v4(&message);
    let read = icmpv4::Message::parse(&bytes).unwrap();
    assert_eq!(read, message);
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(read.quoted(), Some(quoted(a, b, Some(0x01020304))));

    let packet = sent_v6();
    let message = icmpv6::Message::PacketTooBig { mtu: 1280, quote: &packet };
    let bytes = emit_v6(THEM, US, &message);
    let read = icmpv6::Message::parse(THEM, US, &bytes).unwrap();
    assert_eq!(read.quoted(), Some(quoted(US, THEM, Some(0x01020304))));
    assert_eq!(icmpv6::Message::EchoRequest(Echo { id: 0, seq: 0, data: &packet }).quoted(), None);
}

#[test]
fn errors_stay_within_the_size_that_every_link_carries() {
    let packet = vec![0; 3000];
    let v4 = icmpv4::Message::TimeExceeded { code: 0, quote: &packet };
    assert_eq!(emit_v4(&v4).len() + 20, 576);
    let v6 = icmpv6::Message::TimeExceeded { code: 0, quote: &packet };
    assert_eq!(emit_v6(US, THEM, &v6).len() + 40, 1280);
    // An echo comes back whole.
    assert_eq!(icmpv4::Message::EchoReply(Echo { id: 0, seq: 0, data: &packet }).len(), 3008);
}

#[test]
fn every_cut_of_a_message_is_an_error() {
    let message = icmpv6::Message::NeighbourSolicitation { target: US, source_mac: Some(MAC) };
    let bytes = emit_v6(THEM, US, &message);
    for len in 0..bytes.len() {
        assert!(icmpv6::Message::parse(THEM, US, &bytes[..len]).is_err(), "{len}");
    }
    let bytes = emit_v4(&icmpv4::Message::EchoRequest(Echo { id: 1, seq: 2, data: &[1, 2, 3] }));
    for len in 0..bytes.len() {
        assert!(icmpv4::Message::parse(&bytes[..len]).is_err(), "{len}");
    }
}

/// Emits, lets the bytes be changed, corrects the checksum, and parses.
fn altered(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    message: &icmpv6::Message<'_>,
    alter: impl FnOnce(&mut Vec<u8>),
) -> Option<ParseError> {
    let mut bytes = emit_v6(src, dst, message);
    alter(&mut bytes);
    bytes[2..4].fill(0);
    let mut sum = hoststack_wire::Sum::pseudo_v6(src, dst, IpProtocol::ICMPV6, bytes.len() as u32);
    sum.add_bytes(&bytes);
    bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    icmpv6::Message::parse(src, dst, &bytes).err()
}

#[test]
fn neighbour_discovery_is_validated() {
    let none = Ipv6Addr::UNSPECIFIED;
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let ask = |source_mac| icmpv6::Message::NeighbourSolicitation { target: US, source_mac };
    let tell = |target, is_solicited| icmpv6::Message::NeighbourAdvertisement {
        target,
        is_router: false,
        is_solicited,
        is_override: true,
        target_mac: Some(MAC),
    };
    let keep = |_: &mut Vec<u8>| {};
    assert_eq!(altered(THEM, US, &ask(Some(MAC)), keep), None);
    assert_eq!(altered(THEM, US, &ask(Some(MAC)), |bytes| bytes[1] = 1), Some(ParseError::BadField));
    // RFC 4861 §7.1.1: duplicate address detection.
    assert_eq!(altered(none, solicited_node_multicast(US), &ask(None), keep), None);
    assert_eq!(
        altered(none, solicited_node_multicast(US), &ask(Some(MAC)), keep),
        Some(ParseError::BadField)
    );
    assert_eq!(altered(none, all_nodes, &ask(None), keep), Some(ParseError::BadField));
    // §7.1.2: nobody solicits for all nodes, and no group has a link-layer address to tell.
    assert_eq!(altered(THEM, US, &tell(THEM, true), keep), None);
    assert_eq!(altered(THEM, all_nodes, &tell(THEM, false), keep), None);
    assert_eq!(altered(THEM, all_nodes, &tell(THEM, true), keep), Some(ParseError::BadField));
    assert_eq!(altered(THEM, US, &tell(all_nodes, false), keep), Some(ParseError::BadField));
    // Options: length 0, longer than what is there, not an Ethernet address.
    assert_eq!(altered(THEM, US, &ask(Some(MAC)), |bytes| bytes[25] = 0), Some(ParseError::BadOption));
    assert_eq!(altered(THEM, US, &ask(Some(MAC)), |bytes| bytes[25] = 2), Some(ParseError::BadOption));
    assert_eq!(
        altered(THEM, US, &ask(Some(MAC)), |bytes| {
            bytes[25] = 2;
            bytes.extend([0; 8]);
        }),
        Some(ParseError::BadOption)
    );
    // Length 0 in an option of no interest: to skip it would take forever.
    assert_eq!(
        altered(THEM, US, &ask(None), |bytes| bytes.extend([14, 0, 0, 0, 0, 0, 0, 0])),
        Some(ParseError::BadOption)
    );
    // An option of another kind in front is skipped (a nonce, RFC 3971).
    assert_eq!(
        altered(THEM, US, &ask(Some(MAC)), |bytes| {
            bytes.splice(24..24, [14, 1, 0, 0, 0, 0, 0, 0]);
        }),
        None
    );
    // §6.1.2: routers advertise from link-local addresses.
    let router =
        icmpv6::Message::RouterAdvertisement { hop_limit: 64, lifetime_secs: 9, source_mac: Some(MAC) };
    assert_eq!(altered(THEM, all_nodes, &router, keep), None);
    assert_eq!(altered("2001:db8::1".parse().unwrap(), all_nodes, &router, keep), Some(ParseError::BadField));
    let asks = icmpv6::Message::RouterSolicitation { source_mac: Some(MAC) };
    assert_eq!(altered(none, all_nodes, &asks, keep), Some(ParseError::BadField));
}

#[test]
fn other_messages_are_told_by_type_and_code() {
    let bytes = emit_v4(&icmpv4::Message::Other { kind: 5, code: 1 });
    assert_eq!(icmpv4::Message::parse(&bytes), Ok(icmpv4::Message::Other { kind: 5, code: 1 }));
    let redirect = icmpv6::Message::Other { kind: 137, code: 0 };
    let bytes = emit_v6(THEM, US, &redirect);
    assert_eq!(icmpv6::Message::parse(THEM, US, &bytes), Ok(redirect));
    assert!(redirect.is_neighbour_discovery());
    // An echo request with a code is none.
    let odd = icmpv4::Message::Other { kind: 8, code: 3 };
    assert_eq!(icmpv4::Message::parse(&emit_v4(&odd)), Ok(odd));
}
