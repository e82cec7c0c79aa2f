use super::*;
use crate::ip_testing::*;
use hoststack_wire::MacAddr;

fn request(src: &str, dst: &str, seq: u16, data_len: usize) -> EchoRequest {
    EchoRequest { domain: 0, src: ip(src), dst: ip(dst), id: 7, seq, data_len, hop_limit: 9 }
}

impl Bench {
    fn pings(&mut self, request: &EchoRequest) -> Result<(), DropReason> {
        self.path.expect_echoes(request.id, request.domain, request.dst);
        self.path.send_echo(self.now_us, &mut self.pool, request)
    }

    fn heard(&mut self) -> Vec<HeardEcho> {
        let heard = self.events().into_iter().filter_map(|event| match event {
            NetEvent::EchoHeard(heard) => Some(heard),
            _ => None,
        });
        heard.collect()
    }
}

/// The request in a packet of our own: its IP header's hop limit, and the message.
fn sent(packet: &[u8]) -> (u8, u16, u16, Vec<u8>) {
    if packet[0] >> 4 == 4 {
        let (header, payload) = ipv4::Header::parse(packet).unwrap();
        let icmpv4::Message::EchoRequest(echo) = icmpv4::Message::parse(payload).unwrap() else { panic!() };
        (header.ttl, echo.id, echo.seq, echo.data.to_vec())
    } else {
        let (header, payload) = ipv6::Header::parse(packet).unwrap();
        let message = icmpv6::Message::parse(header.src, header.dst, payload).unwrap();
        let icmpv6::Message::EchoRequest(echo) = message else { panic!() };
        (header.hop_limit, echo.id, echo.seq, echo.data.to_vec())
    }
}

/// What a peer that answers sends for a request of ours.
fn reply(from: &str, to: &str, id: u16, seq: u16, data: &[u8]) -> Vec<u8> {
    let echo = Echo { id, seq, data };
    if ip(from).is_ipv4() {
        icmp_v4(from, to, &icmpv4::Message::EchoReply(echo))
    } else {
        icmp_v6(from, to, 61, &icmpv6::Message::EchoReply(echo))
    }
}

const ENDS: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")];

#[test]
fn a_request_carries_what_was_asked_for_and_its_reply_is_told() {
    for (ours, peer) in ENDS {
        let mut bench = Bench::new();
        bench.pings(&request(ours, peer, 3, 300)).unwrap();
        let packets = bench.sent(RAW);
        let (hop_limit, id, seq, data) = sent(&packets[0]);
        assert_eq!((packets.len(), hop_limit, id, seq, data.len()), (1, 9, 7, 3, 300));
        bench.gets(RAW, &reply(peer, ours, id, seq, &data));
        let hop_limit = if ip(peer).is_ipv4() { 64 } else { 61 };
        let news = EchoNews::Reply { hop_limit, data_len: 300, is_intact: true };
        let heard = HeardEcho { id: 7, seq: 3, from: ip(peer), at_us: bench.now_us, news };
        assert_eq!(bench.heard(), [heard]);
        assert_eq!(bench.path.drops().total(), 0);
    }
}

#[test]
fn a_reply_with_other_data_is_told_as_such() {
    let mut bench = Bench::new();
    bench.pings(&request("10.0.0.1", "10.0.0.2", 1, 4)).unwrap();
    bench.gets(RAW, &reply("10.0.0.2", "10.0.0.1", 7, 1, &[9, 9, 9, 9]));
    let news = EchoNews::Reply { hop_limit: 64, data_len: 4, is_intact: false };
    assert_eq!(bench.heard()[0].news, news);
}

#[test]
fn a_reply_that_nobody_waits_for_is_dropped() {
    for (ours, peer) in ENDS {
        let mut bench = Bench::new();
        let unasked = Some(DropReason::EchoUnasked);
        assert_eq!(bench.drops(RAW, &reply(peer, ours, 7, 1, b"")), unasked);
        bench.pings(&request(ours, peer, 1, 0)).unwrap();
        assert_eq!(bench.drops(RAW, &reply(peer, ours, 8, 1, b"")), unasked, "another pinger's");
        let other = if ip(peer).is_ipv4() { "10.0.0.3" } else { "2001:db8::3" };
        assert_eq!(bench.drops(RAW, &reply(other, ours, 7, 1, b"")), unasked, "another host's");
        assert_eq!(bench.drops(RAW, &reply(peer, ours, 7, 1, b"")), None);
        bench.path.forget_echoes(7);
        assert_eq!(bench.drops(RAW, &reply(peer, ours, 7, 1, b"")), unasked);
        assert_eq!(bench.heard().len(), 1);
    }
}

#[test]
fn an_error_that_quotes_a_request_is_told_with_its_code() {
    let mut bench = Bench::new();
    bench.pings(&request("10.0.0.1", "10.0.0.2", 5, 100)).unwrap();
    let packet = bench.sent(RAW).remove(0);
    // RFC 792: the IP header and 8 bytes.
    for (message, kind, code, mtu) in [
        (
            icmpv4::Message::Unreachable { code: 1, mtu: 0, quote: &packet[..28] },
            IcmpErrorKind::HostUnreachable,
            1,
            None,
        ),
        (
            icmpv4::Message::TimeExceeded { code: 0, quote: &packet[..28] },
            IcmpErrorKind::TimeExceeded,
            0,
            None,
        ),
        (
            icmpv4::Message::Unreachable { code: 4, mtu: 1000, quote: &packet },
            IcmpErrorKind::PacketTooBig,
            4,
            Some(1000),
        ),
    ] {
        bench.gets(RAW, &icmp_v4("10.0.0.9", "10.0.0.1", &message));
        let news = EchoNews::Error { kind, code, mtu };
        let heard = HeardEcho { id: 7, seq: 5, from: ip("10.0.0.9"), at_us: bench.now_us, news };
        assert_eq!(bench.heard(), [heard]);
    }
    let mut bench = Bench::new();
    bench.pings(&request("2001:db8::1", "2001:db8::2", 6, 10)).unwrap();
    let packet = bench.sent(RAW).remove(0);
    let message = icmpv6::Message::Unreachable { code: 3, quote: &packet };
    bench.gets(RAW, &icmp_v6("2001:db8::9", "2001:db8::1", 60, &message));
    let news = EchoNews::Error { kind: IcmpErrorKind::HostUnreachable, code: 3, mtu: None };
    assert_eq!(bench.heard()[0].news, news);
    assert!(bench.out.icmp_errors.is_empty(), "it is no flow's");
}

#[test]
fn an_address_of_ones_own_answers_at_once_and_no_packet_leaves() {
    let mut bench = Bench::new();
    for own in ["10.0.0.1", "192.168.1.1", "2001:db8::1"] {
        // More than any interface carries: it passes none.
        bench.pings(&EchoRequest { hop_limit: 9, ..request(own, own, 3, 9000) }).unwrap();
        let news = EchoNews::Reply { hop_limit: 9, data_len: 9000, is_intact: true };
        let heard = HeardEcho { id: 7, seq: 3, from: ip(own), at_us: bench.now_us, news };
        assert_eq!(bench.heard(), [heard]);
        assert!(bench.sent(RAW).is_empty() && bench.sent(ETH).is_empty());
    }
    // Nobody waits for the answer of this one.
    let unasked = EchoRequest { id: 8, ..request("10.0.0.1", "10.0.0.1", 1, 0) };
    let sent = bench.path.send_echo(bench.now_us, &mut bench.pool, &unasked);
    assert_eq!((sent, bench.heard().len()), (Err(DropReason::EchoUnasked), 0));
}

#[test]
fn an_error_about_another_hosts_request_is_dropped() {
    let mut bench = Bench::new();
    bench.pings(&request("10.0.0.1", "10.0.0.2", 5, 0)).unwrap();
    let packet = bench.sent(RAW).remove(0);
    bench.path.forget_echoes(7);
    let message = icmpv4::Message::TimeExceeded { code: 0, quote: &packet };
    let bytes = icmp_v4("10.0.0.9", "10.0.0.1", &message);
    assert_eq!(bench.drops(RAW, &bytes), Some(DropReason::EchoUnasked));
}

#[test]
fn a_request_waits_for_its_neighbor() {
    let mut bench = Bench::new();
    bench.pings(&request("192.168.1.1", "192.168.1.9", 1, 8)).unwrap();
    assert!(bench.sent(ETH).is_empty());
    bench.knows("192.168.1.9", MacAddr([2; 6]));
    let frames = bench.sent(ETH);
    assert_eq!((frames.len(), sent(&frames[0][14..]).1), (1, 7));
}

#[test]
fn what_cannot_be_sent_says_why_and_is_counted() {
    let mut bench = Bench::new();
    for (request, reason) in [
        (request("2001:db8::1", "10.0.0.1", 1, 0), DropReason::FamilyMismatch),
        (request("10.0.0.1", "224.0.0.1", 1, 0), DropReason::DestinationNotUnicast),
        (request("10.0.0.1", "2001:db8::2", 1, 0), DropReason::FamilyMismatch),
        (request("10.0.0.1", "10.0.0.2", 1, 1473), DropReason::ExceedsMtu),
        (EchoRequest { domain: 3, ..request("10.0.0.1", "10.0.0.2", 1, 0) }, DropReason::NoRoute),
    ] {
        let before = bench.path.drops().of(reason);
        assert_eq!(bench.pings(&request), Err(reason));
        assert_eq!(bench.path.drops().of(reason), before + 1);
    }
    bench.pings(&request("10.0.0.1", "10.0.0.2", 1, 1472)).unwrap();
    assert_eq!(bench.sent(RAW)[0].len(), 1500);
}
