//! Path MTUs as ICMP told them: a bounded table per worker.
//!
//! The IP path does not believe an ICMP error by itself: TCP checks that the quoted sequence number is in flight
//! (RFC 5927 §7.2), and then the stack calls [`crate::IpPath::learn_path_mtu`].

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How long a path MTU is believed: 10 minutes (RFC 1191 §6.3, RFC 8201 §5.3), so that a path that got wider is
/// found again.
pub const PATH_MTU_LIFETIME_US: u64 = 600_000_000;

/// The smallest IPv4 path MTU that is believed. Smaller ones are rare links or attacks (RFC 5927 §7.1) and are taken
/// as this: what Linux (`min_pmtu`) does.
pub const PATH_MTU_MIN_V4: usize = 552;

/// The smallest IPv6 path MTU (RFC 8201 §4: smaller values are not to be followed).
pub const PATH_MTU_MIN_V6: usize = 1280;

/// The MTUs of common links (RFC 1191 §7), for routers that do not say theirs.
const PLATEAUS: [usize; 9] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 576, PATH_MTU_MIN_V4];

/// Path MTUs by domain and destination.
#[derive(Debug)]
pub(crate) struct PathMtuTable {
    entries: BTreeMap<(u16, IpAddr), PathMtu>,
    entries_max: usize,
}

/// A path MTU and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathMtu {
    pub(crate) mtu: usize,
    pub(crate) expires_us: u64,
}

impl PathMtuTable {
    pub(crate) fn new(entries_max: usize) -> PathMtuTable {
        PathMtuTable { entries: BTreeMap::new(), entries_max }
    }

    /// What is known of the path to `dst`.
    pub(crate) fn lookup(&self, now_us: u64, domain: u16, dst: IpAddr) -> Option<PathMtu> {
        self.entries.get(&(domain, dst)).copied().filter(|path| path.expires_us > now_us)
    }

    /// A packet to `dst` did not fit. `told` is the MTU that the router said, if it did, `sent` the size of the packet
    /// that did not fit or, if unknown, the MTU it was made for. True when the path MTU became smaller.
    pub(crate) fn learn(
        &mut self,
        now_us: u64,
        domain: u16,
        dst: IpAddr,
        told: Option<usize>,
        sent: usize,
    ) -> bool {
        let current = self.lookup(now_us, domain, dst).map_or(sent, |path| path.mtu.min(sent));
        let min = if dst.is_ipv4() { PATH_MTU_MIN_V4 } else { PATH_MTU_MIN_V6 };
        // RFC 1191 §5: without a number, the greatest plateau below what was sent.
        let mtu = told
            .unwrap_or_else(|| PLATEAUS.into_iter().find(|plateau| *plateau < current).unwrap_or(min))
            .max(min);
        // RFC 1191 §3: a host must never raise its estimate in response to this message.
        if mtu >= current || self.entries_max == 0 {
            return false;
        }
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&(domain, dst)) {
            // The one that ends soonest; the table is small and this is rare.
            let soonest = self.entries.iter().min_by_key(|(_, path)| path.expires_us).map(|(key, _)| *key);
            soonest.map(|key| self.entries.remove(&key));
        }
        let expires_us = now_us.saturating_add(PATH_MTU_LIFETIME_US);
        self.entries.insert((domain, dst), PathMtu { mtu, expires_us });
        true
    }

    /// All that are believed now: domain, destination, MTU.
    pub(crate) fn iter(&self, now_us: u64) -> impl Iterator<Item = (u16, IpAddr, usize)> + '_ {
        let live = self.entries.iter().filter(move |(_, path)| path.expires_us > now_us);
        live.map(|((domain, dst), path)| (*domain, *dst, path.mtu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_mtu_only_shrinks_and_ends_after_ten_minutes() {
        let mut table = PathMtuTable::new(10);
        let dst = ip("192.0.2.1");
        assert!(table.learn(5, 0, dst, Some(1400), 1500));
        assert!(!table.learn(6, 0, dst, Some(1450), 1500));
        assert!(table.learn(7, 0, dst, Some(1300), 1500));
        assert_eq!(table.lookup(8, 0, dst).map(|path| path.mtu), Some(1300));
        assert_eq!(table.lookup(8, 1, dst), None);
        assert_eq!(table.lookup(7 + PATH_MTU_LIFETIME_US, 0, dst), None);
        assert!(table.learn(8 + PATH_MTU_LIFETIME_US, 0, dst, Some(1450), 1500));
    }

    #[test]
    fn tiny_and_missing_numbers_are_replaced() {
        let mut table = PathMtuTable::new(10);
        assert!(table.learn(0, 0, ip("192.0.2.1"), Some(68), 1500));
        assert_eq!(table.lookup(1, 0, ip("192.0.2.1")).map(|path| path.mtu), Some(PATH_MTU_MIN_V4));
        assert!(table.learn(0, 0, ip("2001:db8::1"), Some(100), 1500));
        assert_eq!(table.lookup(1, 0, ip("2001:db8::1")).map(|path| path.mtu), Some(PATH_MTU_MIN_V6));
        for expected in [1492, 1006, 576, 552] {
            assert!(table.learn(0, 0, ip("192.0.2.2"), None, 1500));
            assert_eq!(table.lookup(1, 0, ip("192.0.2.2")).map(|path| path.mtu), Some(expected));
        }
        assert!(!table.learn(0, 0, ip("192.0.2.2"), None, 1500));
    }

    #[test]
    fn a_full_table_gives_up_what_ends_soonest() {
        let mut table = PathMtuTable::new(2);
        for (now, dst) in [(2, "192.0.2.1"), (1, "192.0.2.2"), (3, "192.0.2.3")] {
            assert!(table.learn(now, 0, ip(dst), Some(1000), 1500));
        }
        let left: Vec<_> = table.iter(4).map(|(_, dst, _)| dst).collect();
        assert_eq!(left, [ip("192.0.2.1"), ip("192.0.2.3")]);
        assert!(!PathMtuTable::new(0).learn(0, 0, ip("192.0.2.1"), Some(1000), 1500));
    }
}
