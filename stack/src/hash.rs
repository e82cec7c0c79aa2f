//! Hashing of ids that we mint ourselves: nobody can aim them, so a multiplication is enough, and it replays.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps keyed by ids of ours.
pub(crate) type IdHasher = BuildHasherDefault<Multiply>;

/// Folds words by a multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}
