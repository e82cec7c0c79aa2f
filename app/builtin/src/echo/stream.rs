//! The bytes that a session sends and expects back: cheap to make at any offset, different in every session.
//!
//! Word `i` (8 bytes, little-endian) of a session is `w ^ (w >> 29)` with `w = key + i * STEP`: a counter through a
//! bijection, so no word repeats within a session, and bytes that arrive at a wrong offset or in a wrong session do not
//! compare equal. It compiles to a few vector instructions per 32 bytes; it is no source of randomness.

/// An odd number with no pattern (2^64 over the golden ratio).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The byte stream of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    key: u64,
}

impl Pattern {
    /// The stream of session `number` in a run with this `seed`.
    pub fn new(seed: u64, number: u32) -> Pattern {
        Pattern { key: scatter(seed, number) }
    }

    #[inline]
    fn word(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(STEP)))
    }

    #[inline]
    fn byte(self, offset: u64) -> u8 {
        self.word(offset / 8).to_le_bytes()[(offset % 8) as usize]
    }

    /// Writes the bytes at `offset` into all of `into`.
    pub fn fill(self, offset: u64, into: &mut [u8]) {
        let (head, body) = into.split_at_mut(to_word(offset, into.len()));
        for (byte, at) in head.iter_mut().zip(offset..) {
            *byte = self.byte(at);
        }
        let offset = offset + head.len() as u64;
        let mut state = self.key.wrapping_add((offset / 8).wrapping_mul(STEP));
        let mut words = body.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&mix(state).to_le_bytes());
            state = state.wrapping_add(STEP);
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&mix(state).to_le_bytes()[..tail.len()]);
    }

    /// How many of `bytes`, received at `offset`, are not what was sent.
    pub fn count_mismatches(self, offset: u64, bytes: &[u8]) -> u64 {
        let (head, body) = bytes.split_at(to_word(offset, bytes.len()));
        let mut differ =
            head.iter().zip(offset..).fold(0, |differ, (byte, at)| differ | (byte ^ self.byte(at)));
        let start = offset + head.len() as u64;
        let mut state = self.key.wrapping_add((start / 8).wrapping_mul(STEP));
        let (words, tail) = body.as_chunks::<8>();
        let mut words_differ = 0;
        for word in words {
            words_differ |= u64::from_le_bytes(*word) ^ mix(state);
            state = state.wrapping_add(STEP);
        }
        for (byte, expected) in tail.iter().zip(mix(state).to_le_bytes()) {
            differ |= byte ^ expected;
        }
        if differ == 0 && words_differ == 0 {
            return 0;
        }
        bytes.iter().zip(offset..).filter(|(byte, at)| **byte != self.byte(*at)).count() as u64
    }
}

/// What session `number` draws from `seed`, the same whenever and on whatever worker it does.
pub(crate) fn scatter(seed: u64, number: u32) -> u64 {
    // The finalizer of splitmix64: neighbours get keys that are far apart.
    let mut key = seed.wrapping_add((u64::from(number) + 1).wrapping_mul(STEP));
    key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[inline]
fn mix(state: u64) -> u64 {
    state ^ (state >> 29)
}

/// Bytes from `offset` to the next word, at most `len`.
fn to_word(offset: u64, len: usize) -> usize {
    ((8 - offset % 8) % 8).min(len as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sessions_and_seeds_have_different_streams() {
        let bytes = |seed, number| {
            let mut bytes = [0; 64];
            Pattern::new(seed, number).fill(0, &mut bytes);
            bytes
        };
        assert_ne!(bytes(1, 0), bytes(1, 1));
        assert_ne!(bytes(1, 0), bytes(2, 0));
        assert_eq!(bytes(1, 7), bytes(1, 7));
    }

    #[test]
    fn a_stream_shifted_by_a_few_bytes_is_noticed() {
        let pattern = Pattern::new(3, 4);
        let mut bytes = [0; 1460];
        pattern.fill(1000, &mut bytes);
        for shift in [1, 2, 8, 536, 1460] {
            assert!(pattern.count_mismatches(1000 + shift, &bytes) > 1300, "shift {shift}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_piece_is_the_same_piece_of_the_whole(
            seed: u64, number: u32, base in 0u64..1 << 40, start in 0usize..300, len in 0usize..300,
        ) {
            let pattern = Pattern::new(seed, number);
            let whole: Vec<u8> = (0..600).map(|at| pattern.byte(base + at)).collect();
            let mut piece = vec![0; len];
            pattern.fill(base + start as u64, &mut piece);
            prop_assert_eq!(&piece, &whole[start..start + len]);
            prop_assert_eq!(pattern.count_mismatches(base + start as u64, &piece), 0);
        }

        #[test]
        fn every_wrong_byte_is_counted(
            number: u32, offset in 0u64..1000, len in 1usize..200, wrong in prop::collection::btree_set(0usize..200, 0..20),
        ) {
            let pattern = Pattern::new(9, number);
            let mut bytes = vec![0; len];
            pattern.fill(offset, &mut bytes);
            let wrong: Vec<usize> = wrong.into_iter().filter(|at| *at < len).collect();
            wrong.iter().for_each(|at| bytes[*at] ^= 0x40);
            prop_assert_eq!(pattern.count_mismatches(offset, &bytes), wrong.len() as u64);
        }
    }
}
