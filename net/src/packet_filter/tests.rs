use hoststack_wire::icmp::Echo;
use hoststack_wire::{MacAddr, arp};
use proptest::prelude::*;

use super::*;
use crate::ip_testing::{OTHER, OURS, PEER, arp_frame, cidr, frame, icmp_v4, ip, ip_packet, tcp_packet, v4};

fn filter(words: &str) -> PacketFilter {
    words.parse().unwrap_or_else(|error| panic!("{words}: {error}"))
}

const IN: PacketPlace<'static> = PacketPlace { direction: Direction::Inbound, worker: 1, interface: "tap0" };
const OUT: PacketPlace<'static> = PacketPlace { direction: Direction::Outbound, ..IN };

/// From a peer, 10.0.0.9:4000, to us, 10.0.0.1:80, `ACK` set.
fn segment() -> Vec<u8> {
    tcp_packet("10.0.0.9", 4000, "10.0.0.1", 80, b"hello")
}

fn passes(words: &str, place: PacketPlace<'_>, packet: &[u8]) -> bool {
    filter(words).matches(&PacketView::parse(LinkType::RawIp, packet), place)
}

#[test]
fn every_word_lets_what_it_says_pass_and_nothing_else() {
    let packet = segment();
    for words in [
        "any",
        "",
        "tcp",
        "tcp and ack",
        "host 10.0.0.9",
        "host 10.0.0.1",
        "host 10.0.0.0/24",
        "host 0.0.0.0/0",
        "src 10.0.0.9",
        "dst 10.0.0.1/32",
        "remote 10.0.0.9",
        "local 10.0.0.1",
        "port 80",
        "port 4000",
        "port 79-81",
        "local-port 80",
        "remote-port 4000",
        "interface tap0",
        "worker 1",
        "in",
        "session 1:5.3",
        "dropped",
        "tcp src 10.0.0.9 dst 10.0.0.1 local-port 80 remote-port 4000 ack in worker 1",
    ] {
        assert!(passes(words, IN, &packet), "{words}");
    }
    for words in [
        "udp",
        "icmp",
        "arp",
        "host 10.0.0.2",
        "host fd00::1",
        "src 10.0.0.1",
        "dst 10.0.0.9",
        "remote 10.0.0.1",
        "local 10.0.0.9",
        "port 81",
        "local-port 4000",
        "remote-port 80",
        "syn",
        "ack fin",
        "rst",
        "psh",
        "urg",
        "interface tap1",
        "worker 0",
        "out",
        "session 0:5.3",
    ] {
        assert!(!passes(words, IN, &packet), "{words}");
    }
    // The same bytes, sent by us: what is ours and what is the peer's change places.
    assert!(passes("out local 10.0.0.9 remote 10.0.0.1 local-port 4000 remote-port 80", OUT, &packet));
}

#[test]
fn fate_and_session_are_asked_when_they_are_known() {
    let session = SessionName { worker: 1, slot: 5, generation: 3 };
    let other = SessionName { generation: 4, ..session };
    let by_session = filter("session 1:5.3");
    assert!(by_session.accepts(Some(session), false));
    assert!(!by_session.accepts(Some(other), false) && !by_session.accepts(None, true));
    let dropped = filter("dropped");
    assert!(dropped.accepts(None, true) && !dropped.accepts(Some(session), false));
    assert!(filter("any").accepts(None, false));
}

#[test]
fn ethernet_arp_and_both_families_are_read() {
    let request = arp::Packet::request(PEER, v4("192.168.1.9"), v4("192.168.1.1"));
    let asked = arp_frame(MacAddr::BROADCAST, &request);
    let view = PacketView::parse(LinkType::Ethernet, &asked);
    assert_eq!(view.addresses, Some((ip("192.168.1.9"), ip("192.168.1.1"))));
    assert!(filter("arp host 192.168.1.1").matches(&view, IN));
    assert!(!filter("arp port 1").matches(&view, IN) && !filter("tcp").matches(&view, IN));
    assert_eq!(view.summary(&asked, None), "arp 192.168.1.9 > 192.168.1.1: who has it");
    let answer = arp_frame(PEER, &request.reply(OURS));
    let view = PacketView::parse(LinkType::Ethernet, &answer);
    assert_eq!(view.summary(&answer, None), "arp 192.168.1.1 > 192.168.1.9: here I am");

    let inner = tcp_packet("2001:db8::9", 4000, "2001:db8::1", 80, b"hello");
    let framed = frame(OURS, PEER, EtherType::IPV6, &inner);
    let view = PacketView::parse(LinkType::Ethernet, &framed);
    assert!(filter("tcp remote 2001:db8::/32 local-port 80").matches(&view, IN));
    assert_eq!(
        view.summary(&framed, Some((SeqNum(999), SeqNum(1999)))),
        "tcp [2001:db8::9]:4000 > [2001:db8::1]:80: . 1:6(5) ack 1 win 65535"
    );
    let unknown = frame(OURS, OTHER, EtherType(0x88cc), &[0; 40]);
    let view = PacketView::parse(LinkType::Ethernet, &unknown);
    assert_eq!((view.kind, view.addresses), (None, None));
    assert_eq!(view.summary(&unknown, None), "no IP packet, 54 bytes");
}

#[test]
fn summary_is_in_packetdrill_notation_and_absolute_where_nothing_is_known() {
    let packet = segment();
    let view = PacketView::parse(LinkType::RawIp, &packet);
    assert_eq!(
        view.summary(&packet, None),
        "tcp 10.0.0.9:4000 > 10.0.0.1:80: . 1000:1005(5) ack 2000 win 65535"
    );
    let ping =
        icmp_v4("10.0.0.9", "10.0.0.1", &icmpv4::Message::EchoRequest(Echo { id: 7, seq: 1, data: b"x" }));
    let view = PacketView::parse(LinkType::RawIp, &ping);
    assert_eq!(view.summary(&ping, None), "icmp 10.0.0.9 > 10.0.0.1: echo request id 7 seq 1");
    let quote = segment();
    let error = icmpv4::Message::Unreachable { code: 3, mtu: 0, quote: &quote };
    let error = icmp_v4("10.0.0.254", "10.0.0.9", &error);
    let view = PacketView::parse(LinkType::RawIp, &error);
    assert_eq!(
        view.summary(&error, None),
        "icmp 10.0.0.254 > 10.0.0.9: unreachable, code 3 about tcp 10.0.0.9:4000 > 10.0.0.1:80"
    );
}

#[test]
fn a_packet_with_wrong_checksums_and_lengths_still_tells_its_ends() {
    let mut packet = segment();
    packet[10] ^= 0xff;
    packet[16 + 20] ^= 0xff;
    assert!(passes("tcp host 10.0.0.9 port 80 ack", IN, &packet));
    packet[2..4].copy_from_slice(&[0xff, 0xff]);
    assert!(passes("tcp host 10.0.0.9 port 80 ack", IN, &packet));
    packet[2..4].copy_from_slice(&[0, 0]);
    assert!(passes("tcp host 10.0.0.9 port 80 ack", IN, &packet));
    let view = PacketView::parse(LinkType::RawIp, &packet);
    assert_eq!(view.summary(&packet, None), "tcp 10.0.0.9:4000 > 10.0.0.1:80: malformed");
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut packet = ip_packet("10.0.0.9", "10.0.0.1", IpProtocol::TCP, &[0x11; 40]);
    packet[6..8].copy_from_slice(&[0, 5]);
    let view = PacketView::parse(LinkType::RawIp, &packet);
    assert_eq!((view.kind, view.ports, view.flags), (Some(PacketKind::Tcp), None, Flags::NONE));
    assert!(!passes("port 4369", IN, &packet));
}

#[test]
fn what_cannot_be_a_filter_is_answered_with_what_to_type() {
    for (words, says) in [
        ("tpc", "no filter word `tpc`: use tcp, udp, icmp"),
        ("10.0.0.1", "an address needs a word before it: try `host 10.0.0.1`"),
        ("tcp port", "`port` needs PORT[-PORT] behind it"),
        ("port http", "`port http`: write `port PORT[-PORT]`, like 80 or 8000-8999"),
        ("port 90-80", "`port 90-80`"),
        ("port 65536", "`port 65536`"),
        ("port +80", "`port +80`"),
        ("host 10.0.0.1/33", "write `host ADDRESS[/LEN]`, like 10.0.0.1 or 10.0.0.0/8"),
        ("host ten", "`host ten`"),
        ("session 5", "as `show session` prints it, like 0:5.1"),
        ("worker 256", "from 0"),
        ("tcp udp", "`udp` says again"),
        ("in out", "`out` says again"),
        ("port 1 port 2", "`port` says again"),
    ] {
        let error = words.parse::<PacketFilter>().expect_err(words).to_string();
        assert!(error.contains(says), "{words}: {error}");
    }
}

#[test]
fn every_word_is_documented_and_understood() {
    for (word, wants, help) in PacketFilter::WORDS {
        let value = match *wants {
            "" => "",
            "ADDRESS[/LEN]" => "fd00::/8",
            "PORT[-PORT]" => "1-2",
            "WORKER:SLOT.GENERATION" => "0:1.2",
            _ => "7",
        };
        let words = format!("{word} {value}");
        let parsed = filter(&words);
        assert_eq!(parsed == PacketFilter::default(), *word == "any", "{word}");
        assert_eq!(parsed.to_string(), words.trim());
        assert!(!help.is_empty());
    }
}

fn some_cidr() -> impl Strategy<Value = Option<Cidr>> {
    prop::option::of(prop_oneof![
        Just(cidr("10.0.0.0/8")),
        Just(cidr("10.0.0.1/32")),
        Just(cidr("fd00::1/64")),
        Just(cidr("fd00::1/128")),
    ])
}

fn some_ports() -> impl Strategy<Value = Option<Ports>> {
    prop::option::of(any::<(u16, u16)>().prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_filter_as_it_is_written_reads_back_equal(
        kind in prop::option::of(prop::sample::select(&PacketKind::ALL[..])),
        prefixes in (some_cidr(), some_cidr(), some_cidr(), some_cidr(), some_cidr()),
        ports in (some_ports(), some_ports(), some_ports()),
        flags in 0u16..0x40,
        session in prop::option::of(any::<(u8, u32, u32)>()),
        worker in prop::option::of(any::<u8>()),
        interface in prop::option::of("[a-z]{1,8}[0-9]?"),
        is_out in prop::option::of(any::<bool>()),
        is_dropped in any::<bool>(),
    ) {
        let written = PacketFilter {
            kind,
            host: prefixes.0,
            src: prefixes.1,
            dst: prefixes.2,
            local: prefixes.3,
            remote: prefixes.4,
            port: ports.0,
            local_port: ports.1,
            remote_port: ports.2,
            flags: Flags(flags),
            session: session.map(|(worker, slot, generation)| SessionName { worker, slot, generation }),
            worker,
            interface,
            direction: is_out.map(|out| if out { Direction::Outbound } else { Direction::Inbound }),
            is_dropped,
        };
        prop_assert_eq!(filter(&written.to_string()), written);
    }

    #[test]
    fn no_text_panics(text in "[ -~]{0,60}") {
        if let Err(error) = text.parse::<PacketFilter>() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), is_ethernet in any::<bool>()) {
        let link = if is_ethernet { LinkType::Ethernet } else { LinkType::RawIp };
        let view = PacketView::parse(link, &bytes);
        view.summary(&bytes, None);
        prop_assert!(view.payload(&bytes).len() <= bytes.len());
        filter("tcp remote 10.0.0.0/8 port 80 syn").matches(&view, IN);
    }

    #[test]
    fn no_damaged_or_cut_packet_panics(
        cut in 0usize..60,
        damage in prop::collection::vec((0usize..60, any::<u8>()), 0..6),
        is_v6 in any::<bool>(),
    ) {
        let (peer, ours) = if is_v6 { ("2001:db8::9", "2001:db8::1") } else { ("10.0.0.9", "10.0.0.1") };
        let mut packet = tcp_packet(peer, 4000, ours, 80, b"hello");
        for (at, byte) in damage {
            let len = packet.len();
            packet[at % len] = byte;
        }
        packet.truncate(packet.len().saturating_sub(cut));
        let view = PacketView::parse(LinkType::RawIp, &packet);
        view.summary(&packet, Some((SeqNum(1), SeqNum(2))));
        view.payload(&packet);
    }
}
