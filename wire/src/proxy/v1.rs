//! Version 1: a line of text (PROXY §2.1).

use core::fmt::{self, Write as _};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use core::str::FromStr;

use super::error::{EmitError, ProxyError, Reason, Unparsed};
use super::{Addresses, Command, Parsed, ProxyHeader, Transport, Version};

/// Bytes of a line at most, with CR and LF: that of UNKNOWN with two long addresses.
const LEN_MAX: usize = 107;

/// How it begins. No other version begins with the first byte.
const SIGNATURE: &[u8] = b"PROXY";
pub(super) const FIRST_BYTE: u8 = SIGNATURE[0];

/// Bytes of the shortest line, that of UNKNOWN.
pub(super) const LEN_MIN: usize = b"PROXY UNKNOWN\r\n".len();
const TCP4_LEN_MIN: usize = b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len();
const TCP6_LEN_MIN: usize = b"PROXY TCP6 :: :: 0 0\r\n".len();

/// Bytes of the longest address, of the longest with a dotted end, of the longest port.
const IPV4_LEN_MAX: usize = b"255.255.255.255".len();
const IPV6_LEN_MAX: usize = b"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();
const PORT_LEN_MAX: usize = b"65535".len();

/// Reads a line, whose first byte was looked at.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Unparsed> {
    let mut cursor = Cursor { bytes, at: 0, len_min: LEN_MIN };
    cursor.expect(SIGNATURE, Reason::NoHeader)?;
    cursor.expect(b" ", Reason::UnexpectedByte)?;
    let addresses = match cursor.next()? {
        b'T' => {
            cursor.expect(b"CP", Reason::BadProtocol)?;
            match cursor.next()? {
                b'4' => {
                    cursor.len_min = TCP4_LEN_MIN;
                    let [(src, src_port), (dst, dst_port)] = cursor
                        .endpoints::<Ipv4Addr>(IPV4_LEN_MAX, |byte| matches!(byte, b'0'..=b'9' | b'.'))?;
                    Addresses::Inet {
                        transport: Transport::Stream,
                        src: SocketAddrV4::new(src, src_port),
                        dst: SocketAddrV4::new(dst, dst_port),
                    }
                }
                b'6' => {
                    cursor.len_min = TCP6_LEN_MIN;
                    // Deviates: PROXY §2.1 knows hexadecimal digits only, but senders that use `inet_ntop` (HAProxy)
                    // write mapped addresses with a dotted end (RFC 4291 §2.2 (3)); it means nothing else.
                    let [(src, src_port), (dst, dst_port)] = cursor
                        .endpoints::<Ipv6Addr>(IPV6_LEN_MAX, |byte| {
                            byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
                        })?;
                    Addresses::Inet6 {
                        transport: Transport::Stream,
                        src: SocketAddrV6::new(src, src_port, 0, 0),
                        dst: SocketAddrV6::new(dst, dst_port, 0, 0),
                    }
                }
                _ => return Err(cursor.error(Reason::BadProtocol)),
            }
        }
        b'U' => {
            cursor.expect(b"NKNOWN", Reason::BadProtocol)?;
            cursor.skip_line()?;
            Addresses::Unspec
        }
        _ => return Err(cursor.error(Reason::BadProtocol)),
    };
    Ok(Parsed { header: ProxyHeader::proxy(Version::V1, addresses), len: cursor.at })
}

/// Goes from byte to byte, so that the first one that is wrong decides, however many have come.
struct Cursor<'a> {
    bytes: &'a [u8],
    /// The next one.
    at: usize,
    /// Bytes of the shortest line that begins as this one.
    len_min: usize,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Result<u8, Unparsed> {
        // "If the CRLF sequence is not found in the first 107 characters": also when no more have come.
        if self.at == LEN_MAX {
            return Err(ProxyError { reason: Reason::LineTooLong, at: LEN_MAX }.into());
        }
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(Unparsed::NeedMore { at_least: self.at_least() });
        };
        self.at += 1;
        Ok(byte)
    }

    /// Bytes that are missing at least. All that have come were looked at, and are fewer than `LEN_MAX`.
    fn at_least(&self) -> usize {
        let end = if self.bytes.last() == Some(&b'\r') { 1 } else { 2 };
        self.len_min.saturating_sub(self.at).max(end).min(LEN_MAX - self.at)
    }

    /// About the byte that was read last.
    fn error(&self, reason: Reason) -> Unparsed {
        ProxyError { reason, at: self.at - 1 }.into()
    }

    fn expect(&mut self, text: &[u8], otherwise: Reason) -> Result<(), Unparsed> {
        for want in text {
            if self.next()? != *want {
                return Err(self.error(otherwise));
            }
        }
        Ok(())
    }

    /// From the space after the protocol to the end of the line: source and destination, in the line's order.
    fn endpoints<A: FromStr>(
        &mut self,
        len_max: usize,
        is_legal: fn(u8) -> bool,
    ) -> Result<[(A, u16); 2], Unparsed> {
        self.expect(b" ", Reason::UnexpectedByte)?;
        let src = self.field(b' ', len_max, is_legal, Reason::BadAddress)?;
        let dst = self.field(b' ', len_max, is_legal, Reason::BadAddress)?;
        let src_port = self.port(b' ')?;
        let dst_port = self.port(b'\r')?;
        self.expect(b"\n", Reason::UnexpectedByte)?;
        Ok([(src, src_port), (dst, dst_port)])
    }

    fn port(&mut self, end: u8) -> Result<u16, Unparsed> {
        let from = self.at;
        let port = self.field(end, PORT_LEN_MAX, |byte| byte.is_ascii_digit(), Reason::BadPort)?;
        // "Heading zeroes are not permitted": the length of what was read tells them, `end` not counted.
        if self.bytes[from] == b'0' && self.at - from > 2 {
            return Err(ProxyError { reason: Reason::BadPort, at: from }.into());
        }
        Ok(port)
    }

    /// A field and the byte that ends it. For addresses, core's own parsers are as strict as PROXY §2.1: four numbers up
    /// to 255 without leading zeros; groups of one to four digits, 128 bits in all, at most one double colon.
    fn field<T: FromStr>(
        &mut self,
        end: u8,
        len_max: usize,
        is_legal: fn(u8) -> bool,
        otherwise: Reason,
    ) -> Result<T, Unparsed> {
        let from = self.at;
        loop {
            let byte = self.next()?;
            let len = self.at - 1 - from;
            if byte == end && len > 0 {
                break;
            }
            if !is_legal(byte) {
                return Err(self.error(Reason::UnexpectedByte));
            }
            if len == len_max {
                return Err(ProxyError { reason: otherwise, at: from }.into());
            }
        }
        let field: &'a [u8] = &self.bytes[from..self.at - 1];
        let value = str::from_utf8(field).ok().and_then(|text| text.parse().ok());
        value.ok_or(ProxyError { reason: otherwise, at: from }.into())
    }

    /// "The receiver must ignore anything presented before the CRLF is found": a CR or LF by itself too.
    fn skip_line(&mut self) -> Result<(), Unparsed> {
        let mut last = self.next()?;
        match last {
            b' ' => {}
            b'\r' => return self.expect(b"\n", Reason::UnexpectedByte),
            _ => return Err(self.error(Reason::UnexpectedByte)),
        }
        loop {
            let byte = self.next()?;
            if (last, byte) == (b'\r', b'\n') {
                return Ok(());
            }
            last = byte;
        }
    }
}

/// A line that was written.
pub(super) struct Line {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl Line {
    pub(super) fn of(header: &ProxyHeader<'_>) -> Result<Line, EmitError> {
        if !header.tlvs.is_empty() {
            return Err(EmitError::NotInVersion1);
        }
        let mut line = Line { bytes: [0; LEN_MAX], len: 0 };
        let written = match header.command {
            Command::Proxy(Addresses::Unspec) => line.write_str("PROXY UNKNOWN\r\n"),
            Command::Proxy(Addresses::Inet { transport: Transport::Stream, src, dst }) => {
                let (from, to) = (src.ip(), dst.ip());
                write!(line, "PROXY TCP4 {from} {to} {} {}\r\n", src.port(), dst.port())
            }
            Command::Proxy(Addresses::Inet6 { transport: Transport::Stream, src, dst }) => {
                let (from, to) = (Hexadecimal(*src.ip()), Hexadecimal(*dst.ip()));
                write!(line, "PROXY TCP6 {from} {to} {} {}\r\n", src.port(), dst.port())
            }
            Command::Local | Command::Proxy(_) => return Err(EmitError::NotInVersion1),
        };
        // Cannot fail: PROXY §2.1 counts 104 bytes for the longest of these.
        written.expect("addresses and ports fit a line");
        Ok(line)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes[self.len..].get_mut(..text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// As PROXY §2.1 wants it, in hexadecimal digits to the end; core's own text of a mapped address ends with a dotted one.
struct Hexadecimal(Ipv6Addr);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.to_ipv4_mapped(), self.0.segments()) {
            (Some(_), [.., high, low]) => write!(f, "::ffff:{high:x}:{low:x}"),
            (None, _) => self.0.fmt(f),
        }
    }
}
