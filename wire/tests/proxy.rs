//! The PROXY protocol: vectors worked out from the specification's text, every prefix, every corrupted byte, what is
//! emitted. The properties are in `proxy_properties.rs`.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};

use hoststack_wire::proxy::{
    Addresses, ClientFlags, Command, EmitError, LEN_MAX, LEN_SAFE, ParseOptions, Parsed, ProxyError,
    ProxyHeader, Reason, SslTlv, Tlv, TlvBuffer, Tlvs, Transport, UnixAddress, Unparsed, Version, Versions,
    parse, tlv,
};

const ANY: ParseOptions = ParseOptions::DEFAULT;
const SIGNATURE: [u8; 12] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];

/// The example line of PROXY §2.1.
const TCP4_LINE: &[u8] = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
/// The same as version 2 has it: addresses, then ports 0xdc04 and 0x01bb.
const TCP4_BODY: [u8; 12] = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];

fn inet(transport: Transport) -> Addresses {
    let src = SocketAddrV4::new([192, 168, 0, 1].into(), 56324);
    let dst = SocketAddrV4::new([192, 168, 0, 11].into(), 443);
    Addresses::Inet { transport, src, dst }
}

fn inet6(src: &str, dst: &str, src_port: u16, dst_port: u16) -> Addresses {
    let end = |address: &str, port| SocketAddrV6::new(address.parse().unwrap(), port, 0, 0);
    Addresses::Inet6 { transport: Transport::Stream, src: end(src, src_port), dst: end(dst, dst_port) }
}

/// A version 2 header made by hand.
fn v2(version_command: u8, family: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let len = u16::try_from(body.len()).unwrap();
    [&SIGNATURE, &[version_command, family][..], &len.to_be_bytes(), &body].concat()
}

fn read(bytes: &[u8]) -> ProxyHeader<'_> {
    match parse(bytes, &ANY) {
        Ok(Parsed { header, len }) if len == bytes.len() => header,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn refused(bytes: &[u8]) -> (Reason, usize) {
    match parse(bytes, &ANY) {
        Err(Unparsed::Invalid(ProxyError { reason, at })) => (reason, at),
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn addresses(bytes: &[u8]) -> Addresses {
    match read(bytes).command {
        Command::Proxy(addresses) => addresses,
        Command::Local => panic!("{}: LOCAL", bytes.escape_ascii()),
    }
}

/// Headers of all sorts, whole and valid.
fn valid() -> Vec<Vec<u8>> {
    let unix = [b'/'; 108];
    let ssl = b"\x20\0\x10\x07\0\0\0\0\x21\0\x08TLSv1.30";
    let mut all = vec![
        TCP4_LINE.to_vec(),
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
        b"PROXY TCP6 :: :: 0 0\r\n".to_vec(),
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF 65535 65535\r\n".to_vec(),
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN \r\n".to_vec(),
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec(),
        b"PROXY UNKNOWN \0\xff \r \n\r\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[&TCP4_BODY]),
        v2(0x20, 0x99, &[b"what?"]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x00, &[&[1, 2]]),
        v2(0x21, 0x10, &[&[7; 8]]),
        v2(0x21, 0x11, &[&TCP4_BODY]),
        v2(0x21, 0x12, &[&TCP4_BODY]),
        v2(0x21, 0x21, &[&[0xfe; 36], b"\x04\0\0", ssl]),
        v2(0x21, 0x22, &[&[0xfe; 36]]),
        v2(0x21, 0x31, &[&unix, &unix]),
        v2(0x21, 0x32, &[&unix, &unix, b"\x05\0\x01x"]),
    ];
    let mut tlvs = TlvBuffer::new();
    tlvs.push(Tlv::Crc32c(0)).unwrap();
    tlvs.push(Tlv::Noop(&[0; 300])).unwrap();
    let header = ProxyHeader::proxy(Version::V2, inet(Transport::Stream)).with_tlvs(tlvs.as_tlvs());
    all.push(header.to_vec().unwrap());
    all
}

#[test]
fn version_1_the_lines_of_the_specification() {
    assert_eq!(addresses(TCP4_LINE), inet(Transport::Stream));
    assert_eq!(
        addresses(b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:DB8::1 65535 0\r\n"),
        inet6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::1", 65535, 0)
    );
    assert_eq!(read(b"PROXY UNKNOWN\r\n"), ProxyHeader::proxy(Version::V1, Addresses::Unspec));
    // "The receiver must ignore anything presented before the CRLF is found."
    for rest in [&b" 1.2.3.4 1.2.3.4 5 6"[..], b" ", b"  ", b" \xff\0", b" \r", b" a\nb\rc", b" \n"] {
        let line = [b"PROXY UNKNOWN", rest, b"\r\n"].concat();
        assert_eq!(addresses(&line), Addresses::Unspec, "{}", line.escape_ascii());
    }
}

#[test]
fn version_1_ends_at_its_line_end_whatever_follows() {
    for rest in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\r\n", b"\n", b"\x16\x03\x01"] {
        let bytes = [TCP4_LINE, rest].concat();
        assert_eq!(parse(&bytes, &ANY).unwrap().len, TCP4_LINE.len());
    }
}

#[test]
fn version_1_is_strict() {
    use Reason::{BadAddress, BadPort, BadProtocol, LineTooLong, NoHeader, OtherVersion, UnexpectedByte};
    let cases: &[(&[u8], Reason, usize)] = &[
        (b"GET / HTTP/1.1", NoHeader, 0),
        (b"POST / HTTP/1.1", NoHeader, 1),
        (b"proxy", NoHeader, 0),
        (b"PROXY\tTCP4", UnexpectedByte, 5),
        (b"PROXY\r\n", UnexpectedByte, 5),
        (b"PROXY  TCP4", BadProtocol, 6),
        (b"PROXY TCP5", BadProtocol, 9),
        (b"PROXY UDP4", BadProtocol, 7),
        (b"PROXY tcp4", BadProtocol, 6),
        (b"PROXY UNKNOWN\n", UnexpectedByte, 13),
        (b"PROXY UNKNOWNX\r\n", UnexpectedByte, 13),
        (b"PROXY UNKNOWN\r ", UnexpectedByte, 14),
        (b"PROXY TCP4\r\n", UnexpectedByte, 10),
        (b"PROXY TCP4  1.2.3.4", UnexpectedByte, 11),
        (b"PROXY TCP4 1.2.3.4  ", UnexpectedByte, 19),
        (b"PROXY TCP4 1.2.3.4\r", UnexpectedByte, 18),
        (b"PROXY TCP4 01.2.3.4 ", BadAddress, 11),
        (b"PROXY TCP4 1.2.3.00 ", BadAddress, 11),
        (b"PROXY TCP4 1.2.3.256 ", BadAddress, 11),
        (b"PROXY TCP4 1.2.3 ", BadAddress, 11),
        (b"PROXY TCP4 1.2.3.4.5 ", BadAddress, 11),
        (b"PROXY TCP4 1..2.3 ", BadAddress, 11),
        (b"PROXY TCP4 1.2.3.4. ", BadAddress, 11),
        (b"PROXY TCP4 255.255.255.2550", BadAddress, 11),
        (b"PROXY TCP4 0x1.2.3.4", UnexpectedByte, 12),
        (b"PROXY TCP4 ::1", UnexpectedByte, 11),
        (b"PROXY TCP6 1.2.3.4 ", BadAddress, 11),
        (b"PROXY TCP6 1:2:3:4:5:6:7 ", BadAddress, 11),
        (b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ", BadAddress, 11),
        (b"PROXY TCP6 1:2:3:4:5:6:7::8 ", BadAddress, 11),
        (b"PROXY TCP6 1::2::3 ", BadAddress, 11),
        (b"PROXY TCP6 ::: ", BadAddress, 11),
        (b"PROXY TCP6 :1 ", BadAddress, 11),
        (b"PROXY TCP6 00001::1 ", BadAddress, 11),
        (b"PROXY TCP6 ::1.2.3 ", BadAddress, 11),
        (b"PROXY TCP6 ::1.2.3.04 ", BadAddress, 11),
        (b"PROXY TCP6 fe80::1%eth0 ", UnexpectedByte, 18),
        (b"PROXY TCP6 [::1] ", UnexpectedByte, 11),
        (b"PROXY TCP6 ::1 1.2.3.4 ", BadAddress, 15),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 ", BadPort, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 ", BadPort, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 123456", BadPort, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 080 ", BadPort, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 00 ", BadPort, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1", UnexpectedByte, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 -1", UnexpectedByte, 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1  2", UnexpectedByte, 29),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r", UnexpectedByte, 29),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ", UnexpectedByte, 30),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", UnexpectedByte, 30),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX", UnexpectedByte, 31),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r", BadPort, 29),
    ];
    for (bytes, reason, at) in cases {
        assert_eq!(refused(bytes), (*reason, *at), "{}", bytes.escape_ascii());
    }
    // 107 bytes with the line's end are the most; 107 without are too many.
    let mut line = [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat();
    assert_eq!((line.len(), addresses(&line)), (107, Addresses::Unspec));
    line.insert(20, b'x');
    assert_eq!(refused(&line), (LineTooLong, 107));
    assert_eq!(refused(&line[..107]), (LineTooLong, 107));
    assert_eq!(parse(&line[..106], &ANY), Err(Unparsed::NeedMore { at_least: 1 }));
    let only = |version| ANY.with_versions(Versions::Only(version));
    let other = Err(Unparsed::Invalid(ProxyError { reason: OtherVersion, at: 0 }));
    assert_eq!(parse(b"P", &only(Version::V2)), other);
    assert_eq!(parse(b"\r", &only(Version::V1)), other);
    assert!(parse(TCP4_LINE, &only(Version::V1)).is_ok());
    assert!(parse(&v2(0x21, 0x11, &[&TCP4_BODY]), &only(Version::V2)).is_ok());
}

#[test]
fn version_2_addresses_of_each_family() {
    assert_eq!(addresses(&v2(0x21, 0x11, &[&TCP4_BODY])), inet(Transport::Stream));
    assert_eq!(addresses(&v2(0x21, 0x12, &[&TCP4_BODY])), inet(Transport::Datagram));
    let (src, dst) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], Ipv6Addr::LOCALHOST.octets());
    assert_eq!(
        addresses(&v2(0x21, 0x21, &[&src, &dst, &[0xdc, 0x04, 0x01, 0xbb]])),
        inet6("2001:db8::1", "::1", 56324, 443)
    );
    let abstract_name = UnixAddress::from_name(b"\0name").unwrap();
    let path = UnixAddress::from_name(b"/run/app").unwrap();
    let read = addresses(&v2(0x21, 0x31, &[&abstract_name.0, &path.0]));
    assert_eq!(read, Addresses::Unix { transport: Transport::Stream, src: abstract_name, dst: path });
    assert_eq!((abstract_name.name(), path.name()), (&b"\0name"[..], &b"/run/app"[..]));
    assert_eq!(UnixAddress::UNNAMED.name(), b"");
    assert_eq!(UnixAddress([b'x'; 108]).name(), [b'x'; 108]);
    assert_eq!(UnixAddress::from_name(&[b'x'; 109]), None);
}

#[test]
fn version_2_local_and_unspec_ignore_what_is_there() {
    let bodies: [&[u8]; 5] = [b"", &TCP4_BODY, b"\x01\0\x05abc", &[0; 36], &[0xff; 216]];
    for body in bodies {
        // For LOCAL "the family ... is ignored", assigned or not.
        for family in 0..=255 {
            assert_eq!(read(&v2(0x20, family, &[body])).command, Command::Local);
        }
        for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
            assert_eq!(addresses(&v2(0x21, family, &[body])), Addresses::Unspec);
        }
    }
    // TLVs behind such addresses as there are.
    for (command, family, skipped) in [(0x20, 0x00, 0), (0x20, 0x11, 12), (0x21, 0x00, 0), (0x21, 0x10, 12)] {
        let bytes = v2(command, family, &[&vec![9; skipped], b"\x02\0\x01a"]);
        assert_eq!(read(&bytes).tlvs.iter().collect::<Vec<_>>(), [Tlv::Authority(b"a")]);
    }
    assert!(read(&v2(0x20, 0x99, &[b"\x02\0\x01a"])).tlvs.is_empty());
    assert!(read(&v2(0x20, 0x11, &[b"\x02\0\x01a"])).tlvs.is_empty());
    assert!(read(&v2(0x21, 0x00, &[b"\x02\0\x01ab"])).tlvs.is_empty());
    // The checksum of a LOCAL counts as that of any header.
    assert_eq!(read(&v2(0x20, 0, &[LOCAL_CHECKSUM])).tlvs.iter().count(), 1);
    let mut wrong = v2(0x20, 0, &[LOCAL_CHECKSUM]);
    wrong[19] ^= 1;
    assert_eq!(refused(&wrong), (Reason::BadChecksum, 19));
}

#[test]
fn version_2_is_strict() {
    use Reason::{AddressesTruncated, BadTlvLength, RepeatedChecksum, TlvTruncated, TooLong};
    for (family, len) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for short in 0..len {
            assert_eq!(refused(&v2(0x21, family, &[&vec![0; short]])), (AddressesTruncated, 14));
        }
        assert!(parse(&v2(0x21, family, &[&vec![0; len]]), &ANY).is_ok());
    }
    let cases: &[(&[u8], Reason, usize)] = &[
        (b"\x04", TlvTruncated, 28),
        (b"\x04\0", TlvTruncated, 28),
        (b"\x04\0\x01", TlvTruncated, 28),
        (b"\x04\0\x01a\x04", TlvTruncated, 32),
        (b"\x04\xff\xff", TlvTruncated, 28),
        (b"\x03\0\x03\0\0\0", BadTlvLength, 28),
        (b"\x03\0\x05\0\0\0\0\0", BadTlvLength, 28),
        (b"\x04\0\0\x20\0\x04\0\0\0\0", BadTlvLength, 31),
        (b"\x20\0\x06\0\0\0\0\0\x21", TlvTruncated, 28),
        (b"\x20\0\x08\0\0\0\0\0\x21\0\x01a", TlvTruncated, 28),
        (b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0", RepeatedChecksum, 35),
    ];
    for (tlvs, reason, at) in cases {
        let bytes = v2(0x21, 0x11, &[&TCP4_BODY, tlvs]);
        assert_eq!(refused(&bytes), (*reason, *at), "{}", tlvs.escape_ascii());
    }
    let unique_id = |len: u8| v2(0x21, 0x11, &[&TCP4_BODY, &[5, 0, len], &vec![7; usize::from(len)]]);
    assert_eq!(read(&unique_id(128)).tlvs.iter().next(), Some(Tlv::UniqueId(&[7; 128])));
    assert_eq!(refused(&unique_id(129)), (BadTlvLength, 28));
    // The cap, told as soon as the length's first byte is too much.
    for (options, longest) in [(ANY, 4096), (ANY.with_len_max(600), 600), (ANY.with_len_max(1), LEN_SAFE)] {
        let bytes = v2(0x20, 0, &[&vec![0xff; longest - 16]]);
        assert_eq!(parse(&bytes, &options).unwrap().len, longest);
        let bytes = v2(0x20, 0, &[&vec![0xff; longest - 15]]);
        let too_long = Err(ProxyError { reason: TooLong, at: 14 }.into());
        assert_eq!(parse(&bytes[..16], &options), too_long);
        assert_eq!(parse(&[&SIGNATURE, &[0x20, 0, 0x10][..]].concat(), &options), too_long);
    }
    let most = v2(0x20, 0, &[&[0xff; 65535]]);
    assert_eq!(parse(&most, &ANY.with_len_max(LEN_MAX)).unwrap().len, LEN_MAX);
}

/// ALPN, checksum and a custom TLV with a zero byte, behind `TCP4_BODY`; the checksum was worked out apart.
const CHECKED: &[u8] = b"\x01\0\x02h2\x03\0\x04\xfe\x8b\x05\x24\xe0\0\x03a\0b";
const LOCAL_CHECKSUM: &[u8] = b"\x03\0\x04\xa9\xb8\x7e\x8f";

#[test]
fn version_2_checksum_is_over_the_whole_header() {
    let bytes = v2(0x21, 0x11, &[&TCP4_BODY, CHECKED]);
    let tlvs = [Tlv::Alpn(b"h2"), Tlv::Crc32c(0xfe8b_0524), Tlv::Other { kind: 0xe0, value: b"a\0b" }];
    assert_eq!(read(&bytes).tlvs.iter().collect::<Vec<_>>(), tlvs);
    // The fields of the checksum's own TLV are left out: without type 3 there is none.
    for at in (16..33).chain(36..bytes.len()) {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let is_framing = matches!(at, 28..=30 | 41..=42);
            match refused(&flipped).0 {
                Reason::BadChecksum if !is_framing => {}
                Reason::BadChecksum | Reason::TlvTruncated | Reason::BadTlvLength if is_framing => {}
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
        }
    }
    // What follows the header is not in it.
    assert_eq!(parse(&[&bytes[..], b"more"].concat(), &ANY).unwrap().len, bytes.len());
}

#[test]
fn version_2_tlvs_of_every_type() {
    let ssl = [
        SslTlv::Version(b"TLSv1.3"),
        SslTlv::CommonName("m\u{fc}ller.example".as_bytes()),
        SslTlv::Cipher(b"TLS_AES_128_GCM_SHA256"),
        SslTlv::SignatureAlgorithm(b"RSA-SHA256"),
        SslTlv::KeyAlgorithm(b"RSA2048"),
        SslTlv::Group(b"x25519"),
        SslTlv::SignatureScheme(b"rsa_pss_rsae_sha256"),
        SslTlv::ClientCertificate(&[0x30, 0x82, 0, 0]),
        SslTlv::Other { kind: 0x2f, value: b"" },
    ];
    let client = ClientFlags::SSL.with(ClientFlags::CERT_CONN);
    let mut tlvs = TlvBuffer::new();
    let plain = [
        Tlv::Alpn(b"h2"),
        Tlv::Authority(b"example.com"),
        Tlv::Noop(b""),
        Tlv::UniqueId(&[0, 0xff]),
        Tlv::Netns(b"blue"),
        Tlv::Other { kind: *tlv::CUSTOM.start(), value: b"\0" },
        Tlv::Other { kind: *tlv::RESERVED.end(), value: b"" },
    ];
    for tlv in plain {
        tlvs.push(tlv).unwrap();
    }
    tlvs.push_ssl(client, 0, ssl).unwrap();
    let header = ProxyHeader::proxy(Version::V2, inet(Transport::Stream)).with_tlvs(tlvs.as_tlvs());
    let bytes = header.to_vec().unwrap();
    let read = read(&bytes);
    assert_eq!(read, header);
    assert!(read.tlvs.iter().take(plain.len()).eq(plain));
    let Some(Tlv::Ssl(read_ssl)) = read.tlvs.into_iter().last() else { panic!("the last is SSL") };
    assert_eq!((read_ssl.client, read_ssl.verify, read_ssl.has_verified_certificate()), (client, 0, true));
    assert!(read_ssl.tlvs.iter().eq(ssl));
    // By hand, from PROXY §2.2: types 01 02 04 05 30 e0 ff, then 20 with 21..28.
    let kinds = [0x01, 0x02, 0x04, 0x05, 0x30, 0xe0, 0xff, 0x20];
    assert!(read.tlvs.iter().map(|tlv| tlv.kind()).eq(kinds));
    let start =
        b"\x01\0\x02h2\x02\0\x0bexample.com\x04\0\0\x05\0\x02\0\xff\x30\0\x04blue\xe0\0\x01\0\xff\0\0\x20";
    assert!(read.tlvs.as_bytes().starts_with(start));
    let inside =
        b"\x03\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x0fm\xc3\xbcller.example\x23\0\x16TLS_AES_128_GCM_SHA256\x24";
    assert!(read.tlvs.as_bytes()[start.len() + 2..].starts_with(inside));
    // Pushed as it was read, it is the same.
    let mut again = TlvBuffer::new();
    for tlv in read.tlvs {
        again.push(tlv).unwrap();
    }
    assert_eq!(again, tlvs);
    assert!(!ClientFlags::SSL.has(client) && client.has(ClientFlags::SSL));
}

#[test]
fn a_certificate_is_verified_only_if_there_was_one() {
    let verdicts = [(0x01, 0, false), (0x03, 0, true), (0x05, 0, true), (0x07, 1, false), (0x00, 0, false)];
    for (client, verify, is_verified) in verdicts {
        let mut tlvs = TlvBuffer::new();
        tlvs.push_ssl(ClientFlags(client), verify, []).unwrap();
        let Some(Tlv::Ssl(ssl)) = tlvs.as_tlvs().iter().next() else { panic!("it was pushed") };
        assert_eq!(ssl.has_verified_certificate(), is_verified, "{client:#x} {verify}");
    }
}

#[test]
fn every_prefix_of_a_valid_header_needs_more_but_never_more_than_it_lacks() {
    for bytes in valid() {
        for len in 0..bytes.len() {
            match parse(&bytes[..len], &ANY) {
                Err(Unparsed::NeedMore { at_least }) => {
                    assert!((1..=bytes.len() - len).contains(&at_least), "{len} of {}", bytes.escape_ascii());
                    // Once version 2 says its length, all that is missing is asked for.
                    if bytes[0] == b'\r' && len >= 16 {
                        assert_eq!(at_least, bytes.len() - len);
                    }
                }
                other => panic!("{len} of {}: {other:?}", bytes.escape_ascii()),
            }
        }
        read(&bytes);
    }
    for (versions, at_least) in
        [(Versions::Any, 15), (Versions::Only(Version::V1), 15), (Versions::Only(Version::V2), 16)]
    {
        assert_eq!(parse(b"", &ANY.with_versions(versions)), Err(Unparsed::NeedMore { at_least }));
    }
}

#[test]
fn every_corrupted_byte_of_the_fixed_part_of_version_2_is_told() {
    let bytes = v2(0x21, 0x11, &[&TCP4_BODY]);
    for at in 0..16 {
        for value in (0..=255).filter(|value| *value != bytes[at]) {
            let mut corrupted = bytes.clone();
            corrupted[at] = value;
            let got = match parse(&corrupted, &ANY) {
                Ok(Parsed { header, len: 28 }) => Ok(header.command),
                Ok(parsed) => panic!("{parsed:?}"),
                Err(Unparsed::NeedMore { at_least }) => Err((None, at_least)),
                Err(Unparsed::Invalid(error)) => Err((Some(error.reason), error.at)),
            };
            let want = match (at, value) {
                (0, b'P') => Err((Some(Reason::NoHeader), 1)),
                (0..12, _) => Err((Some(Reason::NoHeader), at)),
                (12, 0x20) => Ok(Command::Local),
                (12, 0x22..=0x2f) => Err((Some(Reason::BadCommand), 12)),
                (12, _) => Err((Some(Reason::BadVersion), 12)),
                (13, 0x00..=0x02 | 0x10 | 0x20 | 0x30) => Ok(Command::Proxy(Addresses::Unspec)),
                (13, 0x12) => Ok(Command::Proxy(inet(Transport::Datagram))),
                (13, 0x21 | 0x22 | 0x31 | 0x32) => Err((Some(Reason::AddressesTruncated), 14)),
                (13, 0x40..) => Err((Some(Reason::BadFamily), 13)),
                (13, _) => Err((Some(Reason::BadTransport), 13)),
                // 4096 bytes at most: a length of 0x0f0c at most, as the low byte stays.
                (14, 0x10..) => Err((Some(Reason::TooLong), 14)),
                (14, _) => Err((None, usize::from(value) * 256)),
                (_, 0..12) => Err((Some(Reason::AddressesTruncated), 14)),
                _ => Err((None, usize::from(value) - 12)),
            };
            assert_eq!(got, want, "byte {at} is {value:#04x}");
        }
    }
}

#[test]
fn every_corrupted_byte_of_a_version_1_line_is_told() {
    // PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n
    let last = TCP4_LINE.len() - 1;
    for at in 0..TCP4_LINE.len() {
        for value in (0..=255u8).filter(|value| *value != TCP4_LINE[at]) {
            let mut line = TCP4_LINE.to_vec();
            line[at] = value;
            let got = match parse(&line, &ANY) {
                Ok(parsed) => {
                    // Another digit in an address or a port; its text is the canonical one.
                    assert!(
                        (11..last - 1).contains(&at) && value.is_ascii_digit(),
                        "{}",
                        line.escape_ascii()
                    );
                    assert_eq!(parsed.header.to_vec().unwrap(), line);
                    continue;
                }
                Err(Unparsed::NeedMore { at_least }) => panic!("{}: {at_least}", line.escape_ascii()),
                Err(Unparsed::Invalid(error)) => error.reason,
            };
            let is_right = match at {
                0..5 => got == Reason::NoHeader,
                5 | 10 => got == Reason::UnexpectedByte,
                9 if value == b'6' => got == Reason::BadAddress,
                6..10 => got == Reason::BadProtocol,
                11..36 => matches!(got, Reason::BadAddress | Reason::UnexpectedByte),
                36..45 => matches!(got, Reason::BadPort | Reason::UnexpectedByte),
                _ => matches!(got, Reason::UnexpectedByte | Reason::BadPort),
            };
            assert!(is_right, "{}: {got:?}", line.escape_ascii());
        }
    }
}

#[test]
fn emitted_version_1_is_canonical() {
    let line =
        |addresses| String::from_utf8(ProxyHeader::proxy(Version::V1, addresses).to_vec().unwrap()).unwrap();
    assert_eq!(line(inet(Transport::Stream)).as_bytes(), TCP4_LINE);
    assert_eq!(line(Addresses::Unspec), "PROXY UNKNOWN\r\n");
    for (address, written) in [
        ("::", "::"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        // Hexadecimal to the end, as the specification has it.
        ("::ffff:192.0.2.1", "::ffff:c000:201"),
        ("::ffff:0.0.0.0", "::ffff:0:0"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        let text = line(inet6(address, address, 65535, 0));
        assert_eq!(text, format!("PROXY TCP6 {written} {written} 65535 0\r\n"));
        assert_eq!(addresses(text.as_bytes()), inet6(address, address, 65535, 0));
    }
}

#[test]
fn emitted_version_2_is_as_the_specification_lays_it_out() {
    let bytes = |addresses| ProxyHeader::proxy(Version::V2, addresses).to_vec().unwrap();
    assert_eq!(ProxyHeader::LOCAL.to_vec().unwrap(), v2(0x20, 0x00, &[]));
    assert_eq!(bytes(Addresses::Unspec), v2(0x21, 0x00, &[]));
    assert_eq!(bytes(inet(Transport::Stream)), v2(0x21, 0x11, &[&TCP4_BODY]));
    assert_eq!(bytes(inet(Transport::Datagram)), v2(0x21, 0x12, &[&TCP4_BODY]));
    let (src, dst) = (UnixAddress::UNNAMED, UnixAddress::from_name(b"/a").unwrap());
    let unix = bytes(Addresses::Unix { transport: Transport::Datagram, src, dst });
    assert_eq!(unix, v2(0x21, 0x32, &[&[0; 108], b"/a", &[0; 106]]));
    // With the checksum computed, whatever stood there.
    let mut tlvs = TlvBuffer::new();
    tlvs.push(Tlv::Alpn(b"h2")).unwrap();
    tlvs.push(Tlv::Crc32c(0x1234_5678)).unwrap();
    tlvs.push(Tlv::Other { kind: 0xe0, value: b"a\0b" }).unwrap();
    let header = ProxyHeader::proxy(Version::V2, inet(Transport::Stream)).with_tlvs(tlvs.as_tlvs());
    let checked = v2(0x21, 0x11, &[&TCP4_BODY, CHECKED]);
    assert_eq!(header.to_vec().unwrap(), checked);
    // What was read is passed on as it is; changed, it has another checksum.
    assert_eq!(read(&checked).to_vec().unwrap(), checked);
    let changed = ProxyHeader { command: Command::Local, ..read(&checked) }.to_vec().unwrap();
    assert_eq!(read(&changed).command, Command::Local);
}

#[test]
fn emit_writes_its_bytes_and_no_more() {
    for bytes in valid().iter().filter(|bytes| !bytes.starts_with(b"PROXY UNKNOWN ")) {
        let header = read(bytes);
        let len = header.emit_len().unwrap();
        let mut into = vec![0xee; len + 3];
        assert_eq!(header.emit(&mut into), Ok(len));
        assert_eq!(into[len..], [0xee; 3]);
        assert_eq!(into[..len], header.to_vec().unwrap());
        assert_eq!(read(&into[..len]), header);
        assert_eq!(header.emit(&mut into[..len - 1]), Err(EmitError::NoRoom { needed: len }));
    }
}

#[test]
fn what_cannot_be_said_is_an_error() {
    let mixed = Addresses::of(Transport::Stream, "1.2.3.4:5".parse().unwrap(), "[::1]:6".parse().unwrap());
    assert_eq!(mixed, Err(EmitError::MixedFamilies));
    let (src, dst) = ("1.2.3.4:5".parse().unwrap(), "[::1]:6".parse().unwrap());
    assert_eq!(Addresses::of(Transport::Stream, src, src).unwrap().endpoints(), Some((src, src)));
    assert_eq!(Addresses::of(Transport::Stream, dst, dst).unwrap().endpoints(), Some((dst, dst)));
    let unix = Addresses::Unix {
        transport: Transport::Stream,
        src: UnixAddress::UNNAMED,
        dst: UnixAddress::UNNAMED,
    };
    let noop = Tlvs::parse(b"\x04\0\0").unwrap();
    for header in [
        ProxyHeader { version: Version::V1, ..ProxyHeader::LOCAL },
        ProxyHeader::proxy(Version::V1, inet(Transport::Datagram)),
        ProxyHeader::proxy(Version::V1, unix),
        ProxyHeader::proxy(Version::V1, inet(Transport::Stream)).with_tlvs(noop),
    ] {
        assert_eq!(header.to_vec(), Err(EmitError::NotInVersion1));
        assert!(ProxyHeader { version: Version::V2, ..header }.to_vec().is_ok());
    }
    let mut tlvs = TlvBuffer::new();
    tlvs.push(Tlv::Crc32c(0)).unwrap();
    let before = tlvs.clone();
    assert_eq!(tlvs.push(Tlv::Crc32c(0)), Err(EmitError::RepeatedChecksum));
    assert_eq!(tlvs.push(Tlv::UniqueId(&[0; 129])), Err(EmitError::BadTlvLength));
    assert_eq!(tlvs.push(Tlv::Other { kind: 3, value: b"abc" }), Err(EmitError::NotOther { kind: 3 }));
    assert_eq!(tlvs.push(Tlv::Other { kind: 1, value: b"abc" }), Err(EmitError::NotOther { kind: 1 }));
    assert_eq!(tlvs.push(Tlv::Noop(&vec![0; 65536])), Err(EmitError::TooLong));
    let part = SslTlv::Other { kind: 0x21, value: b"" };
    assert_eq!(tlvs.push_ssl(ClientFlags::SSL, 0, [part]), Err(EmitError::NotOther { kind: 0x21 }));
    let part = SslTlv::CommonName(&[0; 65528]);
    assert_eq!(tlvs.push_ssl(ClientFlags::SSL, 0, [part]), Err(EmitError::TooLong));
    assert_eq!(tlvs, before);
    // 7 bytes of checksum, 3 of type and length: 65535 in all, then one more.
    let value = vec![0; 65535 - 10];
    tlvs.push(Tlv::Noop(&value)).unwrap();
    let longest = ProxyHeader::LOCAL.with_tlvs(tlvs.as_tlvs());
    assert_eq!(longest.emit_len(), Ok(LEN_MAX));
    let too_long = ProxyHeader::proxy(Version::V2, inet(Transport::Stream)).with_tlvs(tlvs.as_tlvs());
    assert_eq!(too_long.to_vec(), Err(EmitError::TooLong));
}

#[test]
fn errors_say_what_and_where_and_every_reason_has_its_name() {
    let error = ProxyError { reason: Reason::BadPort, at: 27 };
    assert_eq!(
        error.to_string(),
        "no PROXY header: no port from 0 to 65535 without leading zeros, at byte 27"
    );
    let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let texts: BTreeSet<_> =
        Reason::ALL.iter().map(|&reason| ProxyError { reason, at: 0 }.to_string()).collect();
    assert_eq!((names.len(), texts.len()), (Reason::ALL.len(), Reason::ALL.len()));
    assert_eq!(EmitError::NoRoom { needed: 28 }.to_string(), "the PROXY header needs a buffer of 28 bytes");
}

#[test]
fn addresses_are_those_to_use_instead_of_the_real_ones() {
    assert_eq!(read(TCP4_LINE).addresses(), Some(inet(Transport::Stream)));
    assert_eq!(read(b"PROXY UNKNOWN\r\n").addresses(), None);
    assert_eq!(read(&v2(0x20, 0x11, &[&TCP4_BODY])).addresses(), None);
}
