//! Chance: one generator for everything that a world draws, so that a seed is a run.

/// A small, fast generator (SplitMix64). Not secret, not the stack's: a world's only source of chance.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

/// One step of SplitMix64 as a mixing function.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// The dice of a seed.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(mix(seed.wrapping_add(0x51)))
    }

    /// 64 random bits.
    pub(crate) fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(end)) >> 64) as u64 // cannot cut because the product is below end * 2^64
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `count` times; never for 0.
    pub(crate) fn one_of(&mut self, count: u64) -> bool {
        count > 0 && self.below(count) == 0
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Dice of their own, so that two users do not disturb each other's sequence.
    pub(crate) fn fork(&mut self) -> Dice {
        Dice(self.u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_and_below_stays_below() {
        let (mut a, mut b) = (Dice::new(7), Dice::new(7));
        for end in 1..200 {
            let thrown = a.below(end);
            assert_eq!(thrown, b.below(end));
            assert!(thrown < end);
        }
        assert!(!a.one_of(0) && a.one_of(1));
    }
}
