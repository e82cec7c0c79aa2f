//! Reading and writing big-endian fields, without a panic path for the reader.

use crate::error::ParseError;

/// The first `N` bytes and the rest.
#[inline]
pub(crate) fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), ParseError> {
    bytes.split_first_chunk::<N>().ok_or(ParseError::Truncated)
}

/// The `N` bytes at a constant place of a header.
///
/// # Panics
/// When `AT + N` is past the end of the header: refused when compiled.
#[inline(always)]
pub(crate) fn field<const AT: usize, const N: usize, const LEN: usize>(header: &[u8; LEN]) -> [u8; N] {
    const { assert!(AT + N <= LEN) };
    let mut out = [0; N];
    out.copy_from_slice(&header[AT..AT + N]);
    out
}

/// A big-endian `u16` at a constant place of a header.
#[inline(always)]
pub(crate) fn u16_at<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u16 {
    u16::from_be_bytes(field::<AT, 2, LEN>(header))
}

/// A big-endian `u32` at a constant place of a header.
#[inline(always)]
pub(crate) fn u32_at<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u32 {
    u32::from_be_bytes(field::<AT, 4, LEN>(header))
}

/// Writes `value` at `at` and returns where the next field goes.
#[inline(always)]
pub(crate) fn put(into: &mut [u8], at: usize, value: &[u8]) -> usize {
    let end = at + value.len();
    into[at..end].copy_from_slice(value);
    end
}
