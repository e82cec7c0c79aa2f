//! SYN cookies (RFC 4987 §3.6 and appendix A): a SYN-ACK whose sequence number is all that is kept of a SYN.
//!
//! ```text
//!  31      27 26  24 23                      0
//! +----------+------+-------------------------+
//! | counter  | MSS  |          hash           |    the ISS; the counter is modulo 32 and counts 64 s
//! +----------+------+-------------------------+
//! ```
//! What the peer offered besides goes into the low bits of our timestamp value, which its ACK echoes; without timestamps
//! it is not offered in return. The hash covers flow, counter, the peer's ISN, the MSS and those bits.

use alloc::vec::Vec;

use hoststack_transport::{FlowKey, Instant};
use hoststack_wire::SeqNum;
use siphasher::sip::SipHasher24;

use crate::isn::{self, Secrets};

/// The MSS values that a cookie can say: the greatest that is not above the peer's. Short ones of tunnels and slow links,
/// the RFCs' defaults, Ethernet with and without PPPoE or an IPv6 header, jumbo frames.
const MSS: [u16; 8] = [64, 216, 536, 1220, 1360, 1440, 1460, 8960];

/// How long a count lasts.
const COUNT_US: u64 = 64_000_000;
/// Counts in which a cookie is good: its own and the next.
const COUNTS: u64 = 2;
/// A cookie is good for so long at most, in microseconds.
pub(crate) const VALID_US: u64 = COUNTS * COUNT_US;

/// Low bits of TSval that say what the peer offered.
const OFFER_MASK: u32 = 0x3f;
/// The window shift that stands for no scaling.
const NO_SCALE: u8 = 15;

/// What a SYN offered, as far as a timestamp can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The peer's window shift.
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
}

impl Offer {
    /// 4 bits of shift, one of SACK, one of ECN.
    fn bits(self) -> u8 {
        self.scale.map_or(NO_SCALE, |shift| shift.min(14))
            | u8::from(self.sack) << 4
            | u8::from(self.ecn) << 5
    }

    fn from_bits(bits: u8) -> Offer {
        let scale = bits & 0xf;
        Offer {
            scale: (scale != NO_SCALE).then_some(scale),
            sack: bits & 1 << 4 != 0,
            ecn: bits & 1 << 5 != 0,
        }
    }

    /// The TSval that says it: `clock` or a little less, so that the values after it do not run backward.
    pub(crate) fn timestamp(self, clock: u32) -> u32 {
        let said = clock & !OFFER_MASK | u32::from(self.bits());
        if (said.wrapping_sub(clock) as i32) > 0 { said.wrapping_sub(OFFER_MASK + 1) } else { said }
    }
}

/// What an ACK proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) mss: u16,
    /// `None` without timestamps.
    pub(crate) offer: Option<Offer>,
}

/// Cookies that are remembered as spent: 32 KiB, from the first that is.
const SPENT: usize = 1 << 12;

/// Makes cookies and recognizes them.
pub(crate) struct CookieJar {
    key: [u64; 2],
    /// Fingerprints of those that became connections, by their low bits; a later one takes the place of an earlier.
    spent: Vec<u64>,
}

impl CookieJar {
    pub(crate) fn new(secrets: &Secrets) -> CookieJar {
        CookieJar { key: secrets.derive(b"syncook"), spent: Vec::new() }
    }

    /// A cookie becomes a connection. Says whether it is the first time: an old ACK that comes once more, when that
    /// connection is over, proves its cookie as well as it did then, and would open another with the same sequence
    /// numbers. Best effort: of a great many at a time, some are forgotten.
    #[must_use]
    pub(crate) fn spend(&mut self, flow: &FlowKey, iss: SeqNum, irs: SeqNum) -> bool {
        if self.spent.is_empty() {
            self.spent.resize(SPENT, 0);
        }
        let fingerprint = isn::hash(self.key, flow) ^ (u64::from(iss.0) << 32 | u64::from(irs.0));
        // Cannot cut: it is below SPENT.
        let place = &mut self.spent[(fingerprint % SPENT as u64) as usize];
        let is_first = *place != fingerprint;
        *place = fingerprint;
        is_first
    }

    /// The ISS that answers a SYN with sequence number `irs` and this MSS; `None` for an MSS below all that a cookie can
    /// say. `offer` is what the SYN-ACK's timestamp says, if it has one.
    pub(crate) fn cookie(
        &self,
        now: Instant,
        flow: &FlowKey,
        irs: SeqNum,
        mss: u16,
        offer: Option<Offer>,
    ) -> Option<SeqNum> {
        let index = MSS.iter().rposition(|&value| value <= mss)? as u8; // cannot cut: 7 at most
        Some(self.make(now.as_micros() / COUNT_US, flow, irs, index, offer.map(Offer::bits)))
    }

    fn make(&self, count: u64, flow: &FlowKey, irs: SeqNum, index: u8, offer: Option<u8>) -> SeqNum {
        let mut bytes = [0; 22];
        bytes[..8].copy_from_slice(&isn::hash(self.key, flow).to_le_bytes());
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        bytes[16..20].copy_from_slice(&irs.0.to_le_bytes());
        bytes[20] = index;
        bytes[21] = offer.unwrap_or(u8::MAX);
        let hash = SipHasher24::new_with_keys(self.key[0], self.key[1]).hash(&bytes) as u32 >> 8;
        SeqNum((count as u32) << 27 | u32::from(index) << 24 | hash) // the counter is modulo 32
    }

    /// What an ACK of `iss` proves, if that was a cookie for this flow and the peer's ISN `irs`. `echo` is TSecr.
    pub(crate) fn check(
        &self,
        now: Instant,
        flow: &FlowKey,
        iss: SeqNum,
        irs: SeqNum,
        echo: Option<u32>,
    ) -> Option<Proof> {
        let offer = echo.map(|echo| (echo & OFFER_MASK) as u8); // cannot cut: 6 bits
        let index = (iss.0 >> 24 & 7) as u8; // cannot cut: 3 bits
        let latest = now.as_micros() / COUNT_US;
        let is_it = |count: u64| self.make(count, flow, irs, index, offer) == iss;
        (latest.saturating_sub(COUNTS - 1)..=latest)
            .any(is_it)
            .then(|| Proof { mss: MSS[usize::from(index)], offer: offer.map(Offer::from_bits) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_transport::{DomainId, Endpoint, Protocol, Rng};

    fn jar() -> CookieJar {
        CookieJar::new(&Secrets::new(&mut Rng::from_seed(1)))
    }

    fn flow() -> FlowKey {
        let at = |addr: &str, port| Endpoint::new(addr.parse().expect("an address"), port);
        FlowKey {
            local: at("10.0.0.1", 80),
            remote: at("10.0.0.2", 4000),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        }
    }

    const IRS: SeqNum = SeqNum(0xffff_fffe);

    #[test]
    fn a_cookie_says_the_greatest_mss_that_is_not_above_the_peers() {
        let now = Instant::from_millis(5);
        let said = |mss| {
            let iss = jar().cookie(now, &flow(), IRS, mss, None)?;
            jar().check(now, &flow(), iss, IRS, None).map(|proof| proof.mss)
        };
        assert_eq!(
            [63, 64, 535, 536, 1459, 1460, 9000].map(said),
            [None, Some(64), Some(216), Some(536), Some(1440), Some(1460), Some(8960)]
        );
    }

    #[test]
    fn a_cookie_is_good_in_its_own_count_and_the_next() {
        let at = |s: u64| Instant::from_millis(s * 1000);
        for start in [0, 63, 64 * 31] {
            let iss = jar().cookie(at(start), &flow(), IRS, 1460, None).expect("a cookie");
            let good = |s| jar().check(at(s), &flow(), iss, IRS, None).is_some();
            let end = (start / 64 + 2) * 64;
            assert!(good(start) && good(end - 1) && !good(end), "{start}");
            assert!(!good(start + 32 * 64), "the counter is the same modulo 32");
        }
    }

    #[test]
    fn every_part_of_a_cookie_counts() {
        let now = Instant::from_millis(70_000);
        let offer = Offer { scale: Some(7), sack: true, ecn: false };
        let iss = jar().cookie(now, &flow(), IRS, 1460, Some(offer)).expect("a cookie");
        let echo = offer.timestamp(12_345);
        let check = |flow: &FlowKey, iss, irs, echo| jar().check(now, flow, iss, irs, echo);
        assert_eq!(check(&flow(), iss, IRS, Some(echo)), Some(Proof { mss: 1460, offer: Some(offer) }));
        let mut other = flow();
        other.remote.port += 1;
        assert_eq!(check(&other, iss, IRS, Some(echo)), None);
        assert_eq!(check(&flow(), iss, IRS + 1, Some(echo)), None);
        assert_eq!(check(&flow(), iss, IRS, None), None);
        assert_eq!(check(&flow(), iss, IRS, Some(echo ^ 1)), None, "the echo was changed on the way");
        assert!((0..32).all(|bit| check(&flow(), SeqNum(iss.0 ^ 1 << bit), IRS, Some(echo)).is_none()));
        let stranger = CookieJar::new(&Secrets::new(&mut Rng::from_seed(2)));
        assert_eq!(stranger.check(now, &flow(), iss, IRS, Some(echo)), None);
    }

    #[test]
    fn a_timestamp_says_any_offer_and_never_runs_ahead_of_the_clock() {
        for clock in [0, 1, 63, 64, 100_000, u32::MAX] {
            for scale in [None, Some(0), Some(7), Some(14)] {
                for (sack, ecn) in [(false, false), (true, false), (false, true), (true, true)] {
                    let offer = Offer { scale, sack, ecn };
                    let said = offer.timestamp(clock);
                    assert_eq!(Offer::from_bits((said & OFFER_MASK) as u8), offer);
                    assert!(clock.wrapping_sub(said) <= OFFER_MASK, "{clock} {said}");
                }
            }
        }
    }
}
