//! Byte fifos: where a session's bytes are kept, over one pool of chunks per worker.
//!
//! Read in this order: [`ChunkPool`] (fixed-size chunks, never moved, limited), `ring` (bytes in order over chunks,
//! any offset found in O(1)), then the two ends of a session: [`RxFifo`] (in-order bytes and the out-of-order ones
//! behind them) and [`TxFifo`] (written, sent, acknowledged).
//!
//! One thread owns a pool and all fifos over it; every call that touches bytes is lent the pool. A fifo must always
//! be lent the same one. An empty fifo holds no chunk and no heap memory, and nothing here allocates in steady state.
//!
//! Offsets count from a fifo's own edges: rx offset 0 is the next byte expected, tx offset 0 the oldest byte not
//! acknowledged. Sequence numbers are unknown here.

mod chunk;
mod copy;
mod reassembly;
mod relay;
mod ring;
mod rx;
mod tx;

#[cfg(test)]
mod tests;

pub use chunk::{ChunkId, ChunkPool};
pub use copy::copy_bytes;
pub use reassembly::OOO_RANGES_MAX;
pub use relay::relay;
pub use ring::Slices;
pub use rx::RxFifo;
pub use tx::TxFifo;

/// The most bytes a fifo may be asked to hold: the largest TCP window (RFC 7323 §2.3).
pub const CAPACITY_MAX: usize = index(BYTES_MAX);
const BYTES_MAX: u32 = 1 << 30;

/// A `u32` as an index.
const fn index(n: u32) -> usize {
    const { assert!(usize::BITS >= 32, "the fifos index memory with 32-bit numbers") };
    n as usize // cannot fail because of the assertion above
}

/// A length as a `u32`, saturating.
#[inline]
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
