//! The PROXY protocol on generated headers and on any bytes: what is emitted is read the same, an answer does not depend on
//! how bytes were cut, version 1 agrees with a naive reading of its whole line.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use hoststack_wire::proxy::{
    Addresses, ClientFlags, Command, LEN_MAX, ParseOptions, Parsed, ProxyHeader, SslTlv, Tlv, TlvBuffer,
    Transport, UnixAddress, Unparsed, Version, Versions, parse, tlv,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Feeds `bytes` one by one until there is an answer, and holds it to be that of all at once.
fn fed<'a>(bytes: &'a [u8], options: &ParseOptions) -> Result<Parsed<'a>, Unparsed> {
    let at_once = parse(bytes, options);
    let mut wanted = 0;
    for len in 0..=bytes.len() {
        match parse(&bytes[..len], options) {
            Err(Unparsed::NeedMore { at_least }) => {
                assert!(at_least > 0 && len + at_least <= options.len_max());
                wanted = wanted.max(len + at_least);
            }
            answer => {
                assert_eq!(answer, at_once, "after {len} of {} bytes", bytes.len());
                match answer {
                    // Not one byte was asked for that is not the header's, nor waited for in vain.
                    Ok(parsed) => assert!(parsed.len == len && wanted <= len),
                    Err(Unparsed::Invalid(error)) => assert!(error.at <= len),
                    Err(Unparsed::NeedMore { .. }) => unreachable!("matched above"),
                }
                return at_once;
            }
        }
    }
    assert!(matches!(at_once, Err(Unparsed::NeedMore { .. })));
    at_once
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)]
}

/// All sorts, with zeros in the middle and mapped ones among them.
fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    let group = prop_oneof![Just(0), any::<u16>()];
    prop_oneof![
        proptest::array::uniform8(group).prop_map(Ipv6Addr::from),
        any::<u32>().prop_map(|v4| Ipv4Addr::from(v4).to_ipv6_mapped()),
    ]
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let v4 = || any::<(u32, u16)>().prop_map(|(address, port)| SocketAddrV4::new(address.into(), port));
    let v6 = || (ipv6(), any::<u16>()).prop_map(|(address, port)| SocketAddrV6::new(address, port, 0, 0));
    let unix = || vec(any::<u8>(), 0..=108).prop_map(|name| UnixAddress::from_name(&name).unwrap());
    prop_oneof![
        1 => Just(Addresses::Unspec),
        3 => (transport(), v4(), v4()).prop_map(|(transport, src, dst)| Addresses::Inet { transport, src, dst }),
        3 => (transport(), v6(), v6()).prop_map(|(transport, src, dst)| Addresses::Inet6 { transport, src, dst }),
        1 => (transport(), unix(), unix()).prop_map(|(transport, src, dst)| Addresses::Unix { transport, src, dst }),
    ]
}

/// A TLV that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Plain(u8, Vec<u8>),
    Ssl(u8, u32, Vec<(u8, Vec<u8>)>),
}

impl Owned {
    fn push(&self, list: &mut TlvBuffer) {
        let value = match self {
            Owned::Plain(_, value) => value,
            Owned::Ssl(client, verify, parts) => {
                let parts = parts.iter().map(|(kind, value)| match kind {
                    0x21 => SslTlv::Version(value),
                    0x22 => SslTlv::CommonName(value),
                    _ => SslTlv::Other { kind: *kind, value },
                });
                return list.push_ssl(ClientFlags(*client), *verify, parts).unwrap();
            }
        };
        let Owned::Plain(kind, _) = self else { return };
        let tlv = match *kind {
            tlv::kind::ALPN => Tlv::Alpn(value),
            tlv::kind::AUTHORITY => Tlv::Authority(value),
            tlv::kind::CRC32C => Tlv::Crc32c(7),
            tlv::kind::NOOP => Tlv::Noop(value),
            tlv::kind::UNIQUE_ID => Tlv::UniqueId(&value[..value.len().min(128)]),
            tlv::kind::NETNS => Tlv::Netns(value),
            kind => Tlv::Other { kind, value },
        };
        // A second checksum is refused, and left out.
        assert!(list.push(tlv).is_ok() || *kind == tlv::kind::CRC32C);
    }
}

fn tlvs() -> impl Strategy<Value = TlvBuffer> {
    let value = || prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 100..2000)];
    let kind = prop_oneof![1..=5u8, Just(0x30), 0xe0..=0xffu8, 0x31..=0xdfu8];
    let part = prop_oneof![Just(0x21), Just(0x22), 0x29..=0xffu8];
    let one = prop_oneof![
        (kind, value()).prop_map(|(kind, value)| Owned::Plain(kind, value)),
        (any::<u8>(), any::<u32>(), vec((part, value()), 0..4))
            .prop_map(|(client, verify, parts)| Owned::Ssl(client, verify, parts)),
    ];
    vec(one, 0..6).prop_map(|all| {
        let mut list = TlvBuffer::new();
        for tlv in all {
            tlv.push(&mut list);
        }
        list
    })
}

/// The checksum is left out: it is computed.
fn but_the_checksum<'a>(header: &ProxyHeader<'a>) -> Vec<Tlv<'a>> {
    let zeroed = |tlv| if matches!(tlv, Tlv::Crc32c(_)) { Tlv::Crc32c(0) } else { tlv };
    header.tlvs.iter().map(zeroed).collect()
}

/// A line of version 1 read whole, by splitting it; nothing when it is not one.
fn naive_line(bytes: &[u8]) -> Option<(Addresses, usize)> {
    let len = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let line = bytes[..len - 2].strip_prefix(b"PROXY ").filter(|_| len <= 107)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some((Addresses::Unspec, len));
    }
    let fields: Vec<&str> = str::from_utf8(line).ok()?.split(' ').collect();
    let [family, src, dst, src_port, dst_port] = fields[..] else { return None };
    let ends = [(src, number(src_port, 65535)?), (dst, number(dst_port, 65535)?)];
    // Cannot cut: up to 65535.
    let ends: Vec<SocketAddr> = match family {
        "TCP4" => {
            ends.into_iter().map(|(text, port)| Some((naive_ipv4(text)?, port as u16).into())).collect()
        }
        "TCP6" => {
            ends.into_iter().map(|(text, port)| Some((naive_ipv6(text)?, port as u16).into())).collect()
        }
        _ => None,
    }?;
    Some((Addresses::of(Transport::Stream, ends[0], ends[1]).unwrap(), len))
}

fn number(text: &str, max: u32) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number <= max && number.to_string() == text).then_some(number)
}

fn naive_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let [a, b, c, d] = parts[..] else { return None };
    let byte = |text| number(text, 255);
    Some(Ipv4Addr::from((byte(a)? << 24) | (byte(b)? << 16) | (byte(c)? << 8) | byte(d)?))
}

fn naive_ipv6(text: &str) -> Option<Ipv6Addr> {
    // The groups of a side of the double colon; the dotted form at the end is two.
    let groups = |text: &str, is_last_side: bool| -> Option<Vec<u16>> {
        let mut groups = Vec::new();
        if text.is_empty() {
            return Some(groups);
        }
        let all: Vec<&str> = text.split(':').collect();
        for (at, group) in all.iter().enumerate() {
            if group.contains('.') {
                let [a, b, c, d] =
                    naive_ipv4(group).filter(|_| is_last_side && at == all.len() - 1)?.octets();
                groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            } else if (1..=4).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                groups.push(u16::from_str_radix(group, 16).ok()?);
            } else {
                return None;
            }
        }
        Some(groups)
    };
    let all = match text.split_once("::") {
        None => groups(text, true)?,
        Some((front, back)) => {
            let (front, back) = (groups(front, false)?, groups(back, true)?);
            let zeros = 8usize.checked_sub(front.len() + back.len()).filter(|zeros| *zeros > 0)?;
            [front, vec![0; zeros], back].concat()
        }
    };
    Some(Ipv6Addr::from(<[u16; 8]>::try_from(all).ok()?))
}

/// Pieces of lines, right and wrong, put together: most come close, some are lines.
fn near_lines() -> impl Strategy<Value = Vec<u8>> {
    let words = |list: &'static [&'static str]| proptest::sample::select(list).prop_map(str::to_owned);
    let space =
        || prop_oneof![30 => Just(" ".to_owned()), 1 => words(&["", "  ", "\t", "\r", "\n", "\u{a0}", "\0"])];
    let word = prop_oneof![
        30 => words(&["TCP4", "TCP6"]),
        3 => words(&["UNKNOWN", "UNKNOWN ", "UNKNOWN 1", "TCP", "TCP5", "UDP4", "tcp4", "UNKNOWNX", ""]),
    ];
    let address = || {
        prop_oneof![
            5 => any::<u32>().prop_map(|address| Ipv4Addr::from(address).to_string()),
            5 => ipv6().prop_map(|address| address.to_string()),
            3 => vec(prop_oneof![4 => Just(String::new()), 8 => "[0-9a-fA-F]{1,4}", 1 => "[0-9]{1,3}[.][0-9.]{5,9}", 1 => "[g-z]"], 1..10)
                .prop_map(|groups| groups.join(":")),
            2 => vec(prop_oneof![8 => (0..260u32).prop_map(|part| part.to_string()), 1 => "0[0-9]", 1 => "[a-f]?"], 3..6)
                .prop_map(|parts| parts.join(".")),
        ]
    };
    let port = || {
        prop_oneof![
            10 => any::<u16>().prop_map(|port| port.to_string()),
            2 => "[0-9]{1,6}",
            1 => words(&["", "+1", "-1", "65535", "65536", "0", "00", "x", "1.", "4294967297"]),
        ]
    };
    let end = prop_oneof![20 => Just("\r\n".to_owned()), 1 => words(&["\n", "\r", "\r\r\n", " \r\n", "", "\n\r\n"])];
    let rest = words(&["", "GET / HTTP/1.1\r\n\r\n", "\r\n", "\n", "PROXY "]);
    let fields = (space(), address(), space(), address(), space(), port(), space(), port());
    (space(), word, fields, end, rest).prop_map(|(space, word, fields, end, rest)| {
        let (s1, src, s2, dst, s3, src_port, s4, dst_port) = fields;
        format!("PROXY{space}{word}{s1}{src}{s2}{dst}{s3}{src_port}{s4}{dst_port}{end}{rest}").into_bytes()
    })
}

fn judge_line(bytes: &[u8]) -> Result<(), TestCaseError> {
    let options = ParseOptions::DEFAULT.with_versions(Versions::Only(Version::V1));
    match (fed(bytes, &options), naive_line(bytes)) {
        (Ok(parsed), naive) => {
            prop_assert_eq!(
                Some((parsed.header.command, parsed.len)),
                naive.map(|(a, l)| (Command::Proxy(a), l))
            );
            prop_assert_eq!(parsed.header.version, Version::V1);
        }
        (Err(Unparsed::Invalid(_)), naive) => prop_assert_eq!(naive, None),
        (Err(Unparsed::NeedMore { .. }), _) => {
            // No line's end yet, and room for one.
            let tail = bytes.strip_prefix(b"PROXY UNKNOWN ").unwrap_or_default();
            prop_assert!(bytes.len() < 107 && !tail.windows(2).any(|pair| pair == b"\r\n"));
            prop_assert_eq!(naive_line(bytes), None);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn emitted_and_parsed_version_2_is_the_same(
        is_local in any::<bool>(), addresses in addresses(), list in tlvs(), rest in vec(any::<u8>(), 0..20)
    ) {
        let command = if is_local { Command::Local } else { Command::Proxy(addresses) };
        let header = ProxyHeader { version: Version::V2, command, tlvs: list.as_tlvs() };
        let mut bytes = header.to_vec().unwrap();
        let len = bytes.len();
        bytes.extend(rest);
        let options = ParseOptions::DEFAULT.with_len_max(LEN_MAX);
        let parsed = parse(&bytes, &options).unwrap();
        prop_assert_eq!(parsed.len, len);
        prop_assert_eq!((parsed.header.version, parsed.header.command), (Version::V2, command));
        prop_assert_eq!(but_the_checksum(&parsed.header), but_the_checksum(&header));
        // What was read, checksum and all, is emitted as it came.
        prop_assert_eq!(parsed.header.to_vec().unwrap(), &bytes[..len]);
    }

    #[test]
    fn emitted_and_parsed_version_1_is_the_same(addresses in addresses(), rest in vec(any::<u8>(), 0..20)) {
        let header = ProxyHeader::proxy(Version::V1, addresses);
        let is_sayable = matches!(
            addresses,
            Addresses::Unspec
                | Addresses::Inet { transport: Transport::Stream, .. }
                | Addresses::Inet6 { transport: Transport::Stream, .. }
        );
        prop_assert_eq!(header.to_vec().is_ok(), is_sayable);
        if let Ok(mut bytes) = header.to_vec() {
            let len = bytes.len();
            prop_assert!(len <= 104);
            bytes.extend(rest);
            prop_assert_eq!(fed(&bytes, &ParseOptions::DEFAULT), Ok(Parsed { header, len }));
            prop_assert_eq!(naive_line(&bytes), Some((addresses, len)));
        }
    }

    #[test]
    fn any_bytes_behind_a_signature_are_judged_the_same_however_they_come(
        fixed in (prop_oneof![8 => 0x20..=0x21u8, 1 => any::<u8>()], prop_oneof![4 => Just(0x11u8), 4 => 0..0x34u8, 1 => any::<u8>()]),
        len in 0..300u16, body in vec(prop_oneof![0..6u8, any::<u8>()], 0..320)
    ) {
        let bytes = [b"\r\n\r\n\0\r\nQUIT\n", &[fixed.0, fixed.1][..], &len.to_be_bytes(), &body].concat();
        let answer = fed(&bytes, &ParseOptions::DEFAULT);
        if let Ok(parsed) = answer {
            prop_assert_eq!(parsed.len, 16 + usize::from(len));
            // What was understood can be said again.
            let again = parsed.header.to_vec().unwrap();
            prop_assert_eq!(parse(&again, &ParseOptions::DEFAULT).unwrap().header, parsed.header);
        }
    }

    #[test]
    fn any_bytes_at_all_panic_nobody(bytes in vec(any::<u8>(), 0..200)) {
        let _ = fed(&bytes, &ParseOptions::DEFAULT);
    }

    #[test]
    fn lines_and_what_comes_near_them_are_read_as_a_naive_reader_does(bytes in near_lines()) {
        judge_line(&bytes)?;
    }

    #[test]
    fn lines_with_a_corrupted_byte_are_read_as_a_naive_reader_does(
        addresses in addresses(), at in any::<prop::sample::Index>(), value in prop_oneof![b' '..b'g', any::<u8>()]
    ) {
        if let Ok(mut bytes) = ProxyHeader::proxy(Version::V1, addresses).to_vec() {
            let at = at.index(bytes.len());
            bytes[at] = value;
            judge_line(&bytes)?;
        }
    }
}
