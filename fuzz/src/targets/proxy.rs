//! The PROXY protocol's header on any bytes: nothing panics, the answer is the same however the bytes come, no byte is
//! asked for that is not the header's, what was read is written and read the same.

use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};

use hoststack_wire::proxy::{
    Addresses, ClientFlags, Command, LEN_MAX, ParseOptions, Parsed, ProxyError, ProxyHeader, Reason, SslTlv,
    Tlv, TlvBuffer, Tlvs, Transport, UnixAddress, Unparsed, Version, Versions, crc32c, parse, tlv,
};

use crate::input::Input;

/// The first byte: versions that are taken (2 bits), the cap (2 bits), what the rest is (2 bits): bytes as they are; the
/// end of a line; all but the signature of a binary header, its length and checksum mended (no fuzzer guesses those);
/// choices of what to write.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let what = input.u8();
    let versions = match what & 3 {
        1 => Versions::Only(Version::V1),
        2 => Versions::Only(Version::V2),
        _ => Versions::Any,
    };
    let len_max = [ParseOptions::LEN_MAX_DEFAULT, LEN_MAX, 1, 600][usize::from(what >> 2 & 3)];
    let options = ParseOptions::DEFAULT.with_versions(versions).with_len_max(len_max);
    match what >> 4 & 3 {
        0 => judge(input.rest(), &options),
        1 => judge(&[b"PROXY ", input.rest()].concat(), &options),
        2 => mended(&mut input, &options),
        _ => written(&mut input),
    }
}

/// All the bytes at once, and one by one.
fn judge(bytes: &[u8], options: &ParseOptions) {
    let at_once = parse(bytes, options);
    let mut wanted = 0;
    let mut answered = false;
    for len in 0..=bytes.len() {
        match parse(&bytes[..len], options) {
            Err(Unparsed::NeedMore { at_least }) => {
                assert!(!answered, "an answer that was taken back after {len} bytes");
                assert!(at_least > 0 && len + at_least <= options.len_max());
                wanted = wanted.max(len + at_least);
            }
            answer => {
                assert_eq!(answer, at_once, "after {len} bytes");
                if let (Ok(parsed), false) = (answer, answered) {
                    assert!(parsed.len == len && wanted <= len);
                }
                answered = true;
            }
        }
    }
    match at_once {
        Ok(parsed) => again(&parsed),
        Err(Unparsed::Invalid(error)) => {
            assert!(error.at <= bytes.len() && !error.to_string().is_empty());
        }
        Err(Unparsed::NeedMore { .. }) => assert!(!answered),
    }
}

/// What was read is written, and read the same; each TLV too. What was ignored is not written, and changes the checksum.
fn again(parsed: &Parsed<'_>) {
    let header = parsed.header;
    let options = ParseOptions::DEFAULT.with_len_max(LEN_MAX);
    let written = header.to_vec().expect("what was read can be said");
    let read = parse(&written, &options).expect("what was written is read");
    assert_eq!(
        (read.header.version, read.header.command, read.len),
        (header.version, header.command, written.len())
    );
    assert!(same_but_the_checksum(read.header.tlvs, header.tlvs));
    assert_eq!(read.header.to_vec().as_ref(), Ok(&written));
    let mut list = TlvBuffer::new();
    for tlv in header.tlvs {
        match tlv {
            Tlv::Ssl(ssl) => list.push_ssl(ssl.client, ssl.verify, ssl.tlvs.iter()),
            tlv => list.push(tlv),
        }
        .expect("what was read can be pushed");
    }
    assert_eq!(list.as_tlvs(), header.tlvs);
    let _ = header.addresses().and_then(|addresses| addresses.endpoints());
    if let Some(Addresses::Unix { src, dst, .. }) = header.addresses() {
        for address in [src, dst] {
            let named = UnixAddress::from_name(address.name()).expect("a name fits");
            assert_eq!(named.name(), address.name());
        }
    }
}

fn mended(input: &mut Input<'_>, options: &ParseOptions) {
    let [version_command, family] = [input.u8(), input.u8()];
    let rest = input.rest();
    // Inputs are far shorter than a length field can say.
    let len = (rest.len() as u16).to_be_bytes();
    let mut bytes = [b"\r\n\r\n\0\r\nQUIT\n", &[version_command, family][..], &len, rest].concat();
    if let Err(Unparsed::Invalid(ProxyError { reason: Reason::BadChecksum, at })) = parse(&bytes, options) {
        let checksum = crc32c::of_header(&bytes, at);
        bytes[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&bytes, options).map(|parsed| parsed.len), Ok(bytes.len()));
    }
    judge(&bytes, options);
}

/// A header by the input's choice says what it was made of when it is read.
fn written(input: &mut Input<'_>) {
    let version = if input.bool() { Version::V1 } else { Version::V2 };
    let transport = if input.bool() { Transport::Datagram } else { Transport::Stream };
    let command = match input.u8() % 5 {
        0 => Command::Local,
        1 => Command::Proxy(Addresses::Unspec),
        2 => {
            let [src, dst] = [(); 2].map(|()| SocketAddrV4::new(input.u32().into(), input.u16()));
            Command::Proxy(Addresses::Inet { transport, src, dst })
        }
        3 => {
            let [src, dst] = [(); 2].map(|()| SocketAddrV6::new(address(input), input.u16(), 0, 0));
            Command::Proxy(Addresses::Inet6 { transport, src, dst })
        }
        _ => {
            let [src, dst] = [(); 2].map(|()| UnixAddress([input.u8(); UnixAddress::LEN]));
            Command::Proxy(Addresses::Unix { transport, src, dst })
        }
    };
    let mut list = TlvBuffer::new();
    while !input.is_empty() {
        let kind = input.u8();
        let len = usize::from(input.u8()).min(input.rest().len());
        let value = &input.rest()[..len];
        (0..len).for_each(|_| _ = input.u8());
        push(&mut list, kind, value);
    }
    let header = ProxyHeader { version, command, tlvs: list.as_tlvs() };
    let Ok(bytes) = header.to_vec() else {
        assert_eq!(version, Version::V1, "version 2 says it all");
        return;
    };
    let options = ParseOptions::DEFAULT.with_len_max(LEN_MAX);
    let read = parse(&bytes, &options).expect("what was written is read");
    assert_eq!((read.header.version, read.header.command, read.len), (version, command, bytes.len()));
    assert!(same_but_the_checksum(read.header.tlvs, list.as_tlvs()));
}

fn same_but_the_checksum(one: Tlvs<'_>, other: Tlvs<'_>) -> bool {
    fn zeroed(tlv: Tlv<'_>) -> Tlv<'_> {
        if matches!(tlv, Tlv::Crc32c(_)) { Tlv::Crc32c(0) } else { tlv }
    }
    one.iter().map(zeroed).eq(other.iter().map(zeroed))
}

fn address(input: &mut Input<'_>) -> Ipv6Addr {
    let mapped = input.bool();
    let parts = [(); 4].map(|()| u128::from(input.u32()));
    let all = parts.into_iter().fold(0, |all, part| all << 32 | part);
    if mapped { Ipv6Addr::from(all & 0xffff_ffff | 0xffff << 32) } else { Ipv6Addr::from(all) }
}

/// Appends a TLV, or is refused for what it is.
fn push(list: &mut TlvBuffer, kind: u8, value: &[u8]) {
    let before = list.clone();
    let pushed = match kind {
        tlv::kind::ALPN => list.push(Tlv::Alpn(value)),
        tlv::kind::CRC32C => list.push(Tlv::Crc32c(0)),
        tlv::kind::UNIQUE_ID => list.push(Tlv::UniqueId(value)),
        tlv::kind::SSL => {
            let parts = value.chunks(3).map(|chunk| match chunk {
                [0x22, value @ ..] => SslTlv::CommonName(value),
                [kind, value @ ..] => SslTlv::Other { kind: *kind, value },
                [] => SslTlv::Version(&[]),
            });
            list.push_ssl(ClientFlags(value.first().copied().unwrap_or(0)), 0, parts)
        }
        kind => list.push(Tlv::Other { kind, value }),
    };
    if pushed.is_err() {
        assert_eq!(*list, before);
    }
}
