//! The PROXY header of `hoststack_wire` beside that of the crate `ppp`: what we emit it reads as we meant it; on what came
//! near a header, verdicts and contents agree, but where this file says which of the two is stricter and why.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use hoststack_transport::Rng;
use hoststack_wire::proxy::{
    Addresses, ClientFlags, Command, ParseOptions, Parsed, ProxyHeader, Reason, SslTlv, Tlv, TlvBuffer,
    Transport, UnixAddress, Unparsed, Version, parse, tlv,
};
use ppp::{HeaderResult, PartialResult, v1, v2};

/// Headers of each test.
const ROUNDS: u32 = 20_000;

/// A header in the terms of both.
#[derive(Debug, PartialEq)]
struct Said {
    is_local: bool,
    transport: Option<Transport>,
    ends: Ends,
    /// Types and values.
    tlvs: Vec<(u8, Vec<u8>)>,
    len: usize,
}

#[derive(Debug, PartialEq)]
enum Ends {
    None,
    Ip(SocketAddr, SocketAddr),
    Unix([u8; 108], [u8; 108]),
}

/// Both say: a header; there must be more; not a header (and why).
type Verdict = Result<Said, Option<String>>;

/// The list as it is on the wire, split.
fn split(mut list: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut tlvs = Vec::new();
    while let [kind, high, low, rest @ ..] = list {
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, value.to_vec()));
        list = rest;
    }
    assert!(list.is_empty());
    tlvs
}

fn said(header: &ProxyHeader<'_>, len: usize) -> Said {
    let (is_local, addresses) = match header.command {
        Command::Local => (true, Addresses::Unspec),
        Command::Proxy(addresses) => (false, addresses),
    };
    let (transport, ends) = match addresses {
        Addresses::Unspec => (None, Ends::None),
        Addresses::Inet { transport, src, dst } => (Some(transport), Ends::Ip(src.into(), dst.into())),
        Addresses::Inet6 { transport, src, dst } => (Some(transport), Ends::Ip(src.into(), dst.into())),
        Addresses::Unix { transport, src, dst } => (Some(transport), Ends::Unix(src.0, dst.0)),
    };
    Said { is_local, transport, ends, tlvs: split(header.tlvs.as_bytes()), len }
}

fn ours(bytes: &[u8]) -> Result<Said, Option<Reason>> {
    match parse(bytes, &ParseOptions::DEFAULT) {
        Ok(Parsed { header, len }) => Ok(said(&header, len)),
        Err(Unparsed::NeedMore { .. }) => Err(None),
        Err(Unparsed::Invalid(error)) => Err(Some(error.reason)),
    }
}

fn theirs(bytes: &[u8]) -> Verdict {
    let result = HeaderResult::parse(bytes);
    let is_incomplete = result.is_incomplete();
    let verdict = match result {
        HeaderResult::V1(Ok(header)) => {
            let end = |ip: IpAddr, port| SocketAddr::new(ip, port);
            let ends = match header.addresses {
                v1::Addresses::Unknown => Ends::None,
                v1::Addresses::Tcp4(a) => Ends::Ip(
                    end(a.source_address.into(), a.source_port),
                    end(a.destination_address.into(), a.destination_port),
                ),
                v1::Addresses::Tcp6(a) => Ends::Ip(
                    end(a.source_address.into(), a.source_port),
                    end(a.destination_address.into(), a.destination_port),
                ),
            };
            let transport = (ends != Ends::None).then_some(Transport::Stream);
            let len = header.header.len();
            Ok(Said { is_local: false, transport, ends, tlvs: Vec::new(), len })
        }
        HeaderResult::V1(Err(error)) => Err(error.to_string()),
        HeaderResult::V2(Ok(header)) => their_v2(&header),
        HeaderResult::V2(Err(error)) => Err(error.to_string()),
    };
    verdict.map_err(|text| (!is_incomplete).then_some(text))
}

fn their_v2(header: &v2::Header<'_>) -> Result<Said, String> {
    let end = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let (is_local, len) = (header.command == v2::Command::Local, header.len());
    let transport = match header.protocol {
        v2::Protocol::Unspecified => None,
        v2::Protocol::Stream => Some(Transport::Stream),
        v2::Protocol::Datagram => Some(Transport::Datagram),
    };
    let ends = match header.addresses {
        v2::Addresses::Unspecified => Ends::None,
        v2::Addresses::IPv4(a) => Ends::Ip(
            end(a.source_address.into(), a.source_port),
            end(a.destination_address.into(), a.destination_port),
        ),
        v2::Addresses::IPv6(a) => Ends::Ip(
            end(a.source_address.into(), a.source_port),
            end(a.destination_address.into(), a.destination_port),
        ),
        v2::Addresses::Unix(a) => Ends::Unix(a.source, a.destination),
    };
    // It gives LOCAL and UNSPEC whatever stands there. Both are to be ignored: this is what is left then.
    let has_ends = !is_local && transport.is_some() && ends != Ends::None;
    let (transport, ends) = if has_ends { (transport, ends) } else { (None, Ends::None) };
    // For a family without addresses it takes all that follows for addresses; its own reader of lists goes on from there.
    let list = match header.address_family() {
        v2::AddressFamily::Unspecified => &header.as_bytes()[16..],
        _ => header.tlv_bytes(),
    };
    let list: Result<Vec<_>, _> = v2::TypeLengthValues::from(list)
        .map(|tlv| tlv.map(|tlv| (tlv.kind, tlv.value.to_vec())).map_err(|error| error.to_string()))
        .collect();
    // What is no list is ignored with the addresses, if they are.
    let tlvs = if has_ends { list? } else { list.unwrap_or_default() };
    Ok(Said { is_local, transport, ends, tlvs, len })
}

fn bytes(rng: &mut Rng, max: u32) -> Vec<u8> {
    (0..rng.below(max + 1)).map(|_| rng.below(256) as u8).collect()
}

fn ipv6(rng: &mut Rng) -> Ipv6Addr {
    match rng.below(3) {
        0 => std::net::Ipv4Addr::from(rng.u32()).to_ipv6_mapped(),
        _ => Ipv6Addr::from([(); 8].map(|()| if rng.below(2) == 0 { 0 } else { rng.u32() as u16 })),
    }
}

fn addresses(rng: &mut Rng, version: Version) -> Addresses {
    let datagrams = if version == Version::V1 { 1 } else { 2 };
    let transport = if rng.below(datagrams) == 0 { Transport::Stream } else { Transport::Datagram };
    match rng.below(if version == Version::V1 { 5 } else { 6 }) {
        0 => Addresses::Unspec,
        1 | 2 => {
            let [src, dst] = [(); 2].map(|()| SocketAddrV4::new(rng.u32().into(), rng.u32() as u16));
            Addresses::Inet { transport, src, dst }
        }
        3 | 4 => {
            let [src, dst] = [(); 2].map(|()| SocketAddrV6::new(ipv6(rng), rng.u32() as u16, 0, 0));
            Addresses::Inet6 { transport, src, dst }
        }
        _ => {
            let [src, dst] = [(); 2].map(|()| UnixAddress::from_name(&bytes(rng, 108)).unwrap());
            Addresses::Unix { transport, src, dst }
        }
    }
}

fn tlvs(rng: &mut Rng) -> TlvBuffer {
    let mut list = TlvBuffer::new();
    for _ in 0..rng.below(5) {
        let value = bytes(rng, 40);
        let pushed = match rng.below(8) {
            0 => list.push(Tlv::Alpn(&value)),
            1 => list.push(Tlv::Authority(&value)),
            // A second one is refused.
            2 => list.push(Tlv::Crc32c(0)).or(Ok(())),
            3 => list.push(Tlv::Noop(&value)),
            4 => list.push(Tlv::UniqueId(&value)),
            5 => list.push_ssl(ClientFlags::SSL, 1, [SslTlv::Version(&value), SslTlv::Cipher(b"")]),
            6 => list.push(Tlv::Netns(&value)),
            _ => list.push(Tlv::Other { kind: *tlv::CUSTOM.start() + rng.below(16) as u8, value: &value }),
        };
        pushed.unwrap();
    }
    list
}

/// A header of ours, and what is in it.
fn emitted(rng: &mut Rng) -> (Vec<u8>, Said) {
    let version = if rng.below(2) == 0 { Version::V1 } else { Version::V2 };
    let list = if version == Version::V1 { TlvBuffer::new() } else { tlvs(rng) };
    let command = match version {
        Version::V2 if rng.below(6) == 0 => Command::Local,
        _ => Command::Proxy(addresses(rng, version)),
    };
    let header = ProxyHeader { version, command, tlvs: list.as_tlvs() };
    let bytes = header.to_vec().unwrap();
    let said = said(&parse(&bytes, &ParseOptions::DEFAULT).unwrap().header, bytes.len());
    let meant = self::said(&header, bytes.len());
    assert_eq!((&said.ends, said.is_local, said.len), (&meant.ends, meant.is_local, meant.len));
    (bytes, said)
}

#[test]
fn ppp_reads_what_we_emit() {
    let mut rng = Rng::from_seed(0x5eed_0001);
    for _ in 0..ROUNDS {
        let (mut bytes, said) = emitted(&mut rng);
        bytes.extend(self::bytes(&mut rng, 20));
        assert_eq!(theirs(&bytes), Ok(said), "{}", bytes.escape_ascii());
    }
}

#[test]
fn we_read_what_ppp_emits() {
    let mut rng = Rng::from_seed(0x5eed_0002);
    for _ in 0..ROUNDS {
        let addresses = addresses(&mut rng, Version::V2);
        let Some((src, dst)) = addresses.endpoints() else { continue };
        let (transport, protocol) = match addresses {
            Addresses::Inet { transport: Transport::Stream, .. }
            | Addresses::Inet6 { transport: Transport::Stream, .. } => {
                let line = v1::Addresses::from((src, dst)).to_string();
                let said = ours(line.as_bytes()).unwrap();
                assert_eq!((said.ends, said.len), (Ends::Ip(src, dst), line.len()));
                (Transport::Stream, v2::Protocol::Stream)
            }
            _ => (Transport::Datagram, v2::Protocol::Datagram),
        };
        let value = bytes(&mut rng, 40);
        let built = v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, protocol, (src, dst))
            .write_tlv(v2::Type::NoOp, &value)
            .and_then(v2::Builder::build)
            .unwrap();
        let tlvs = vec![(tlv::kind::NOOP, value)];
        let (len, transport) = (built.len(), Some(transport));
        assert_eq!(
            ours(&built),
            Ok(Said { is_local: false, transport, ends: Ends::Ip(src, dst), tlvs, len })
        );
    }
}

/// Why the verdicts may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// It waits for more bytes after which we refuse at once; it refuses in the end, or takes what the other lines list.
    WeRefuseSooner,
    /// It verifies no checksum.
    WeVerifyTheChecksum,
    /// It knows no type's length, and no list inside SSL.
    WeKnowTheTypes,
    /// `+1` is a port to it.
    WeWantDigits,
    /// LOCAL: "the family ... is ignored", also when it is not assigned, or too short for its addresses.
    TheyJudgeTheFamilyOfLocal,
    /// UNSPEC of a family with addresses: their length is not known, and they are ignored.
    TheyWantAddressesInUnspec,
    /// UNKNOWN: what is to be ignored may be no UTF-8, may hold a CR by itself.
    TheyReadWhatFollowsUnknown,
    /// A line that ends, so far, inside an address or before a port is wrong to it.
    TheyRefusePrefixes,
    /// A CR is a space to it, and a space before an LF a CR.
    WeTellSpaceFromCr,
}

impl Difference {
    const COUNT: usize = Difference::WeTellSpaceFromCr as usize + 1;
}

fn difference(bytes: &[u8], ours: &Result<Said, Option<Reason>>, theirs: &Verdict) -> Option<Difference> {
    use Difference::*;
    let is_unspec_of_a_family =
        bytes.get(12) == Some(&0x21) && matches!(bytes.get(13), Some(0x10 | 0x20 | 0x30));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => None,
        (Err(None), Err(None)) | (Err(Some(_)), Err(Some(_))) => None,
        (Err(Some(_)), Err(None)) => Some(WeRefuseSooner),
        (Err(Some(Reason::BadChecksum)), Ok(_)) => Some(WeVerifyTheChecksum),
        (Err(Some(Reason::BadTlvLength | Reason::RepeatedChecksum | Reason::TlvTruncated)), Ok(_)) => {
            Some(WeKnowTheTypes)
        }
        (Ok(ours), Ok(theirs))
            if ours.ends == Ends::None && ours.tlvs.is_empty() && !theirs.tlvs.is_empty() =>
        {
            Some(WeKnowTheTypes)
        }
        (Err(Some(Reason::UnexpectedByte)), Ok(_)) if bytes.contains(&b'+') => Some(WeWantDigits),
        (Err(None | Some(Reason::UnexpectedByte)), Ok(theirs))
            if bytes[..theirs.len].ends_with(b" \n") || bytes[..theirs.len - 2].contains(&b'\r') =>
        {
            Some(WeTellSpaceFromCr)
        }
        (Ok(Said { is_local: true, .. }) | Err(None), Err(Some(_))) if bytes.get(12) == Some(&0x20) => {
            Some(TheyJudgeTheFamilyOfLocal)
        }
        (Ok(_) | Err(None), Err(Some(_))) if is_unspec_of_a_family => Some(TheyWantAddressesInUnspec),
        (Ok(_) | Err(None), Err(_)) if bytes.starts_with(b"PROXY UNKNOWN ") => {
            Some(TheyReadWhatFollowsUnknown)
        }
        (Err(None), Err(Some(_))) if bytes.starts_with(b"PROXY TCP") => Some(TheyRefusePrefixes),
        _ => panic!("{}: {ours:?} but ppp: {theirs:?}", bytes.escape_ascii()),
    }
}

#[test]
fn near_headers_we_and_ppp_differ_only_as_listed() {
    let mut rng = Rng::from_seed(0x5eed_0003);
    let mut seen = std::collections::BTreeMap::new();
    let mut agreed = [0u32; 3];
    for _ in 0..ROUNDS * 5 {
        let (mut bytes, _) = emitted(&mut rng);
        if bytes.starts_with(b"PROXY UNKNOWN") {
            let rest = [b" ", &*self::bytes(&mut rng, 10)].concat();
            bytes.splice(13..13, rest);
        }
        for _ in 0..1 + rng.below(2) {
            let at = rng.below(bytes.len() as u32) as usize;
            match rng.below(8) {
                0 => bytes.truncate(at + 1),
                1 => bytes[at] = rng.below(256) as u8,
                2 => bytes.insert(at, *b" \r\n+0.:1".get(rng.below(8) as usize).unwrap()),
                3 => _ = bytes.remove(at),
                4 => bytes[at] = bytes[at].wrapping_add(1),
                // Where version 2 has its command and family.
                5 if bytes.len() > 13 => bytes[12] ^= 1,
                6 if bytes.len() > 13 => bytes[13] = rng.below(0x40) as u8,
                _ => bytes[at] ^= 1 << rng.below(8),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let (ours, theirs) = (ours(&bytes), theirs(&bytes));
        match difference(&bytes, &ours, &theirs) {
            Some(difference) => *seen.entry(difference).or_insert(0u32) += 1,
            None => {
                agreed[match ours {
                    Ok(_) => 0,
                    Err(None) => 1,
                    Err(Some(_)) => 2,
                }] += 1
            }
        }
    }
    println!("agreed on headers, prefixes, refusals: {agreed:?}; differed: {seen:?}");
    // Each line of the list is needed.
    assert_eq!(seen.len(), Difference::COUNT, "{seen:?}");
    assert!(agreed.iter().all(|count| *count > ROUNDS / 10), "{agreed:?}");
}
