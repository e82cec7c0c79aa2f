//! Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 §5.4): keyed hashes of the flow.
//!
//! Main and all workers hold the same [`Secrets`], so that both numbers go on rising from one incarnation of a flow to
//! the next, whoever opened them: that is what lets TIME-WAIT be reused (RFC 6191).

use core::fmt;
use core::net::IpAddr;

use hoststack_transport::{FlowKey, Instant, Rng};
use hoststack_wire::SeqNum;
use siphasher::sip::SipHasher24;

/// Gives out initial send sequence numbers.
#[derive(Clone, Copy)]
pub struct IsnGenerator {
    key: [u64; 2],
}

impl IsnGenerator {
    /// With a secret key.
    pub const fn new(key: [u64; 2]) -> IsnGenerator {
        IsnGenerator { key }
    }

    /// The ISS of an incarnation of `flow` that starts now: `M + F(flow, key)`, where M counts 4 us
    /// (RFC 6528 §3, RFC 9293 §3.4.1: MUST-8, SHLD-1).
    pub fn isn(&self, now: Instant, flow: &FlowKey) -> SeqNum {
        let clock = (now.as_micros() / 4) as u32; // modulo 2^32 is what a sequence number is
        SeqNum((hash(self.key, flow) as u32).wrapping_add(clock))
    }
}

/// The keys of a stack: [`IsnGenerator`]'s and that of timestamp offsets. Clones give the same numbers.
#[derive(Clone)]
pub struct Secrets {
    isn: IsnGenerator,
    timestamps: [u64; 2],
}

impl Secrets {
    /// Fresh keys from `rng`, which must come from secret bytes outside of tests.
    pub fn new(rng: &mut Rng) -> Secrets {
        Secrets { isn: IsnGenerator::new([rng.u64(), rng.u64()]), timestamps: [rng.u64(), rng.u64()] }
    }

    /// The ISS of an incarnation of `flow` that starts now (RFC 6528 §3).
    pub fn isn(&self, now: Instant, flow: &FlowKey) -> SeqNum {
        self.isn.isn(now, flow)
    }

    /// What is added to the timestamp clock for `flow`: unpredictable for others (RFC 7323 §5.4, §7.1), and the same
    /// for every incarnation of the flow.
    pub fn timestamp_offset(&self, flow: &FlowKey) -> u32 {
        hash(self.timestamps, flow) as u32
    }
}

impl Secrets {
    /// A key for another purpose, named in 7 bytes: no flow is as short, so that no other use of the keys gives it away.
    pub(crate) fn derive(&self, purpose: &[u8; 7]) -> [u64; 2] {
        let hasher = SipHasher24::new_with_keys(self.isn.key[0], self.isn.key[1]);
        [0, 1].map(|half| {
            let mut bytes = [half; 8];
            bytes[..7].copy_from_slice(purpose);
            hasher.hash(&bytes)
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The round trip of what was answered with `echo`, in us, if that is one of the timestamps sent since `first_sent`.
pub(crate) fn echoed_round_trip_us(now: Instant, first_sent: Instant, offset: u32, echo: u32) -> Option<u32> {
    let clock = timestamp_clock(now, offset);
    let elapsed = clock.wrapping_sub(echo);
    let longest = clock.wrapping_sub(timestamp_clock(first_sent, offset));
    (elapsed <= longest).then(|| elapsed.max(1).saturating_mul(1000))
}

/// TSval for a segment sent now: milliseconds since the stack's epoch plus the flow's offset, modulo 2^32
/// (RFC 7323 §5.4: 1 ms to 1 s per tick).
#[inline]
pub const fn timestamp_clock(now: Instant, offset: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(offset)
}

/// RFC 9293 §3.4.1 (MUST-9): a pseudo-random function with a secret key.
///
/// A flow as bytes of one fixed form per address family, hashed; SipHash tells the two forms apart by their lengths.
pub(crate) fn hash(key: [u64; 2], flow: &FlowKey) -> u64 {
    let rest = u64::from(flow.local.port)
        | u64::from(flow.remote.port) << 16
        | u64::from(flow.domain.0) << 32
        | (flow.protocol as u64) << 48;
    let hasher = SipHasher24::new_with_keys(key[0], key[1]);
    match (flow.local.addr, flow.remote.addr) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(
                &(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits())).to_le_bytes(),
            );
            bytes[8..].copy_from_slice(&rest.to_le_bytes());
            hasher.hash(&bytes)
        }
        (local, remote) => {
            let mut bytes = [0; 40];
            bytes[..16].copy_from_slice(&wide(local));
            bytes[16..32].copy_from_slice(&wide(remote));
            bytes[32..].copy_from_slice(&rest.to_le_bytes());
            hasher.hash(&bytes)
        }
    }
}

/// An address of either family in 16 bytes (RFC 4291 §2.5.5.2 for IPv4).
fn wide(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use hoststack_transport::{DomainId, Endpoint, Protocol};

    fn flow() -> FlowKey {
        FlowKey {
            local: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000),
            remote: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 443),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        }
    }

    /// Flows that differ from [`flow`] in one thing each.
    fn others() -> [FlowKey; 7] {
        let flow = flow();
        let mut others = [flow; 7];
        others[0].local.port += 1;
        others[1].remote.port += 1;
        others[2].domain = DomainId(1);
        others[3].local.addr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
        others[4].remote.addr = IpAddr::V6(Ipv6Addr::LOCALHOST);
        others[5].local = flow.remote;
        others[5].remote = flow.local;
        // The same octets in the other family.
        others[6].local.addr = IpAddr::V6(Ipv6Addr::new(0x0a00, 1, 0, 0, 0, 0, 0, 0));
        others
    }

    // covers: MUST-8
    #[test]
    fn the_isn_of_a_flow_rises_by_one_every_4_us_and_wraps() {
        let secrets = Secrets::new(&mut Rng::from_seed(1));
        let at = |us| secrets.isn(Instant::from_micros(us), &flow());
        assert_eq!(at(4_000_003).since(at(0)), 1_000_000);
        assert_eq!(at(4 << 32), at(0));
    }

    // covers: MUST-9, SHLD-1
    #[test]
    fn every_part_of_a_flow_and_the_key_count() {
        let secrets = Secrets::new(&mut Rng::from_seed(1));
        let now = Instant::from_millis(5);
        let mut isns = BTreeSet::from([secrets.isn(now, &flow()).0]);
        let mut offsets = BTreeSet::from([secrets.timestamp_offset(&flow())]);
        for other in others() {
            isns.insert(secrets.isn(now, &other).0);
            offsets.insert(secrets.timestamp_offset(&other));
        }
        let stranger = Secrets::new(&mut Rng::from_seed(2));
        isns.insert(stranger.isn(now, &flow()).0);
        offsets.insert(stranger.timestamp_offset(&flow()));
        assert_eq!((isns.len(), offsets.len()), (9, 9));
        assert!(isns.is_disjoint(&offsets), "the two uses have keys of their own");
    }

    #[test]
    fn clones_on_other_threads_give_the_same_numbers_and_print_nothing() {
        fn send_and_clone<T: Send + Clone + 'static>(_: &T) {}
        let secrets = Secrets::new(&mut Rng::from_seed(3));
        send_and_clone(&secrets);
        let clone = secrets.clone();
        let now = Instant::from_millis(77);
        assert_eq!(secrets.isn(now, &flow()), clone.isn(now, &flow()));
        assert_eq!(secrets.timestamp_offset(&flow()), clone.timestamp_offset(&flow()));
        assert_eq!(alloc::format!("{secrets:?}").to_string(), "Secrets(..)");
    }

    #[test]
    fn timestamps_tick_every_millisecond_from_the_offset() {
        let at = |us| timestamp_clock(Instant::from_micros(us), u32::MAX);
        assert_eq!([at(0), at(999), at(1000), at(2500)], [u32::MAX, u32::MAX, 0, 1]);
    }

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The reference vector of the SipHash paper, appendix A: key 00..0f, message 00..0e.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let message: alloc::vec::Vec<u8> = (0..15).collect();
        assert_eq!(SipHasher24::new_with_keys(key[0], key[1]).hash(&message), 0xa129_ca61_49be_45e5);
    }
}
