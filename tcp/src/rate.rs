//! The delivery rate: how many bytes a second reached the peer, measured over the flight of each segment.
//!
//! Read beside draft-ietf-ccwg-bbr-06 §4.1 (formerly draft-cheng-iccrg-delivery-rate-estimation). It knows neither
//! sequence numbers nor the scoreboard: whoever keeps the transmitted ranges stores a [`Snapshot`] with each of them
//! and brings it back when the range is delivered or lost.
//!
//! For an acknowledgment: [`RateEstimator::on_delivered`] for each range newly acknowledged or SACKed,
//! [`RateEstimator::on_lost`] for each found lost, then [`RateEstimator::sample`] once.

use hoststack_transport::Instant;

/// The state when a range was sent: the draft's per-packet state P (§4.1.2.1.2), compact. A retransmission takes a new
/// one.
///
/// Totals are modulo 2^32 and times are ages, in microseconds before the range was sent: exact for ranges that are
/// acknowledged within 4 GB, and intervals of 71 minutes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// P.delivered, modulo 2^32.
    delivered: u32,
    /// P.lost, modulo 2^32.
    lost: u32,
    /// P.send_time - P.delivered_time.
    delivered_age_us: u32,
    /// P.send_time - P.first_send_time.
    first_sent_age_us: u32,
    /// P.tx_in_flight, with P.is_app_limited as its highest bit.
    in_flight: u32,
}

/// The bit of [`Snapshot::in_flight`] that says app-limited; windows stay below 2^30 (RFC 7323 §2.3).
const APP_LIMITED: u32 = 1 << 31;

impl Snapshot {
    /// Bytes in flight when it was sent, with it.
    pub const fn tx_in_flight(&self) -> u32 {
        self.in_flight & !APP_LIMITED
    }

    /// It was sent in or soon after a time in which the sender had nothing to send.
    pub const fn is_app_limited(&self) -> bool {
        self.in_flight & APP_LIMITED != 0
    }
}

/// What one acknowledgment says of the path: the draft's RS (§4.1.2.1.3), for the range that was sent last among those
/// that it delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RateSample {
    /// Bytes per second; `None` when the interval is too short to be believed.
    pub delivery_rate: Option<u64>,
    /// What `delivered` took, in microseconds: the longer of sending and acknowledging it.
    pub interval_us: u64,
    /// Bytes delivered between the sending of that range and now.
    pub delivered: u64,
    /// Bytes delivered over the connection's life when that range was sent; with [`RateSample::delivered`], until now.
    pub prior_delivered: u64,
    /// Bytes found lost between the sending of that range and now.
    pub lost: u32,
    /// Bytes in flight when that range was sent, with it.
    pub tx_in_flight: u32,
    /// Bytes that this acknowledgment delivered.
    pub newly_acked: u32,
    /// Bytes found lost since the sample before.
    pub newly_lost: u32,
    /// The rate says what the application offered, not what the path takes.
    pub is_app_limited: bool,
}

/// A range found lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LostRange {
    /// Its length.
    pub bytes: u32,
    /// Bytes in flight when it was sent, with it.
    pub tx_in_flight: u32,
    /// Bytes found lost since it was sent, with it.
    pub lost_since_sent: u32,
    /// Bytes delivered over the connection's life, until now.
    pub delivered: u64,
    /// The same when it was sent.
    pub prior_delivered: u64,
    /// [`Snapshot::is_app_limited`] of it.
    pub is_app_limited: bool,
}

/// The range sent last among those that the acknowledgment at hand delivered.
#[derive(Clone, Copy, Debug)]
struct Newest {
    sent_at: Instant,
    snapshot: Snapshot,
}

/// The estimator of one connection: the draft's C (§4.1.2.1.1).
#[derive(Clone, Debug, Default)]
pub struct RateEstimator {
    /// C.delivered.
    delivered: u64,
    /// C.lost.
    lost: u64,
    /// C.delivered_time.
    delivered_at: Instant,
    /// C.first_send_time: when the range delivered last was sent; after idleness, when sending began.
    first_sent_at: Instant,
    /// C.app_limited: the connection counts as app-limited until this much is delivered; 0 when it does not.
    app_limited_until: u64,
    /// Of the acknowledgment at hand.
    newest: Option<Newest>,
    newly_acked: u32,
    newly_lost: u32,
}

impl RateEstimator {
    /// At the start of a connection.
    pub fn new() -> RateEstimator {
        RateEstimator::default()
    }

    /// Bytes delivered over the connection's life: C.delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes found lost over the connection's life: C.lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What is sent now counts as app-limited.
    pub fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// `bytes` are sent, for the first time or again, `in_flight_before` not counting them (0: the path was empty).
    /// The snapshot is to be kept with the range, and `now` as the time it was sent.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, in_flight_before: u32, bytes: u32) -> Snapshot {
        // §4.1.2.2
        if in_flight_before == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        let in_flight = in_flight_before.saturating_add(bytes).min(APP_LIMITED - 1);
        Snapshot {
            delivered: self.delivered as u32, // modulo 2^32 by intent
            lost: self.lost as u32,           // modulo 2^32 by intent
            delivered_age_us: age_us(now, self.delivered_at),
            first_sent_age_us: age_us(now, self.first_sent_at),
            in_flight: if self.is_app_limited() { in_flight | APP_LIMITED } else { in_flight },
        }
    }

    /// The sender ran out of data with `in_flight` bytes in flight and room in the window: §4.1.2.4, whose conditions
    /// are the caller's to check (nothing unsent, nothing to send again, in_flight below cwnd).
    pub fn mark_app_limited(&mut self, in_flight: u32) {
        self.app_limited_until = (self.delivered + u64::from(in_flight)).max(1);
    }

    /// `bytes` of a range are newly delivered, acknowledged or SACKed; `sent_at` and `snapshot` are of its latest
    /// transmission. Of ranges sent at the same time, the one told last counts as sent last: tell them in order.
    #[inline]
    pub fn on_delivered(&mut self, now: Instant, sent_at: Instant, snapshot: &Snapshot, bytes: u32) {
        // §4.1.2.3, UpdateRateSample
        self.delivered += u64::from(bytes);
        self.delivered_at = now;
        self.newly_acked = self.newly_acked.saturating_add(bytes);
        if self.newest.is_none_or(|newest| sent_at >= newest.sent_at) {
            self.newest = Some(Newest { sent_at, snapshot: *snapshot });
            self.first_sent_at = sent_at;
        }
    }

    /// `bytes` of a range are found lost; `snapshot` is of its latest transmission.
    pub fn on_lost(&mut self, snapshot: &Snapshot, bytes: u32) -> LostRange {
        self.lost += u64::from(bytes);
        self.newly_lost = self.newly_lost.saturating_add(bytes);
        LostRange {
            bytes,
            tx_in_flight: snapshot.tx_in_flight(),
            lost_since_sent: (self.lost as u32).wrapping_sub(snapshot.lost),
            delivered: self.delivered,
            prior_delivered: self.delivered
                - u64::from((self.delivered as u32).wrapping_sub(snapshot.delivered)), // modulo 2^32 by intent
            is_app_limited: snapshot.is_app_limited(),
        }
    }

    /// The sample of the acknowledgment that came `now`, and the beginning of the next; `None` when it delivered
    /// nothing. `min_rtt_us` is the least round trip of the connection's life, 0 while there is none.
    #[inline]
    pub fn sample(&mut self, now: Instant, min_rtt_us: u32) -> Option<RateSample> {
        // §4.1.2.3, GenerateRateSample: the bubble is acknowledged and gone.
        if self.app_limited_until != 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let newly_lost = core::mem::take(&mut self.newly_lost);
        let newly_acked = core::mem::take(&mut self.newly_acked);
        let Some(Newest { sent_at, snapshot }) = self.newest.take() else {
            self.newly_lost = newly_lost;
            return None;
        };
        let ack_elapsed = now.micros_since(sent_at).saturating_add(u64::from(snapshot.delivered_age_us));
        let interval_us = ack_elapsed.max(u64::from(snapshot.first_sent_age_us));
        let delivered = u64::from((self.delivered as u32).wrapping_sub(snapshot.delivered));
        // §4.1.2.3: an interval below the least round trip belongs to a range that was sent again for nothing.
        let is_reliable = interval_us != 0 && interval_us >= u64::from(min_rtt_us);
        Some(RateSample {
            delivery_rate: is_reliable.then(|| delivered * 1_000_000 / interval_us),
            interval_us,
            delivered,
            prior_delivered: self.delivered - delivered,
            lost: (self.lost as u32).wrapping_sub(snapshot.lost),
            tx_in_flight: snapshot.tx_in_flight(),
            newly_acked,
            newly_lost,
            is_app_limited: snapshot.is_app_limited(),
        })
    }
}

/// How long before `now` `earlier` was.
fn age_us(now: Instant, earlier: Instant) -> u32 {
    u32::try_from(now.micros_since(earlier)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_snapshot_takes_20_bytes() {
        assert_eq!(size_of::<Snapshot>(), 20);
    }

    #[test]
    fn one_segment_is_delivered_in_its_round_trip() {
        let mut rate = RateEstimator::new();
        let p = rate.on_sent(ms(100), 0, 1000);
        rate.on_delivered(ms(150), ms(100), &p, 1000);
        let expected = RateSample {
            delivery_rate: Some(20_000),
            interval_us: 50_000,
            delivered: 1000,
            tx_in_flight: 1000,
            newly_acked: 1000,
            ..RateSample::default()
        };
        assert_eq!(rate.sample(ms(150), 50_000), Some(expected));
        assert_eq!(rate.sample(ms(150), 50_000), None, "nothing since");
    }

    #[test]
    fn the_ack_rate_bounds_what_was_sent_in_a_burst() {
        // Ten segments at once; the path takes one per 10 ms, after 100 ms.
        let mut rate = RateEstimator::new();
        let sent: Vec<_> = (0..10).map(|i| rate.on_sent(ms(0), i * 1000, 1000)).collect();
        let mut rates = Vec::new();
        for (i, p) in sent.iter().enumerate() {
            let now = ms(110 + 10 * i as u64);
            rate.on_delivered(now, ms(0), p, 1000);
            rates.push(rate.sample(now, 100_000).unwrap().delivery_rate.unwrap());
        }
        // All sampled from 0 on: 1000/0.110, 2000/0.120, ... 10000/0.200.
        assert_eq!((rates[0], rates[1], rates[9]), (9090, 16_666, 50_000));
        // The path is empty: the next is measured from its own sending on.
        let p = rate.on_sent(ms(200), 0, 1000);
        rate.on_delivered(ms(300), ms(200), &p, 1000);
        let sample = rate.sample(ms(300), 100_000).unwrap();
        assert_eq!((sample.delivered, sample.prior_delivered, sample.interval_us), (1000, 10_000, 100_000));
    }

    #[test]
    fn the_send_rate_bounds_acknowledgments_that_were_compressed() {
        // One segment each 10 ms, acknowledged together at 60 ms and 61 ms.
        let mut rate = RateEstimator::new();
        let sent: Vec<_> =
            (0..6).map(|i| (ms(10 * i), rate.on_sent(ms(10 * i), 1000 * i as u32, 1000))).collect();
        rate.on_delivered(ms(60), sent[0].0, &sent[0].1, 1000);
        assert_eq!(rate.sample(ms(60), 10_000).unwrap().delivery_rate, Some(1000 * 1000 / 60));
        for (at, p) in &sent[1..] {
            rate.on_delivered(ms(61), *at, p, 1000);
        }
        let sample = rate.sample(ms(61), 10_000).unwrap();
        // The last was sent at 50 ms when nothing was delivered yet: both start at 0.
        assert_eq!((sample.interval_us, sample.delivered, sample.newly_acked), (61_000, 6000, 5000));

        // Now a flight whose first is sent at 61 ms, acknowledged at 100 ms, the rest of it at 101 ms.
        let sent: Vec<_> =
            (0..4).map(|i| (ms(61 + 10 * i), rate.on_sent(ms(61 + 10 * i), 1000 * i as u32, 1000))).collect();
        rate.on_delivered(ms(100), sent[0].0, &sent[0].1, 1000);
        rate.sample(ms(100), 10_000);
        let p = rate.on_sent(ms(100), 3000, 1000);
        for (at, p) in &sent[1..] {
            rate.on_delivered(ms(101), *at, p, 1000);
        }
        rate.sample(ms(101), 10_000);
        rate.on_delivered(ms(102), ms(100), &p, 1000);
        let sample = rate.sample(ms(102), 1000).unwrap();
        // Acknowledged in 2 ms, but sent 39 ms after the one delivered before it (61 ms).
        assert_eq!((sample.interval_us, sample.delivered), (39_000, 4000));
    }

    #[test]
    fn the_range_sent_last_gives_the_sample_in_whatever_order_they_are_told() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut rate = RateEstimator::new();
            let sent: Vec<_> = (0..3).map(|i| (ms(i), rate.on_sent(ms(i), 1000 * i as u32, 1000))).collect();
            for i in order {
                rate.on_delivered(ms(50), sent[i].0, &sent[i].1, 1000);
            }
            assert_eq!(rate.sample(ms(50), 0).unwrap().tx_in_flight, 3000);
            assert_eq!(rate.first_sent_at, ms(2));
        }
    }

    #[test]
    fn an_interval_below_the_least_round_trip_gives_no_rate() {
        let mut rate = RateEstimator::new();
        let p = rate.on_sent(ms(0), 0, 1000);
        rate.on_delivered(ms(5), ms(0), &p, 1000);
        let sample = rate.sample(ms(5), 5001).unwrap();
        assert_eq!((sample.delivery_rate, sample.interval_us, sample.delivered), (None, 5000, 1000));
        let p = rate.on_sent(ms(5), 0, 1000);
        rate.on_delivered(ms(5), ms(5), &p, 1000);
        assert_eq!(rate.sample(ms(5), 0).unwrap().delivery_rate, None, "no time passed");
    }

    #[test]
    fn what_is_sent_until_the_bubble_is_delivered_is_app_limited() {
        let mut rate = RateEstimator::new();
        let first = rate.on_sent(ms(0), 0, 1000);
        rate.mark_app_limited(1000);
        let second = rate.on_sent(ms(1), 1000, 1000);
        rate.on_delivered(ms(10), ms(0), &first, 1000);
        assert!(!rate.sample(ms(10), 0).unwrap().is_app_limited);
        assert!(rate.is_app_limited(), "delivered as much as the mark, not more");
        rate.on_delivered(ms(11), ms(1), &second, 1000);
        assert!(rate.sample(ms(11), 0).unwrap().is_app_limited);
        assert!(!rate.is_app_limited());
        assert!(!rate.on_sent(ms(12), 0, 1000).is_app_limited());
        // Nothing delivered yet and nothing in flight is marked all the same.
        let mut rate = RateEstimator::new();
        rate.mark_app_limited(0);
        let p = rate.on_sent(ms(0), 0, 7);
        assert_eq!((p.is_app_limited(), p.tx_in_flight()), (true, 7));
    }

    #[test]
    fn idleness_does_not_count_as_time_of_delivery() {
        let mut rate = RateEstimator::new();
        let p = rate.on_sent(ms(0), 0, 1000);
        rate.on_delivered(ms(10), ms(0), &p, 1000);
        rate.sample(ms(10), 0);
        let p = rate.on_sent(ms(10_000), 0, 1000);
        rate.on_delivered(ms(10_010), ms(10_000), &p, 1000);
        assert_eq!(rate.sample(ms(10_010), 0).unwrap().interval_us, 10_000);
    }

    #[test]
    fn losses_are_counted_from_the_sending_of_each_range() {
        let mut rate = RateEstimator::new();
        let a = rate.on_sent(ms(0), 0, 1000);
        let b = rate.on_sent(ms(0), 1000, 1000);
        let c = rate.on_sent(ms(0), 2000, 1000);
        let lost = rate.on_lost(&a, 1000);
        assert_eq!((lost.bytes, lost.tx_in_flight, lost.lost_since_sent), (1000, 1000, 1000));
        assert_eq!(rate.sample(ms(1), 0), None, "an acknowledgment that delivered nothing");
        let again = rate.on_sent(ms(2), 2000, 1000);
        let lost = rate.on_lost(&b, 1000);
        assert_eq!((lost.tx_in_flight, lost.lost_since_sent), (2000, 2000));
        rate.on_delivered(ms(20), ms(0), &c, 1000);
        let sample = rate.sample(ms(20), 0).unwrap();
        assert_eq!((sample.lost, sample.newly_lost), (2000, 2000));
        rate.on_delivered(ms(22), ms(2), &again, 1000);
        let sample = rate.sample(ms(22), 0).unwrap();
        assert_eq!((sample.lost, sample.newly_lost), (1000, 0));
        assert_eq!((rate.delivered(), rate.lost()), (2000, 2000));
    }

    #[test]
    fn totals_pass_2_to_the_32_and_ages_saturate() {
        let mut rate = RateEstimator { delivered: u64::from(u32::MAX), ..RateEstimator::new() };
        let p = rate.on_sent(ms(0), 0, 1000);
        rate.on_delivered(ms(100), ms(0), &p, 1000);
        let sample = rate.sample(ms(100), 0).unwrap();
        assert_eq!((sample.delivered, sample.prior_delivered), (1000, u64::from(u32::MAX)));
        assert_eq!(sample.delivery_rate, Some(10_000));
        let far = ms(100_000_000);
        let p = rate.on_sent(far, u32::MAX, 1000);
        assert_eq!(p.tx_in_flight(), APP_LIMITED - 1);
        rate.on_delivered(far, far, &p, 1000);
        assert_eq!(rate.sample(far, 0).unwrap().interval_us, u64::from(u32::MAX));
    }
}
