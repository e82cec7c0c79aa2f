//! How much of something bounded is in use: what every pool tells the CLI.

/// A pool's figures. All are at hand: asking costs no walk over the elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Elements now.
    pub used: usize,
    /// The most there ever were at once, where that is kept.
    pub high_water: Option<usize>,
    /// The most there may be, where there is a limit.
    pub limit: Option<usize>,
    /// Bytes of one element, with what the pool keeps beside it; not with what the element itself points to.
    pub element_bytes: usize,
    /// Bytes that the pool has taken from the system's allocator, in use or kept.
    pub held_bytes: usize,
}
