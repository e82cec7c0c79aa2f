//! Chance as an argument: one seeded generator, handed in.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// The stack's random generator (ChaCha8): unpredictable from a secret seed, repeatable from a known one.
#[derive(Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// From 32 secret bytes of the operating system's.
    pub fn from_secret(seed: [u8; 32]) -> Rng {
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// From a number, for runs that must repeat.
    pub fn from_seed(seed: u64) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed))
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number below `end`, which must not be 0. The bias is below 2^-32.
    pub fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.u64()) * u128::from(end)) >> 64) as u32
    }

    /// True with probability `share` (0 to 1).
    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && (self.u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < share
    }

    /// A generator of its own, so that two users of chance do not disturb each other's sequence.
    pub fn fork(&mut self) -> Rng {
        Rng::from_seed(self.u64())
    }
}
