//! Which worker owns a flow.
//!
//! A flow's hash is symmetric ([`hoststack_wire::FlowHasher`]), so both directions, and an ICMP error that quotes
//! either, give one worker. Main uses the same function to pick a local port whose flow falls to the worker it wants.

/// The worker, of `workers`, that owns flows with this hash: 0 to `workers - 1`.
///
/// Multiplies and shifts the upper 32 bits, so that flow tables may index with the lower ones independently.
///
/// # Panics
/// In debug builds when `workers` is 0.
#[inline]
pub const fn worker_of(hash: u64, workers: u8) -> u8 {
    debug_assert!(workers > 0, "a stack has at least one worker");
    // Cannot lose bits: a 32-bit fraction of `workers` is less than `workers`.
    (((hash >> 32) * workers as u64) >> 32) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_wire::FlowHasher;
    use std::net::IpAddr;

    #[test]
    fn both_directions_of_a_flow_fall_to_one_worker_and_flows_spread_evenly() {
        let hasher = FlowHasher::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for workers in 1..=7u8 {
            let mut count = vec![0u32; usize::from(workers)];
            for port in 1024..33792u16 {
                let worker = worker_of(hasher.hash(a, port, b, 80), workers);
                assert_eq!(worker, worker_of(hasher.hash(b, 80, a, port), workers));
                count[usize::from(worker)] += 1;
            }
            let fair = 32768 / u32::from(workers);
            assert!(count.iter().all(|n| n.abs_diff(fair) < fair / 8), "{workers} workers: {count:?}");
        }
    }

    #[test]
    fn the_ends_of_the_hash_range_fall_to_the_first_and_the_last_worker() {
        assert_eq!(worker_of(0, 255), 0);
        assert_eq!(worker_of(u64::MAX, 255), 254);
        assert_eq!(worker_of(u64::MAX, 1), 0);
    }
}
