//! Recording a run: the order of steps and their `now`s, and a digest of every packet in and out.
//!
//! A run whose inputs come from within the stack (the in-memory wire, builtin apps, a fixed seed) is determined by
//! them: stepping a like stack at the same times gives the same digest (invariant 7 of the design).

use hoststack_transport::Instant;

/// A running digest.
#[derive(Clone, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    fn fold(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Folds a vector of packets and when they passed.
    pub(crate) fn packets<'a>(&mut self, now_us: u64, packets: impl Iterator<Item = &'a [u8]>) {
        self.fold(now_us);
        for packet in packets {
            self.fold(packet.len() as u64);
            for word in packet.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..word.len()].copy_from_slice(word);
                self.fold(u64::from_le_bytes(bytes));
            }
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// The times at which a single-threaded stack stepped, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// `now` of each step.
    pub steps: Vec<Instant>,
}
