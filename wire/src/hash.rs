//! The symmetric keyed hash of a flow: both ends' packets, either way, give the same number.

use core::fmt;
use core::net::IpAddr;

/// A keyed hash of a TCP flow that does not change when its two endpoints are swapped.
///
/// One value serves steering (upper bits) and flow tables (lower bits). The key is random per stack, so that a peer
/// cannot aim flows at one worker or one bucket.
#[derive(Clone, Copy)]
pub struct FlowHasher {
    key: [u64; 2],
}

impl FlowHasher {
    /// With a secret key.
    pub const fn new(key: [u64; 2]) -> FlowHasher {
        FlowHasher { key: [key[0], key[1] | 1] }
    }

    /// The hash of the flow between two endpoints, in either order.
    #[inline]
    pub fn hash(&self, a: IpAddr, a_port: u16, b: IpAddr, b_port: u16) -> u64 {
        // A sum is symmetric, and each end was mixed with the key before it went in.
        let ends = self.end(a, a_port).wrapping_add(self.end(b, b_port));
        fold(ends ^ self.key[0], self.key[1])
    }

    #[inline]
    fn end(&self, addr: IpAddr, port: u16) -> u64 {
        match addr {
            IpAddr::V4(addr) => {
                fold(self.key[0] ^ (u64::from(addr.to_bits()) | u64::from(port) << 32 | 4 << 56), self.key[1])
            }
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                let low = fold(self.key[0] ^ bits as u64, self.key[1]);
                fold(low ^ (bits >> 64) as u64 ^ u64::from(port).rotate_left(40), self.key[1])
            }
        }
    }
}

impl fmt::Debug for FlowHasher {
    /// Without its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowHasher(..)")
    }
}

/// A 64x64 -> 128 bit product folded to 64 bits.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn swapping_the_ends_changes_nothing_and_any_other_change_does() {
        let hasher = FlowHasher::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
        let a = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let b = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        let c = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(hasher.hash(a, 1, b, 2), hasher.hash(b, 2, a, 1));
        assert_eq!(hasher.hash(a, 1, c, 2), hasher.hash(c, 2, a, 1));
        assert_ne!(hasher.hash(a, 1, b, 2), hasher.hash(a, 2, b, 1));
        assert_ne!(hasher.hash(a, 1, b, 2), FlowHasher::new([1, 2]).hash(a, 1, b, 2));
    }

    #[test]
    fn no_text_shows_the_key() {
        let text = |key| std::format!("{:?}", FlowHasher::new(key));
        assert_eq!(text([1, 2]), text([3, 4]));
    }

    #[test]
    fn ports_spread_evenly_over_workers() {
        let hasher = FlowHasher::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
        let a = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let b = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        let mut count = [0u32; 4];
        for port in 1024..65535u16 {
            count[(hasher.hash(a, port, b, 80) >> 62) as usize] += 1;
        }
        assert!(count.iter().all(|&n| n.abs_diff(16128) < 1000), "{count:?}");
    }
}
