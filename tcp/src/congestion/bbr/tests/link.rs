//! Senders with endless data, and a path of one bottleneck that they share: a rate, a buffer that drops what does not
//! fit, a propagation delay, random loss. Time is virtual; the same seed gives the same run.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use hoststack_transport::Instant;

use super::super::Bbr;
use crate::congestion::{AckInfo, CongestionControl, CongestionKind};
use crate::rate::{RateEstimator, Snapshot};

/// Each segment, in bytes: at 100 Mbit/s one takes 100 us.
pub(super) const MSS: u32 = 1250;
/// 100 Mbit/s, in bytes per second.
pub(super) const FAST: u64 = 12_500_000;

/// What became of a segment that was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Flying,
    Delivered,
    Lost,
}

struct Sent {
    at: Instant,
    snapshot: Snapshot,
    fate: Fate,
}

/// A sender, and what its receiver got.
pub(super) struct Flow {
    pub(super) bbr: Bbr,
    /// Bytes received.
    pub(super) received: u64,
    /// The application writes nothing.
    pub(super) is_idle: bool,
    estimator: RateEstimator,
    rtt_min_us: u32,
    /// By number, the first being `base`.
    sent: VecDeque<Sent>,
    base: u64,
    in_flight: u32,
    recovery_point: Option<u64>,
    is_cwnd_limited: bool,
    /// When pacing lets the next segment go, in nanoseconds.
    next_send_ns: u64,
    last_event_us: u64,
}

/// A segment: whose, and which.
type Segment = (usize, u64);

/// The path and its senders. It stands for the first of them where one is meant.
pub(super) struct Link {
    flows: Vec<Flow>,
    /// Bytes per second.
    pub(super) rate: u64,
    /// Without queue, in microseconds.
    pub(super) rtt_us: u64,
    /// In bytes, without the segment being sent.
    pub(super) buffer: u64,
    /// Acknowledgments come at multiples of this only, as over a radio link; in microseconds.
    pub(super) slot_us: u64,
    /// Losses in a million segments.
    pub(super) loss_ppm: u64,
    /// Bytes lost.
    pub(super) lost: u64,
    /// Most bytes in the buffer since last cleared.
    pub(super) queue_max: u64,
    pub(super) now_us: u64,
    random: u64,
    queue: VecDeque<Segment>,
    served_at_us: Option<u64>,
    /// Acknowledgments on their way, and when they come.
    acks: VecDeque<(u64, Segment)>,
}

impl Deref for Link {
    type Target = Flow;
    fn deref(&self) -> &Flow {
        &self.flows[0]
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Flow {
        &mut self.flows[0]
    }
}

impl Flow {
    fn new(seed: u64) -> Flow {
        Flow {
            bbr: Bbr::new(MSS as u16, seed),
            received: 0,
            is_idle: false,
            estimator: RateEstimator::new(),
            rtt_min_us: u32::MAX,
            sent: VecDeque::new(),
            base: 0,
            in_flight: 0,
            recovery_point: None,
            is_cwnd_limited: false,
            next_send_ns: 0,
            last_event_us: 0,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn may_send(&mut self) -> bool {
        if self.is_idle {
            self.estimator.mark_app_limited(self.in_flight);
            return false;
        }
        let fits = self.in_flight + MSS <= self.bbr.window() || self.in_flight == 0;
        self.is_cwnd_limited |= !fits;
        fits
    }

    /// Sends a segment; returns its number.
    fn send(&mut self, now: Instant, rto_us: u64) -> u64 {
        let now_us = now.as_micros();
        if self.sent.is_empty() {
            if now_us > self.last_event_us + rto_us {
                self.bbr.on_idle_restart(now);
            }
            self.last_event_us = now_us;
        }
        let snapshot = self.estimator.on_sent(now, self.in_flight, MSS);
        self.in_flight += MSS;
        self.sent.push_back(Sent { at: now, snapshot, fate: Fate::Flying });
        self.bbr.on_sent(now, MSS, self.in_flight);
        let delay_ns = u64::from(MSS) * 1_000_000_000 / self.bbr.pacing_rate().unwrap();
        self.next_send_ns = self.next_send_ns.max(now_us * 1000) + delay_ns;
        self.base + self.sent.len() as u64 - 1
    }

    fn acknowledge(&mut self, now: Instant, number: u64) {
        self.last_event_us = now.as_micros();
        let flight_before = self.in_flight;
        let Some(index) = number.checked_sub(self.base) else { return };
        let sent = &mut self.sent[index as usize];
        let was = core::mem::replace(&mut sent.fate, Fate::Delivered);
        let rtt_us = now.micros_since(sent.at) as u32;
        self.rtt_min_us = self.rtt_min_us.min(rtt_us);
        self.estimator.on_delivered(now, sent.at, &sent.snapshot, MSS);
        if was == Fate::Flying {
            self.in_flight -= MSS;
        }
        // Three later ones arrived, as the path keeps the order.
        let mut bytes_lost = 0;
        for index in 0..index.saturating_sub(2) {
            bytes_lost += self.lose(now, index as usize);
        }
        while self.sent.front().is_some_and(|sent| sent.fate != Fate::Flying) {
            self.sent.pop_front();
            self.base += 1;
        }
        self.bbr.on_ack(&AckInfo {
            now,
            bytes_acked: MSS,
            bytes_delivered: MSS,
            bytes_lost,
            rtt_us: Some(rtt_us),
            rtt_min_us: Some(self.rtt_min_us),
            flight_before,
            rate: self.estimator.sample(now, self.rtt_min_us),
            is_cwnd_limited: core::mem::take(&mut self.is_cwnd_limited),
            has_sack: true,
            ..AckInfo::default()
        });
        match self.recovery_point {
            Some(point) if number >= point => {
                self.recovery_point = None;
                self.bbr.on_recovery_exit(now);
            }
            None if bytes_lost > 0 => {
                self.recovery_point = Some(self.base + self.sent.len() as u64);
                self.bbr.on_congestion_event(now, flight_before, CongestionKind::Loss);
            }
            _ => {}
        }
    }

    /// Takes a segment for lost, if it still flies.
    fn lose(&mut self, now: Instant, index: usize) -> u32 {
        let sent = &mut self.sent[index];
        if sent.fate != Fate::Flying {
            return 0;
        }
        sent.fate = Fate::Lost;
        self.in_flight -= MSS;
        let lost = self.estimator.on_lost(&sent.snapshot, MSS);
        self.bbr.on_lost(now, &lost);
        MSS
    }

    fn expire(&mut self, now: Instant) {
        self.last_event_us = now.as_micros();
        self.bbr.on_rto(now, self.in_flight);
        for index in 0..self.sent.len() {
            self.lose(now, index);
        }
        self.base += self.sent.len() as u64;
        self.sent.clear();
        self.recovery_point = None;
    }
}

impl Link {
    pub(super) fn new(rate: u64, rtt_us: u64, buffer: u64, loss_ppm: u64, seed: u64) -> Link {
        Link {
            flows: alloc::vec![Flow::new(seed)],
            rate,
            rtt_us,
            buffer,
            slot_us: 1,
            loss_ppm,
            lost: 0,
            queue_max: 0,
            now_us: 0,
            random: seed,
            queue: VecDeque::new(),
            served_at_us: None,
            acks: VecDeque::new(),
        }
    }

    /// One more sender begins.
    pub(super) fn join(&mut self, seed: u64) {
        self.flows.push(Flow::new(seed));
    }

    /// Bytes that each receiver got.
    pub(super) fn received_by_each(&self) -> Vec<u64> {
        self.flows.iter().map(|flow| flow.received).collect()
    }

    /// The product of bandwidth and delay, in bytes.
    pub(super) fn bdp(&self) -> u64 {
        self.rate * self.rtt_us / 1_000_000
    }

    /// Runs until `done` or for `us` microseconds; says whether it was done. `done` is asked after each event.
    pub(super) fn run_until(&mut self, us: u64, mut done: impl FnMut(&Link) -> bool) -> bool {
        let end = self.now_us + us;
        let rto_us = self.rto_us();
        while !done(self) {
            let served = self.served_at_us.unwrap_or(u64::MAX);
            let acked = self.acks.front().map_or(u64::MAX, |(at, _)| *at);
            let (mut sends, mut expires) = ((u64::MAX, 0), (u64::MAX, 0));
            for (i, flow) in self.flows.iter_mut().enumerate() {
                if flow.may_send() {
                    sends = sends.min((self.now_us.max(flow.next_send_ns / 1000), i));
                }
                if !flow.sent.is_empty() {
                    expires = expires.min((flow.last_event_us + rto_us, i));
                }
            }
            let next = served.min(acked).min(sends.0).min(expires.0);
            if next > end {
                self.now_us = end;
                return false;
            }
            self.now_us = next.max(self.now_us);
            let now = Instant::from_micros(self.now_us);
            if next == served {
                self.serve();
            } else if next == acked {
                let (_, (flow, number)) = self.acks.pop_front().unwrap();
                self.flows[flow].acknowledge(now, number);
            } else if next == sends.0 {
                let number = self.flows[sends.1].send(now, rto_us);
                self.enter((sends.1, number));
            } else {
                self.flows[expires.1].expire(now);
            }
        }
        true
    }

    /// Runs for `us` microseconds; returns the bytes that the first receiver got in them.
    pub(super) fn run(&mut self, us: u64) -> u64 {
        let before = self.received;
        self.run_until(us, |_| false);
        self.received - before
    }

    /// The timeout: longer than any queue makes the round trip.
    fn rto_us(&self) -> u64 {
        300_000 + 3 * self.rtt_us
    }

    fn service_us(&self) -> u64 {
        u64::from(MSS) * 1_000_000 / self.rate
    }

    /// A segment comes to the bottleneck.
    fn enter(&mut self, segment: Segment) {
        let queued = self.queue.len() as u64 * u64::from(MSS);
        if queued > self.buffer || self.random() % 1_000_000 < self.loss_ppm {
            self.lost += u64::from(MSS);
            return;
        }
        self.queue.push_back(segment);
        self.queue_max = self.queue_max.max(queued);
        if self.served_at_us.is_none() {
            self.served_at_us = Some(self.now_us + self.service_us());
        }
    }

    /// A segment leaves it.
    fn serve(&mut self) {
        let segment = self.queue.pop_front().unwrap();
        self.flows[segment.0].received += u64::from(MSS);
        let at_us = (self.now_us + self.rtt_us).next_multiple_of(self.slot_us);
        self.acks.push_back((at_us, segment));
        self.served_at_us = (!self.queue.is_empty()).then(|| self.now_us + self.service_us());
    }

    fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
