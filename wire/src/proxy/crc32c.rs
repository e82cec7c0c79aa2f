//! CRC32c (Castagnoli), as SCTP has it (RFC 4960 appendix B; RFC 3720 §12.1): reflected, all ones before and after.

/// The generator polynomial 0x1EDC6F41, its bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each value of a byte does to the remainder.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        // Cannot cut: below 256.
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let is_odd = remainder & 1 == 1;
            remainder >>= 1;
            if is_odd {
                remainder ^= POLYNOMIAL;
            }
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
}

/// A running CRC32c: bytes may come in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32c {
    remainder: u32,
}

impl Crc32c {
    /// Of no bytes.
    pub const EMPTY: Crc32c = Crc32c { remainder: u32::MAX };

    /// Adds `bytes`, which follow those that went in before.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.remainder.to_le_bytes();
            self.remainder = TABLE[usize::from(low ^ byte)] ^ (self.remainder >> 8);
        }
    }

    /// The checksum of what went in.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.remainder
    }
}

/// Of a header: its checksum field, the four bytes at `field_at`, counts as zeros (PROXY §2.2.3).
///
/// # Panics
/// When the field is not inside `header`.
#[must_use]
pub fn of_header(header: &[u8], field_at: usize) -> u32 {
    let mut crc = Crc32c::EMPTY;
    crc.add_bytes(&header[..field_at]);
    crc.add_bytes(&[0; 4]);
    crc.add_bytes(&header[field_at + 4..]);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::EMPTY;
        crc.add_bytes(bytes);
        crc.finish()
    }

    #[test]
    fn check_value_of_the_polynomial() {
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(b""), 0);
    }

    /// RFC 3720 appendix B.4, whose bytes are in the order of the wire (little-endian).
    #[test]
    fn vectors_of_rfc_3720() {
        let ascending: [u8; 32] = core::array::from_fn(|at| at as u8);
        let descending: [u8; 32] = core::array::from_fn(|at| 31 - at as u8);
        assert_eq!(of(&[0; 32]), u32::from_le_bytes([0xaa, 0x36, 0x91, 0x8a]));
        assert_eq!(of(&[0xff; 32]), u32::from_le_bytes([0x43, 0xab, 0xa8, 0x62]));
        assert_eq!(of(&ascending), u32::from_le_bytes([0x4e, 0x79, 0xdd, 0x46]));
        assert_eq!(of(&descending), u32::from_le_bytes([0x5c, 0xdb, 0x3f, 0x11]));
    }

    #[test]
    fn bytes_in_pieces_are_bytes_at_once() {
        for cut in 0..=9 {
            let mut crc = Crc32c::EMPTY;
            let (front, back) = b"123456789".split_at(cut);
            crc.add_bytes(front);
            crc.add_bytes(back);
            assert_eq!(crc.finish(), 0xe306_9283);
        }
    }

    #[test]
    fn what_the_field_of_a_header_holds_does_not_count() {
        let zeroed = of(b"12340000xy".map(|byte| if byte == b'0' { 0 } else { byte }).as_slice());
        assert_eq!(of_header(b"1234abcdxy", 4), zeroed);
        assert_ne!(of_header(b"1234abcdxz", 4), zeroed);
    }
}
