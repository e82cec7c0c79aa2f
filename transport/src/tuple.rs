//! Allocation of 4-tuples: which local port an active open uses. Owned by main; workers return flows in batches.

use crate::flow::FlowKey;
use crate::table::WordTable;
use crate::usage::Usage;

/// First ephemeral port (RFC 6056 §3.2 wants the largest possible range; below 1024 is left to listeners).
pub const PORT_FIRST: u16 = 1024;
/// Number of ephemeral ports.
pub const PORTS: u32 = 65536 - PORT_FIRST as u32;

/// Why no local port was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TupleError {
    /// Every admissible port is in use towards that remote endpoint.
    Exhausted,
    /// The port asked for is in use towards that remote endpoint.
    InUse,
}

/// The set of 4-tuples that active opens use, and the choice of the next port.
///
/// A tuple is kept as a 64-bit keyed fingerprint (8 bytes and the table's slack). Two tuples with one fingerprint would only make
/// the later one look taken: another port is tried then, so a collision costs nothing and frees nothing wrongly.
pub struct TupleAllocator {
    used: WordTable,
    key: [u64; 2],
    /// RFC 6056 §3.3.4 (algorithm 4): counters that separate destinations share.
    counters: [u32; 256],
    refusing: bool,
}

impl TupleAllocator {
    /// An allocator whose port sequence is secret with `key`.
    pub fn new(key: [u64; 2]) -> TupleAllocator {
        TupleAllocator { used: WordTable::with_capacity(1024), key, counters: [0; 256], refusing: false }
    }

    /// 4-tuples in use.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// What it holds, and in how much memory.
    pub fn usage(&self) -> Usage {
        self.used.usage()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// From now on every allocation finds all ports taken, or no longer so: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Takes a local port for `flow` and returns it. If `flow.local.port` is 0 any port that `admits` is taken, in the order of
    /// RFC 6056 algorithm 4; otherwise just that one. `admits` says whether steering gives the flow the wanted worker.
    ///
    /// # Errors
    /// [`TupleError`]; nothing is taken then.
    pub fn allocate(
        &mut self,
        mut flow: FlowKey,
        mut admits: impl FnMut(&FlowKey) -> bool,
    ) -> Result<u16, TupleError> {
        if self.refusing {
            return Err(TupleError::Exhausted);
        }
        if flow.local.port != 0 {
            return if self.take(&flow) { Ok(flow.local.port) } else { Err(TupleError::InUse) };
        }
        let base = self.fingerprint(&flow);
        let offset = base as u32 % PORTS;
        let counter = (base >> 56) as usize;
        for n in 0..PORTS {
            let step = (self.counters[counter] + n) % PORTS;
            flow.local.port = (u32::from(PORT_FIRST) + (offset + step) % PORTS) as u16;
            if admits(&flow) && self.take(&flow) {
                self.counters[counter] = (step + 1) % PORTS;
                return Ok(flow.local.port);
            }
        }
        Err(TupleError::Exhausted)
    }

    /// Gives a flow back. Returns whether it was in use.
    pub fn release(&mut self, flow: &FlowKey) -> bool {
        let print = self.fingerprint(flow);
        self.used.remove(print)
    }

    fn take(&mut self, flow: &FlowKey) -> bool {
        let print = self.fingerprint(flow);
        if self.used.find((print >> 32) as u32, |held| held == print).is_some() {
            return false;
        }
        self.used.insert(print);
        true
    }

    /// A keyed fold of the whole flow: fingerprint and secret offset both.
    fn fingerprint(&self, flow: &FlowKey) -> u64 {
        let mut state = self.key[0];
        let mut mix = |word: u64| {
            let product = u128::from(state ^ word) * u128::from(self.key[1] | 1);
            state = product as u64 ^ (product >> 64) as u64;
        };
        for addr in [flow.local.addr, flow.remote.addr] {
            match addr {
                core::net::IpAddr::V4(addr) => mix(u64::from(addr.to_bits()) | 1 << 63),
                core::net::IpAddr::V6(addr) => {
                    let bits = addr.to_bits();
                    mix(bits as u64);
                    mix((bits >> 64) as u64);
                }
            }
        }
        mix(u64::from(flow.local.port)
            | u64::from(flow.remote.port) << 16
            | u64::from(flow.domain.0) << 32
            | (flow.protocol as u64) << 48);
        mix(0x9e37_79b9_7f4a_7c15);
        // 0 is no word of the table.
        state.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, Protocol};
    use crate::handle::DomainId;
    use core::net::{IpAddr, Ipv4Addr};

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            local: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port),
            remote: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 80),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn every_port_is_given_once_then_the_range_is_exhausted_and_a_released_one_comes_back() {
        let mut tuples = TupleAllocator::new([1, 2]);
        let mut seen = alloc::vec![false; 65536];
        for _ in 0..PORTS {
            let got = tuples.allocate(flow(0), |_| true).unwrap();
            assert!(got >= PORT_FIRST);
            assert!(!core::mem::replace(&mut seen[got as usize], true));
        }
        assert_eq!(tuples.allocate(flow(0), |_| true), Err(TupleError::Exhausted));
        assert!(tuples.release(&flow(4242)));
        assert!(!tuples.release(&flow(4242)));
        assert_eq!(tuples.allocate(flow(0), |_| true), Ok(4242));
    }

    #[test]
    fn a_port_asked_for_is_taken_or_in_use() {
        let mut tuples = TupleAllocator::new([1, 2]);
        assert_eq!(tuples.allocate(flow(80), |_| false), Ok(80));
        assert_eq!(tuples.allocate(flow(80), |_| true), Err(TupleError::InUse));
    }

    #[test]
    fn ports_follow_the_wish_for_a_worker() {
        let mut tuples = TupleAllocator::new([3, 4]);
        for _ in 0..1000 {
            assert_eq!(tuples.allocate(flow(0), |f| f.local.port % 4 == 3).unwrap() % 4, 3);
        }
    }
}
