//! The parsers of `wire` on any bytes: nothing panics, what was read is written and read again the same, and what
//! was read lies inside the bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use hoststack_wire::{
    IpProtocol, Quoted, Segment, Sum, arp, checksum, copy_and_sum, ethernet, icmpv4, icmpv6, ipv4, ipv6, tcp,
};

use crate::input::Input;

const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

/// The first byte chooses the parser and, by its high bit, whether checksums are mended: no fuzzer guesses those. For
/// ICMPv6 the second byte chooses the addresses, which it validates against.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let what = input.u8();
    let is_mended = what & 0x80 != 0;
    match what & 0x7f {
        0 => frame(input.rest(), is_mended),
        1 => arp(input.rest()),
        2 => ipv4(&mut input.rest().to_vec(), is_mended),
        3 => ipv6(&mut input.rest().to_vec(), is_mended),
        4 => icmpv4(&mut input.rest().to_vec(), is_mended),
        5 => {
            let [src, dst] = [address(&mut input), address(&mut input)];
            icmpv6(src, dst, &mut input.rest().to_vec(), is_mended);
        }
        6 => tcp(input.rest()),
        7 => {
            let _ = Quoted::parse_v4(input.rest());
            let _ = Quoted::parse_v6(input.rest());
        }
        _ => sums(&mut input),
    }
}

fn address(input: &mut Input<'_>) -> Ipv6Addr {
    match input.u8() % 5 {
        0 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        1 => Ipv6Addr::UNSPECIFIED,
        2 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
        3 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7),
        _ => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    }
}

/// From the frame inwards, as a host goes.
fn frame(bytes: &[u8], is_mended: bool) {
    let Ok((header, payload)) = ethernet::Header::parse(bytes) else { return };
    assert_eq!(payload, &bytes[ethernet::Header::LEN..]);
    let mut written = [0; ethernet::Header::LEN];
    assert_eq!(header.emit(&mut written), written.len());
    assert_eq!(written, bytes[..written.len()]);
    match header.ether_type {
        ethernet::EtherType::ARP => arp(payload),
        ethernet::EtherType::IPV4 => ipv4(&mut payload.to_vec(), is_mended),
        ethernet::EtherType::IPV6 => ipv6(&mut payload.to_vec(), is_mended),
        _ => {}
    }
}

fn arp(bytes: &[u8]) {
    let Ok(packet) = arp::Packet::parse(bytes) else { return };
    let mut written = [0; arp::Packet::LEN];
    assert_eq!(packet.emit(&mut written), written.len());
    assert_eq!(written, bytes[..written.len()]);
    let reply = packet.reply(packet.target_mac);
    assert_eq!(reply.emit(&mut written), written.len());
    assert_eq!(arp::Packet::parse(&written), Ok(reply));
}

fn ipv4(bytes: &mut [u8], is_mended: bool) {
    if is_mended && bytes.len() >= ipv4::Header::LEN {
        let len = (usize::from(bytes[0] & 0xf) * 4).clamp(ipv4::Header::LEN, bytes.len());
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..len]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok((header, payload)) = ipv4::Header::parse(bytes) else { return };
    assert_eq!(usize::from(header.total_len), usize::from(header.header_len) + payload.len());
    // Options are not written: the header that is has none, and its length says so.
    let bare = ipv4::Header {
        header_len: 20,
        total_len: header.total_len - u16::from(header.header_len) + 20,
        ..header
    };
    let mut written = vec![0; ipv4::Header::LEN];
    assert_eq!(bare.emit(&mut written), ipv4::Header::LEN);
    written.extend_from_slice(payload);
    let read = ipv4::Header::parse(&written).expect("what was written is read");
    assert_eq!(read, (bare, payload));
    if header.is_fragment() {
        return;
    }
    let mut payload = payload.to_vec();
    match header.protocol {
        IpProtocol::TCP => tcp(&payload),
        IpProtocol::ICMPV4 => icmpv4(&mut payload, is_mended),
        _ => {}
    }
}

fn ipv6(bytes: &mut [u8], is_mended: bool) {
    let Ok((header, payload)) = ipv6::Header::parse(bytes) else { return };
    let from = usize::from(header.payload_offset);
    assert_eq!(payload, &bytes[from..from + usize::from(header.payload_len)]);
    // Extensions are not written: what comes behind them follows at once.
    let mut written = vec![0; ipv6::Header::LEN];
    assert_eq!(header.emit(&mut written), ipv6::Header::LEN);
    written.extend_from_slice(payload);
    let bare = ipv6::Header { payload_offset: 40, fragment: None, ..header };
    // A later fragment begins with anything, which may look like an extension header and be none.
    if !matches!(
        header.next_header,
        IpProtocol::HOP_BY_HOP | IpProtocol::ROUTING | IpProtocol::FRAGMENT | IpProtocol::DESTINATION_OPTIONS
    ) {
        assert_eq!(ipv6::Header::parse(&written), Ok((bare, payload)));
    }
    if header.is_fragment() {
        return;
    }
    let mut payload = payload.to_vec();
    match header.next_header {
        IpProtocol::TCP => tcp(&payload),
        IpProtocol::ICMPV6 => icmpv6(header.src, header.dst, &mut payload, is_mended),
        _ => {}
    }
}

fn icmpv4(bytes: &mut [u8], is_mended: bool) {
    if is_mended && bytes.len() >= 8 {
        bytes[2..4].fill(0);
        let sum = checksum(bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(message) = icmpv4::Message::parse(bytes) else { return };
    let _ = message.quoted();
    let mut written = vec![0; message.len()];
    assert_eq!(message.emit(&mut written), written.len());
    let read = icmpv4::Message::parse(&written).expect("what was written is read");
    // Quotes are cut; all else stays.
    assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&message));
    if bytes.len() <= icmpv4::QUOTE_MAX {
        assert_eq!(read, message);
    }
}

fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, bytes: &mut [u8], is_mended: bool) {
    if is_mended && bytes.len() >= 8 {
        bytes[2..4].fill(0);
        // Inputs are far shorter than a packet.
        let mut sum = Sum::pseudo_v6(src, dst, IpProtocol::ICMPV6, bytes.len() as u32);
        sum.add_bytes(bytes);
        bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    }
    let Ok(message) = icmpv6::Message::parse(src, dst, bytes) else { return };
    let _ = (message.quoted(), message.is_neighbour_discovery());
    let mut written = vec![0; message.len()];
    assert_eq!(message.emit(src, dst, &mut written), written.len());
    let read = icmpv6::Message::parse(src, dst, &written).expect("what was written is read");
    assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&message));
    if bytes.len() <= icmpv6::QUOTE_MAX {
        assert_eq!(read, message);
    }
}

fn tcp(bytes: &[u8]) {
    let Ok(segment) = Segment::parse(bytes) else { return };
    let (header, payload) = (segment.header, segment.payload.to_vec());
    assert!(bytes.ends_with(&payload));
    let mut written = vec![0; header.header_len()];
    assert_eq!(header.emit(&mut written), written.len());
    written.extend_from_slice(&payload);
    let read = Segment::parse(&written).expect("what was written is read");
    assert_eq!(read.payload, payload);
    // SACK blocks that do not fit beside the other options are left out, from the end; all else stays. A list that was
    // read may be packed tighter than this stack packs it.
    let mut cut = header;
    cut.options.sack.truncate(read.header.options.sack.as_slice().len());
    assert_eq!(read.header, cut);
    // The other order of options says the same.
    let mut reordered = header;
    reordered.options.profile = tcp::OptionProfile::FreeBsd;
    let mut written_so = vec![0; reordered.header_len()];
    assert_eq!(reordered.emit(&mut written_so), written_so.len());
    let read_so = Segment::parse(&written_so).expect("what was written is read").header;
    cut.options.sack.truncate(read_so.options.sack.as_slice().len());
    assert_eq!(read_so, cut);
    let noted = segment.noted(header.seq, header.ack).to_string();
    assert!(hoststack_wire::parse_notation(&noted).is_ok(), "{noted}");
    tcp::set_checksum(V4[0].into(), V4[1].into(), &mut written);
    assert!(tcp::verify_checksum(V4[0].into(), V4[1].into(), &written));
    assert!(!tcp::verify_checksum(V4[0].into(), Ipv6Addr::LOCALHOST.into(), &written));
}

/// Sums in pieces are the sum of the whole, and the same as words added one by one.
fn sums(input: &mut Input<'_>) {
    let cuts = [input.u8(), input.u8()];
    let bytes = input.rest();
    let naive = bytes.chunks(2).fold(0u64, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    let mut folded = naive;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    // Cannot cut: it was folded.
    assert_eq!(checksum(bytes), !(folded as u16));
    let mut sum = Sum::ZERO;
    let mut copy = vec![0; bytes.len()];
    let mut copied = Sum::ZERO;
    let mut at = 0;
    for end in [usize::from(cuts[0]), usize::from(cuts[0]) + usize::from(cuts[1]), bytes.len()] {
        let end = end.clamp(at, bytes.len());
        sum.add_bytes(&bytes[at..end]);
        copied.append(copy_and_sum(&mut copy[at..end], &bytes[at..end]));
        at = end;
    }
    assert_eq!((sum.finish(), copied.finish()), (checksum(bytes), checksum(bytes)));
    assert_eq!(copy, bytes);
}
