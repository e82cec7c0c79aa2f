//! The one place where fifo bytes are copied.

/// The longest single `memcpy`. Above it the C library on common x86-64 machines turns to `rep movsb`, which falls
/// from 60 to 3 GB/s when the destination's offset within a page lies just above the source's. In pieces of this
/// size it never does, and the pieces cost nothing that can be measured.
const PIECE: usize = 2048;

/// Copies all of `from` into `into`, without the C library's slow case for long copies.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn copy_bytes(into: &mut [u8], from: &[u8]) {
    assert!(into.len() == from.len(), "copy between slices of different lengths");
    if from.len() <= PIECE {
        into.copy_from_slice(from);
        return;
    }
    copy_long(into, from);
}

#[inline(never)]
fn copy_long(into: &mut [u8], from: &[u8]) {
    for (into, from) in into.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        into.copy_from_slice(from);
    }
}
