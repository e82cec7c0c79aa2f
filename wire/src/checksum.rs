//! The Internet checksum (RFC 1071), eight bytes at a time.
//!
//! Sums are kept in the machine's byte order: a ones' complement sum does not care (RFC 1071 §2(B)), so nothing is
//! swapped until [`Sum::finish`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ip::IpProtocol;

/// Bytes handled per turn of the hot loop.
const BLOCK: usize = 64;

/// A running ones' complement sum. It remembers whether an odd number of bytes went in, so pieces may be of any length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Native-order words, not folded below 64 bits.
    words: u64,
    /// Whether the next byte is the second of its 16-bit word.
    odd: bool,
}

impl Sum {
    /// Nothing summed.
    pub const ZERO: Sum = Sum { words: 0, odd: false };

    /// The pseudo header of IPv4 (RFC 9293 §3.1); `len` is that of the transport header and its payload.
    #[inline]
    #[must_use]
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: IpProtocol, len: u16) -> Sum {
        // Native words of the bytes as they would lie in memory; four terms below 2^32 cannot overflow.
        let words = u64::from(u32::from_ne_bytes(src.octets()))
            + u64::from(u32::from_ne_bytes(dst.octets()))
            + u64::from(u16::from_ne_bytes([0, protocol.0]))
            + u64::from(u16::from_ne_bytes(len.to_be_bytes()));
        Sum { words, odd: false }
    }

    /// The pseudo header of IPv6 (RFC 8200 §8.1); `len` is that of the upper-layer header and its payload.
    #[inline]
    #[must_use]
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: IpProtocol, len: u32) -> Sum {
        let mut words =
            u64::from(u16::from_ne_bytes([0, protocol.0])) + u64::from(u32::from_ne_bytes(len.to_be_bytes()));
        for addr in [src, dst] {
            for quad in addr.octets().as_chunks::<4>().0 {
                words += u64::from(u32::from_ne_bytes(*quad));
            }
        }
        Sum { words, odd: false }
    }

    /// The pseudo header of either family; `None` when the two addresses are not of one family.
    #[inline]
    #[must_use]
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: IpProtocol, len: u16) -> Option<Sum> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Sum::pseudo_v4(src, dst, protocol, len)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Sum::pseudo_v6(src, dst, protocol, u32::from(len))),
            _ => None,
        }
    }

    /// Adds `bytes`, which follow those that went in before.
    #[inline]
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let words = sum_words(bytes);
        self.add_words(words, bytes.len());
    }

    /// Adds one 16-bit field.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.add_words(u64::from(u16::from_ne_bytes(value.to_be_bytes())), 2);
    }

    /// Appends what another sum saw, as if its bytes followed.
    #[inline]
    pub fn append(&mut self, other: Sum) {
        self.add_words(other.words, usize::from(other.odd));
    }

    /// Adds what another sum saw, as if its bytes had come before, padded to whole words.
    #[inline]
    pub(crate) fn append_aligned(&mut self, other: Sum) {
        self.words = add_carry(self.words, other.words);
    }

    #[inline]
    fn add_words(&mut self, words: u64, len: usize) {
        // RFC 1071 §2(B): bytes that start in the middle of a word count with their halves swapped.
        let words = if self.odd { u64::from(fold(words).swap_bytes()) } else { words };
        self.words = add_carry(self.words, words);
        self.odd ^= len % 2 == 1;
    }

    /// The checksum of what went in, as the number to store big-endian; 0 when a correct checksum was among it.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        u16::from_be_bytes((!fold(self.words)).to_ne_bytes())
    }

    /// Whether the bytes that went in, their checksum field included, are intact.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        fold(self.words) == u16::MAX
    }
}

/// The checksum of `bytes` alone.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::ZERO;
    sum.add_bytes(bytes);
    sum.finish()
}

/// Copies `src` to `dst` and sums it on the way.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> Sum {
    assert_eq!(dst.len(), src.len(), "a fused copy fills its destination exactly");
    let (from, from_tail) = src.as_chunks::<BLOCK>();
    let (to, to_tail) = dst.as_chunks_mut::<BLOCK>();
    let mut lanes = [0u128; 4];
    for (from, to) in from.iter().zip(to) {
        *to = *from;
        add_block(&mut lanes, from);
    }
    to_tail.copy_from_slice(from_tail);
    Sum { words: add_carry(fold_lanes(lanes), sum_tail(from_tail)), odd: src.len() % 2 == 1 }
}

/// The native-order word sum of `bytes`; an odd last byte is padded with zero.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (blocks, tail) = bytes.as_chunks::<BLOCK>();
    let mut lanes = [0u128; 4];
    for block in blocks {
        add_block(&mut lanes, block);
    }
    add_carry(fold_lanes(lanes), sum_tail(tail))
}

/// One turn: carries gather in the upper halves, where nothing short of 2^64 blocks can overflow them.
#[inline(always)]
fn add_block(lanes: &mut [u128; 4], block: &[u8; BLOCK]) {
    let (words, _) = block.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        lanes[at % 4] += u128::from(u64::from_ne_bytes(*word));
    }
}

#[inline(always)]
fn fold_lanes(lanes: [u128; 4]) -> u64 {
    let all = lanes.iter().sum::<u128>();
    // The halves are words of the same weight, modulo 2^64 - 1.
    add_carry(all as u64, (all >> 64) as u64)
}

/// The sum of less than a block.
#[inline(always)]
fn sum_tail(bytes: &[u8]) -> u64 {
    let (words, mut tail) = bytes.as_chunks::<8>();
    let mut sum = 0u64;
    for word in words {
        sum = add_carry(sum, u64::from_ne_bytes(*word));
    }
    // At most 4 + 2 + 1 bytes: too few to overflow a sum of their own, and no call to copy them.
    let mut last = 0u64;
    if let Some((quad, rest)) = tail.split_first_chunk::<4>() {
        last += u64::from(u32::from_ne_bytes(*quad));
        tail = rest;
    }
    if let Some((pair, rest)) = tail.split_first_chunk::<2>() {
        last += u64::from(u16::from_ne_bytes(*pair));
        tail = rest;
    }
    if let [byte] = tail {
        last += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    add_carry(sum, last)
}

/// Ones' complement addition.
#[inline(always)]
const fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow: after a carry the sum is at most 2^64 - 2.
    sum + carry as u64
}

/// A 64-bit ones' complement sum in 16 bits.
#[inline(always)]
const fn fold(words: u64) -> u16 {
    let sum = (words >> 32) + (words & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    // Cannot lose bits: the second fold of a 32-bit number leaves at most 0xffff.
    sum as u16
}
