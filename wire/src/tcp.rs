//! The TCP header (RFC 9293 §3.1) and its options, as typed values that cannot be malformed.

use core::fmt;
use core::net::IpAddr;
use core::ops::BitOr;

use crate::bytes::{put, split, u16_at, u32_at};
use crate::checksum::Sum;
use crate::error::ParseError;
use crate::ip::IpProtocol;
use crate::seq::SeqNum;

/// The control bits of a segment (RFC 9293 §3.1, RFC 3168, RFC 9768's AE bit as bit 8).
///
/// They print as packetdrill prints them, in the order of [`Flags::LETTERS`]: `S`, `S.`, `FP.`; `-` for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No bit.
    pub const NONE: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN-Echo.
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(0x80);
    /// Accurate ECN (the former NS bit).
    pub const AE: Flags = Flags(0x100);

    /// The bits and their letters, in the order in which they print.
    pub const LETTERS: [(Flags, char); 9] = [
        (Flags::FIN, 'F'),
        (Flags::SYN, 'S'),
        (Flags::RST, 'R'),
        (Flags::PSH, 'P'),
        (Flags::ACK, '.'),
        (Flags::URG, 'U'),
        (Flags::ECE, 'E'),
        (Flags::CWR, 'W'),
        (Flags::AE, 'A'),
    ];

    /// The bits of both.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn has_any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets of bits.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The bits that are not in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Flags::NONE {
            return f.write_str("-");
        }
        for (flag, letter) in Flags::LETTERS {
            if self.has(flag) {
                fmt::Write::write_char(f, letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the echo of the receiver's clock; meaningful with ACK only.
    pub ecr: u32,
}

/// The blocks of a SACK option (RFC 2018 §3): at most 4, each `start..end` in sequence numbers, first one newest.
#[derive(Clone, Copy, Default)]
pub struct SackBlocks {
    len: u8,
    blocks: [(SeqNum, SeqNum); 4],
}

impl SackBlocks {
    /// No blocks: no option.
    pub const NONE: SackBlocks = SackBlocks { len: 0, blocks: [(SeqNum(0), SeqNum(0)); 4] };

    /// Adds a block at the end; returns false, adding nothing, when there are 4.
    pub fn push(&mut self, start: SeqNum, end: SeqNum) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *place = (start, end);
        self.len += 1;
        true
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[(SeqNum, SeqNum)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Keeps the first `len` blocks.
    pub fn truncate(&mut self, len: usize) {
        // Cannot cut: 4 at most.
        self.len = self.len.min(len.min(4) as u8);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

// By hand: what lies behind `len` says nothing.
impl PartialEq for SackBlocks {
    fn eq(&self, other: &SackBlocks) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

/// The Fast Open option (RFC 7413 §4.1.1): a cookie, or the request for one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FastOpenCookie {
    /// What lies behind `len` is zero.
    bytes: [u8; FastOpenCookie::LEN_MAX],
    len: u8,
    is_experimental: bool,
}

impl FastOpenCookie {
    /// The longest cookie.
    pub const LEN_MAX: usize = 16;
    /// The empty option with which a SYN asks for a cookie.
    pub const REQUEST: FastOpenCookie =
        FastOpenCookie { bytes: [0; FastOpenCookie::LEN_MAX], len: 0, is_experimental: false };

    /// A cookie of 4 to 16 bytes, an even number of them; none at all are the request. Other lengths are no cookie.
    pub fn new(cookie: &[u8]) -> Option<FastOpenCookie> {
        let is_legal = cookie.is_empty() || (4..=FastOpenCookie::LEN_MAX).contains(&cookie.len());
        if !is_legal || !cookie.len().is_multiple_of(2) {
            return None;
        }
        let mut bytes = [0; FastOpenCookie::LEN_MAX];
        bytes[..cookie.len()].copy_from_slice(cookie);
        // Cannot cut: 16 at most.
        Some(FastOpenCookie { bytes, len: cookie.len() as u8, is_experimental: false })
    }

    /// The same in the form that was in use before kind 34 was assigned: kind 254 with the magic number 0xF989
    /// (RFC 7413 appendix A.4, RFC 6994), or not so.
    #[must_use]
    pub const fn experimental(self, is_experimental: bool) -> FastOpenCookie {
        FastOpenCookie { is_experimental, ..self }
    }

    /// Whether it comes or goes in the experimental form.
    pub const fn is_experimental(&self) -> bool {
        self.is_experimental
    }

    /// The cookie's bytes; none when it is a request.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it asks for a cookie.
    pub const fn is_request(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the option before its padding.
    const fn option_len(&self) -> usize {
        2 + 2 * self.is_experimental as usize + self.len as usize
    }
}

impl fmt::Debug for FastOpenCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As packetdrill writes it: `FO`, `FO 3021b9d889017eeb`, `FOEXP 1234abcd`.
impl fmt::Display for FastOpenCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_experimental { "FOEXP" } else { "FO" })?;
        if !self.is_request() {
            f.write_str(" ")?;
        }
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// In which order the options of a SYN are written, and how they are padded: what tells systems apart on the wire.
/// Segments without SYN look the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OptionProfile {
    /// `mss, sackOK, TS, nop, wscale`; each option ends on a multiple of 4.
    #[default]
    Linux,
    /// `mss, nop, wscale, sackOK, TS`; `eol` behind the last.
    FreeBsd,
}

/// The options of a segment that this stack understands; others are skipped when parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size (RFC 9293 §3.2); on SYN only.
    pub mss: Option<u16>,
    /// Window scale shift, 0 to 14 (RFC 7323 §2; larger values are read as 14); on SYN only.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018 §2); on SYN only.
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 §3).
    pub timestamps: Option<Timestamps>,
    /// SACK blocks (RFC 2018 §3).
    pub sack: SackBlocks,
    /// Fast Open (RFC 7413 §4.1.1); on SYN only.
    pub fast_open: Option<FastOpenCookie>,
    /// How they are written; what was parsed says nothing of it.
    pub profile: OptionProfile,
}

/// A TCP header with its options: what a segment says, besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK; meaningful with [`Flags::ACK`] only.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it is on the wire, unscaled.
    pub wnd: u16,
    /// SEG.UP; meaningful with [`Flags::URG`] only.
    pub urgent: u16,
    /// Options.
    pub options: Options,
}

/// A received segment: its header and the payload where it lies in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Header and options.
    pub header: SegmentHeader,
    /// Payload.
    pub payload: &'a [u8],
    /// The ECN bits of its IP header (RFC 3168 §5): 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE; 0 as parsed.
    pub ecn: u8,
}

impl Segment<'_> {
    /// SEG.LEN: octets of sequence space, SYN and FIN included (RFC 9293 §3.3.1).
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.header.flags.has(Flags::SYN))
            + u32::from(self.header.flags.has(Flags::FIN))
    }
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of a header with as many options as fit.
pub const HEADER_LEN_MAX: usize = 60;
/// Where the checksum lies in a header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Largest window scale shift (RFC 7323 §2.3).
pub const WINDOW_SCALE_MAX: u8 = 14;

/// Option kinds.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
    pub(super) const FAST_OPEN: u8 = 34;
    /// RFC 6994: an experiment, named by what follows.
    pub(super) const EXPERIMENT: u8 = 254;
}

/// The experiment identifier of Fast Open (RFC 7413 appendix A.4).
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

/// The layout that nearly all segments of a connection with timestamps have (RFC 7323 appendix A).
const NOP_NOP_TIMESTAMPS: [u8; 4] = [kind::NOP, kind::NOP, kind::TIMESTAMPS, 10];

impl<'a> Segment<'a> {
    /// Reads a segment. The checksum is not looked at: see [`verify_checksum`].
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadLength`] for a data offset below 5; [`ParseError::BadOption`] for an
    /// option of an illegal length (RFC 9293 §3.1, MUST-7).
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Segment<'a>, ParseError> {
        let (head, _) = split::<HEADER_LEN>(bytes)?;
        let header_len = usize::from(head[12] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(ParseError::BadLength);
        }
        let (whole, payload) = bytes.split_at_checked(header_len).ok_or(ParseError::Truncated)?;
        let header = SegmentHeader {
            src_port: u16_at::<0, _>(head),
            dst_port: u16_at::<2, _>(head),
            seq: SeqNum(u32_at::<4, _>(head)),
            ack: SeqNum(u32_at::<8, _>(head)),
            flags: Flags(u16_at::<12, _>(head) & 0x1ff),
            wnd: u16_at::<14, _>(head),
            urgent: u16_at::<18, _>(head),
            options: Options::parse(&whole[HEADER_LEN..])?,
        };
        Ok(Segment { header, payload, ecn: 0 })
    }
}

impl Options {
    /// Reads an option list: the bytes between the fixed header and the payload. Unknown options are skipped; of one
    /// that comes twice the last counts. Options are read on any segment: which may carry which is the caller's matter.
    ///
    /// # Errors
    /// [`ParseError::BadOption`].
    #[inline]
    pub fn parse(list: &[u8]) -> Result<Options, ParseError> {
        if list.is_empty() {
            return Ok(Options::default());
        }
        if let Ok(list) = <&[u8; 12]>::try_from(list)
            && list.starts_with(&NOP_NOP_TIMESTAMPS)
        {
            let timestamps = Timestamps { val: u32_at::<4, _>(list), ecr: u32_at::<8, _>(list) };
            return Ok(Options { timestamps: Some(timestamps), ..Options::default() });
        }
        // RFC 9293 §3.1 (MUST-5): on whatever segment.
        Options::parse_slow(list)
    }

    fn parse_slow(mut list: &[u8]) -> Result<Options, ParseError> {
        let mut options = Options::default();
        loop {
            // RFC 9293 §3.1 (MUST-4), §3.2 (MUST-64): End of List and No-Operation are one byte, wherever they stand.
            let (option_kind, rest) = match *list {
                [] | [kind::END, ..] => return Ok(options),
                [kind::NOP, ref rest @ ..] => {
                    list = rest;
                    continue;
                }
                [option_kind, ref rest @ ..] => (option_kind, rest),
            };
            let (&len, rest) = rest.split_first().ok_or(ParseError::BadOption)?;
            // The length counts the kind and itself; an impossible one is an error (RFC 9293 §3.1, MUST-7).
            let value_len = usize::from(len).checked_sub(2).ok_or(ParseError::BadOption)?;
            let (value, rest) = rest.split_at_checked(value_len).ok_or(ParseError::BadOption)?;
            options.take_option(option_kind, value)?;
            list = rest;
        }
    }

    fn take_option(&mut self, option_kind: u8, value: &[u8]) -> Result<(), ParseError> {
        match (option_kind, value) {
            (kind::MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            // RFC 7323 §2.3: a shift above 14 is used as 14.
            (kind::WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(WINDOW_SCALE_MAX)),
            (kind::SACK_PERMITTED, []) => self.sack_permitted = true,
            (kind::TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some(Timestamps {
                    val: u32::from_be_bytes([a, b, c, d]),
                    ecr: u32::from_be_bytes([e, f, g, h]),
                });
            }
            (kind::SACK, blocks) => {
                let (blocks, []) = blocks.as_chunks::<8>() else { return Err(ParseError::BadOption) };
                self.sack = SackBlocks::NONE;
                for block in blocks {
                    // Always room: 40 bytes of options hold 4 blocks.
                    self.sack.push(SeqNum(u32_at::<0, _>(block)), SeqNum(u32_at::<4, _>(block)));
                }
            }
            // RFC 7413 §4.1.1: the option is ignored if its cookie is of an illegal length.
            (kind::FAST_OPEN, cookie) => self.fast_open = FastOpenCookie::new(cookie).or(self.fast_open),
            (kind::EXPERIMENT, [a, b, cookie @ ..]) if [*a, *b] == FAST_OPEN_MAGIC => {
                let cookie = FastOpenCookie::new(cookie).map(|cookie| cookie.experimental(true));
                self.fast_open = cookie.or(self.fast_open);
            }
            (kind::MSS | kind::WINDOW_SCALE | kind::SACK_PERMITTED | kind::TIMESTAMPS, _) => {
                return Err(ParseError::BadOption);
            }
            // RFC 9293 §3.1 (MUST-6): what is not known is skipped.
            _ => {}
        }
        Ok(())
    }

    /// Bytes on the wire without SACK blocks. Every option is laid out on a multiple of 4.
    #[inline]
    const fn fixed_len(&self) -> usize {
        // SACK-permitted takes the place of the two NOPs before timestamps.
        let sack_permitted = self.sack_permitted && self.timestamps.is_none();
        let fast_open = match &self.fast_open {
            Some(cookie) => cookie.option_len().next_multiple_of(4),
            None => 0,
        };
        4 * self.mss.is_some() as usize
            + 12 * self.timestamps.is_some() as usize
            + 4 * sack_permitted as usize
            + 4 * self.window_scale.is_some() as usize
            + fast_open
    }

    /// Whether the list ends with a SACK-permitted that is padded behind, as FreeBSD does it.
    pub(crate) const fn ends_with_sack_permitted(&self) -> bool {
        let is_last = self.timestamps.is_none() && self.fast_open.is_none() && self.sack.len == 0;
        matches!(self.profile, OptionProfile::FreeBsd) && self.sack_permitted && is_last
    }

    /// How many of the SACK blocks fit.
    #[inline]
    fn sack_fit(&self) -> usize {
        let room = HEADER_LEN_MAX - HEADER_LEN - self.fixed_len();
        self.sack.as_slice().len().min(room.saturating_sub(4) / 8)
    }

    /// Whether there is nothing but timestamps, if these: nearly every segment.
    #[inline]
    const fn is_timestamps_only(&self) -> bool {
        let is_of_syn =
            self.mss.is_some() | self.sack_permitted | self.window_scale.is_some() | self.fast_open.is_some();
        !is_of_syn && self.sack.len == 0
    }

    /// Bytes on the wire: a multiple of 4, at most 40. SACK blocks that do not fit are left out.
    #[inline]
    pub fn len(&self) -> usize {
        if self.is_timestamps_only() {
            return 12 * usize::from(self.timestamps.is_some());
        }
        let blocks = self.sack_fit();
        self.fixed_len() + if blocks == 0 { 0 } else { 4 + 8 * blocks }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the list in the order of its profile, each option ending on a multiple of 4, and returns its length. RFC 9293
    /// §3.1: each has its length (MUST-68); nothing comes after an End of List (MUST-69).
    #[inline]
    fn emit(&self, into: &mut [u8]) -> usize {
        if !self.is_timestamps_only() {
            return self.emit_any(into);
        }
        let Some(timestamps) = self.timestamps else { return 0 };
        let at = put(into, 0, &NOP_NOP_TIMESTAMPS);
        let at = put(into, at, &timestamps.val.to_be_bytes());
        put(into, at, &timestamps.ecr.to_be_bytes())
    }

    fn emit_any(&self, into: &mut [u8]) -> usize {
        let mut at = 0;
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            at = put(into, at, &[kind::MSS, 4, a, b]);
        }
        let is_linux = self.profile == OptionProfile::Linux;
        let window_scale = self.window_scale.map(|shift| [kind::NOP, kind::WINDOW_SCALE, 3, shift]);
        if let Some(window_scale) = window_scale.filter(|_| !is_linux) {
            at = put(into, at, &window_scale);
        }
        match (self.timestamps, self.sack_permitted) {
            (Some(timestamps), sack_permitted) => {
                let lead = if sack_permitted {
                    [kind::SACK_PERMITTED, 2, kind::TIMESTAMPS, 10]
                } else {
                    NOP_NOP_TIMESTAMPS
                };
                at = put(into, at, &lead);
                at = put(into, at, &timestamps.val.to_be_bytes());
                at = put(into, at, &timestamps.ecr.to_be_bytes());
            }
            (None, true) if !self.ends_with_sack_permitted() => {
                at = put(into, at, &[kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]);
            }
            (None, true) => at = put(into, at, &[kind::SACK_PERMITTED, 2, kind::END, kind::END]),
            (None, false) => {}
        }
        if let Some(window_scale) = window_scale.filter(|_| is_linux) {
            at = put(into, at, &window_scale);
        }
        if let Some(cookie) = &self.fast_open {
            let end = at + cookie.option_len();
            // Cannot cut: 20 at most.
            let len = cookie.option_len() as u8;
            if cookie.is_experimental {
                at = put(into, at, &[kind::EXPERIMENT, len, FAST_OPEN_MAGIC[0], FAST_OPEN_MAGIC[1]]);
            } else {
                at = put(into, at, &[kind::FAST_OPEN, len]);
            }
            at = put(into, at, cookie.as_slice());
            while at < end.next_multiple_of(4) {
                at = put(into, at, &[kind::NOP]);
            }
        }
        let fit = self.sack_fit();
        if fit != 0 {
            // Cannot cut: 34 at most.
            at = put(into, at, &[kind::NOP, kind::NOP, kind::SACK, (2 + 8 * fit) as u8]);
            for (start, end) in &self.sack.as_slice()[..fit] {
                at = put(into, at, &start.0.to_be_bytes());
                at = put(into, at, &end.0.to_be_bytes());
            }
        }
        at
    }
}

impl SegmentHeader {
    /// Bytes of the header on the wire, options included: 20 to 60, a multiple of 4. SACK blocks that do not fit
    /// beside the other options are left out.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Writes the header with a zero checksum field and returns its length, [`SegmentHeader::header_len`]. The payload
    /// goes behind it; then [`finish_checksum`] or [`set_checksum`].
    ///
    /// # Panics
    /// When `into` is shorter than that.
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let len = self.header_len();
        let (head, list) = into[..len].split_at_mut(HEADER_LEN);
        // Cannot cut: 60 / 4 = 15.
        let offset_and_flags = ((len / 4) as u16 * 0x1000) | (self.flags.0 & 0x1ff);
        put(head, 0, &self.src_port.to_be_bytes());
        put(head, 2, &self.dst_port.to_be_bytes());
        put(head, 4, &self.seq.0.to_be_bytes());
        put(head, 8, &self.ack.0.to_be_bytes());
        put(head, 12, &offset_and_flags.to_be_bytes());
        put(head, 14, &self.wnd.to_be_bytes());
        put(head, CHECKSUM_OFFSET, &[0, 0]);
        put(head, 18, &self.urgent.to_be_bytes());
        self.options.emit(list);
        len
    }
}

/// Whether the checksum of a whole segment (header and payload) is right. Addresses of two families: never.
#[inline]
pub fn verify_checksum(src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
    pseudo(src, dst, segment.len()).is_some_and(|mut sum| {
        sum.add_bytes(segment);
        sum.is_valid()
    })
}

/// Stores the checksum of a whole segment (header and payload), whatever its checksum field held.
///
/// # Panics
/// When the addresses are of two families, or `segment` is shorter than a header or longer than 65535 bytes.
#[inline]
pub fn set_checksum(src: IpAddr, dst: IpAddr, segment: &mut [u8]) {
    put(segment, CHECKSUM_OFFSET, &[0, 0]);
    let pseudo = pseudo(src, dst, segment.len())
        .expect("both ends of a segment are of one family, and it fits in a packet");
    finish_checksum(segment, pseudo);
}

/// Stores the checksum of a segment whose checksum field is zero, as [`SegmentHeader::emit`] leaves it.
///
/// `sum` is the pseudo header's sum, and `segment` the header and payload. Where the payload was summed while it was
/// copied ([`copy_and_sum`](crate::copy_and_sum)), `sum` is both ([`Sum::append`]) and `segment` is the header alone.
///
/// # Panics
/// When `segment` is shorter than a header.
#[inline]
pub fn finish_checksum(segment: &mut [u8], sum: Sum) {
    // The other sum may end on an odd byte; headers have an even length, so it counts as if it had come behind.
    let mut total = Sum::ZERO;
    total.add_bytes(segment);
    total.append_aligned(sum);
    put(segment, CHECKSUM_OFFSET, &total.finish().to_be_bytes());
}

#[inline]
fn pseudo(src: IpAddr, dst: IpAddr, len: usize) -> Option<Sum> {
    Sum::pseudo(src, dst, IpProtocol::TCP, u16::try_from(len).ok()?)
}
