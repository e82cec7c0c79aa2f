//! What pools hold: the answer to [`Query::Memory`](super::Query::Memory).

use hoststack_transport::Usage;
use serde::Serialize;

/// Memory by pool.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryInfo {
    /// Bytes that all of them hold.
    pub held_bytes: usize,
    /// The pools: main's, then each worker's.
    pub pools: Vec<PoolInfo>,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolInfo {
    /// `main` or `worker 0`.
    pub owner: String,
    /// What it holds.
    pub pool: &'static str,
    /// Elements now.
    pub used: usize,
    /// The most there ever were, where that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_water: Option<usize>,
    /// The most there may be, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Bytes of one element in the pool.
    pub element_bytes: usize,
    /// Bytes taken from the system, in use or kept.
    pub held_bytes: usize,
}

impl PoolInfo {
    pub(crate) fn new(owner: &str, pool: &'static str, usage: Usage) -> PoolInfo {
        let Usage { used, high_water, limit, element_bytes, held_bytes } = usage;
        PoolInfo { owner: owner.into(), pool, used, high_water, limit, element_bytes, held_bytes }
    }
}

impl MemoryInfo {
    pub(crate) fn new(pools: Vec<PoolInfo>) -> MemoryInfo {
        MemoryInfo { held_bytes: pools.iter().map(|pool| pool.held_bytes).sum(), pools }
    }
}
