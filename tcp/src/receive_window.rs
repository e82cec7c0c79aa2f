//! The receive window that grows with what the app takes: dynamic right-sizing (Feng, Fisk, Gardner, Weigle: "Dynamic
//! Right-Sizing in FTP", 2002), for connections whose first window is smaller than their receive fifo.
//!
//! A window of what arrives in one round trip keeps a sender going that is limited by its path; twice that leaves room
//! for what the app has not read yet; twice that again for a sender in slow start, which doubles in the next round trip
//! (RFC 5681 §3.1). It never shrinks (RFC 9293 §3.8.6, SHLD-14), and is whole once it reaches the fifo's capacity: then
//! nothing of this is left.
//!
//! What arrives beyond a gap counts when it arrives: the app takes it with all that waited for the gap to fill, which would
//! look like a burst.
//!
//! What the app takes in one *least* round trip counts, or a window that makes a queue would measure that queue, grow,
//! and make a longer one. A least round trip that is no longer true is given up when the rate fell with it: then the path
//! became longer. A queue leaves the rate as it was.

use alloc::boxed::Box;

use hoststack_transport::{Instant, SessionLayer, SocketOptions};
use hoststack_wire::{SegmentHeader, SeqNum};

use crate::connection::Connection;
use crate::isn::timestamp_clock;

/// The least window, in units of the field (RFC 7323 §2.2): with fewer, rounding would close it.
const UNITS_MIN: u32 = 4;
/// A least round trip is looked at again after this long.
const AGE_US: u64 = 10_000_000;
/// What the window leaves besides, in full segments: for what is on its way when a measurement ends.
const SPARE_SEGMENTS: u32 = 16;

/// How far the window has grown, and what was measured for it.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    /// The most that is offered to an app that has read all.
    limit: u32,
    /// Bytes that arrived, in whatever order, modulo 2^32; and the most that the app had taken of so many.
    arrived: u32,
    taken: u32,
    /// `taken` when this measurement began, and when that was.
    mark: u32,
    mark_at: Instant,
    /// Bytes that the app took during the last one.
    last: u32,
    least: LeastRoundTrip,
    /// Without timestamps: all up to here was offered at `offered_at`, so that a round trip has passed when it came.
    offered: SeqNum,
    offered_at: Instant,
}

impl ReceiveWindow {
    /// For a connection whose first byte is at `nxt`; `None` if it offers all it has at once.
    fn of(
        options: &SocketOptions,
        scale: u8,
        nxt: SeqNum,
        rtt_us: Option<u32>,
        now: Instant,
    ) -> Option<Box<ReceiveWindow>> {
        (options.rx_window_initial < options.rx_window).then(|| {
            let limit = match scale {
                0 => options.rx_window_initial.max(1),
                _ => options.rx_window_initial.max(UNITS_MIN << scale),
            };
            Box::new(ReceiveWindow {
                limit,
                arrived: 0,
                taken: 0,
                mark: 0,
                mark_at: now,
                last: 0,
                least: LeastRoundTrip::new(rtt_us, now),
                offered: nxt,
                offered_at: now,
            })
        })
    }

    /// The app has yet to read `unread` bytes. Measures, and grows the window when it took more than before.
    fn on_read(&mut self, unread: u32, segment: u32, now: Instant) {
        // Without a round trip there is no measure.
        let Some(rtt_us) = self.least.us() else { return };
        let read = self.arrived.wrapping_sub(unread);
        if (read.wrapping_sub(self.taken) as i32) > 0 {
            // Not less, when a gap has filled and the app is yet to read. The distance is one on the circle.
            self.taken = read;
        }
        let taken = self.taken.wrapping_sub(self.mark);
        // The measurement need not be over: what was taken in a part of it was taken.
        self.limit = self.limit.max(wanted(taken, self.last, segment));
        if now.micros_since(self.mark_at) >= u64::from(rtt_us) {
            self.last = taken;
            self.mark = self.taken;
            self.mark_at = now;
        }
    }

    /// All up to `nxt` came, and all up to `edge` is offered now.
    fn on_offer(&mut self, nxt: SeqNum, edge: SeqNum, bytes: u64, now: Instant) {
        if nxt.before(self.offered) {
            return;
        }
        let us = u32::try_from(now.micros_since(self.offered_at)).unwrap_or(u32::MAX);
        if self.offered_at != now {
            // Too long if the sender had no more to send; the least is what counts.
            self.least.sample(us, bytes, now, false);
        }
        self.offered = edge;
        self.offered_at = now;
    }
}

/// The window for an app that took `taken` bytes in this round trip and `last` in the one before.
fn wanted(taken: u32, last: u32, segment: u32) -> u32 {
    let growth = taken.saturating_sub(last);
    let window = taken.saturating_mul(2).saturating_add(growth.saturating_mul(4));
    if growth == 0 { window } else { window.saturating_add(SPARE_SEGMENTS * segment) }
}

/// The least round trip that the receiver knows of, and whether it still is.
#[derive(Debug)]
struct LeastRoundTrip {
    /// In use; `u32::MAX` before there is one.
    us: u32,
    /// The least since `since`.
    next_us: u32,
    since: Instant,
    /// Bytes received until then.
    bytes: u64,
    /// The highest rate since `us` was taken on, in bytes per second.
    rate: u64,
}

impl LeastRoundTrip {
    fn new(us: Option<u32>, now: Instant) -> LeastRoundTrip {
        LeastRoundTrip { us: us.unwrap_or(u32::MAX), next_us: u32::MAX, since: now, bytes: 0, rate: 0 }
    }

    fn us(&self) -> Option<u32> {
        (self.us != u32::MAX).then_some(self.us)
    }

    /// A round trip, at the most, when `bytes` were received in all. One that `ages` may be replaced by a longer one.
    fn sample(&mut self, us: u32, bytes: u64, now: Instant, ages: bool) {
        self.us = self.us.min(us.max(1));
        self.next_us = self.next_us.min(us.max(1));
        let passed_us = now.micros_since(self.since);
        if !ages || passed_us < AGE_US {
            return;
        }
        let rate = (bytes - self.bytes).saturating_mul(1_000_000) / passed_us;
        if rate < self.rate / 8 * 7 && self.next_us > self.us {
            self.us = self.next_us;
            self.rate = rate;
        }
        self.rate = self.rate.max(rate);
        self.next_us = u32::MAX;
        self.since = now;
        self.bytes = bytes;
    }
}

impl Connection {
    /// Before the first byte of the peer: the window begins with `rx_window_initial`, if that is less than the fifo.
    pub(crate) fn start_receive_window(
        &mut self,
        options: &SocketOptions,
        rtt_us: Option<u32>,
        now: Instant,
    ) {
        if let Some(window) = ReceiveWindow::of(options, self.rcv_scale, self.rcv.nxt, rtt_us, now) {
            self.extras_mut().receive_window = Some(window);
        }
    }

    fn receive_window(&mut self) -> Option<&mut ReceiveWindow> {
        self.extras.as_mut()?.receive_window.as_deref_mut()
    }

    /// RCV.BUFF (RFC 9293 §3.8.6.2.2) as far as it is in use: what an app that has read all is offered.
    pub(crate) fn rx_buffer(&self) -> u32 {
        let window = self.extras.as_ref().and_then(|extras| extras.receive_window.as_ref());
        window.map_or(self.rx_capacity, |window| window.limit)
    }

    /// What may be offered from RCV.NXT on: the fifo's room, as far as the window has grown.
    pub(crate) fn rx_offer<L: SessionLayer>(&mut self, now: Instant, layer: &L) -> u32 {
        let room = layer.rx_room(self.session);
        let Some(extras) = self.extras.as_mut() else { return room };
        let Some(window) = &mut extras.receive_window else { return room };
        let unread = self.rx_capacity.saturating_sub(room);
        // A segment that an offload glued together says nothing of how much is on its way.
        window.on_read(unread, self.peer_segment.min(self.mss).into(), now);
        if !self.has_timestamps {
            window.on_offer(self.rcv.nxt, self.rcv.edge, self.bytes_received, now);
        }
        if window.limit >= self.rx_capacity {
            extras.receive_window = None;
            return room;
        }
        room.min(window.limit.saturating_sub(unread))
    }

    /// `count` bytes of data came that had not been there.
    #[inline]
    pub(crate) fn note_arrived(&mut self, count: u32) {
        if let Some(window) = self.receive_window() {
            window.arrived = window.arrived.wrapping_add(count);
        }
    }

    /// Data came with the echo of a timestamp of ours, so that a round trip has passed since we sent that.
    pub(crate) fn measure_receive_rtt(&mut self, header: &SegmentHeader, now: Instant) {
        if self.receive_window().is_none() {
            return;
        }
        let Some(ts) = header.options.timestamps.filter(|_| self.has_timestamps) else { return };
        let elapsed_ms = timestamp_clock(now, self.ts.offset).wrapping_sub(ts.ecr);
        let bytes = self.bytes_received;
        if elapsed_ms < 1 << 20
            && let Some(window) = self.receive_window()
        {
            // One tick more than was counted, for it must not be less than it was.
            window.least.sample((elapsed_ms + 1) * 1000, bytes, now, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions =
        SocketOptions { rx_window: 1 << 20, rx_window_initial: 10_000, ..SocketOptions::DEFAULT };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn window(rtt_us: Option<u32>) -> Box<ReceiveWindow> {
        ReceiveWindow::of(&OPTIONS, 0, SeqNum(1), rtt_us, at(0)).expect("it is smaller than the fifo")
    }

    #[test]
    fn all_at_once_needs_no_window_of_its_own() {
        for initial in [u32::MAX, 1 << 20] {
            let options = SocketOptions { rx_window_initial: initial, ..OPTIONS };
            assert!(ReceiveWindow::of(&options, 0, SeqNum(1), None, at(0)).is_none());
        }
    }

    /// `count` bytes arrive and are read at once.
    fn takes(window: &mut ReceiveWindow, count: u32, now: Instant) {
        window.arrived = window.arrived.wrapping_add(count);
        window.on_read(0, 1000, now);
    }

    #[test]
    fn a_steady_app_has_twice_of_what_it_takes_in_a_round_trip() {
        assert_eq!(wanted(50_000, 50_000, 1000), 100_000);
        assert_eq!(wanted(50_000, 80_000, 1000), 100_000);
        assert_eq!(wanted(u32::MAX, 0, 1000), u32::MAX);
        let mut window = window(Some(100_000));
        // Counts wrap around.
        (window.arrived, window.taken, window.mark) = (u32::MAX - 5000, u32::MAX - 5000, u32::MAX - 5000);
        // 2000 bytes in 100 ms, read one by one. The first measurement has none before it, the others are like it.
        for n in 1..=10_000u64 {
            takes(&mut window, 1, at(n / 20));
        }
        assert_eq!(window.limit, 2 * 2000 + 4 * 2000 + 16 * 1000);
    }

    #[test]
    fn a_sender_that_doubles_is_always_offered_twice_of_what_it_sent_last() {
        let mut window = window(Some(100_000));
        let mut flight = 10_000;
        for round in 0..6u64 {
            assert!(window.limit >= flight, "round {round}: {flight} bytes, a window of {}", window.limit);
            for part in 1..=10 {
                takes(&mut window, flight / 10, at(100 * round + u64::from(part)));
                // The acknowledgment lets so much out again, and as much on top.
                let out = flight + flight / 10 * part;
                assert!(window.limit >= out, "round {round}: {out} bytes, a window of {}", window.limit);
            }
            flight *= 2;
        }
    }

    #[test]
    fn what_nobody_reads_makes_no_window() {
        let mut window = window(Some(1000));
        // A SYN's data was received, and is not read.
        window.on_read(500, 1000, at(1));
        for ms in 2..100 {
            window.arrived += 100;
            let unread = 500 + window.arrived;
            window.on_read(unread, 1000, at(ms));
        }
        assert_eq!(window.limit, 10_000);
    }

    #[test]
    fn what_waited_for_a_gap_is_no_burst() {
        let mut window = window(Some(10_000));
        for ms in 0..200 {
            takes(&mut window, 1000, at(ms));
        }
        let steady = window.limit;
        // 50 ms of data wait, and are there at once; a measurement ends before the app could read them.
        for ms in 200..250 {
            takes(&mut window, 1000, at(ms));
        }
        window.on_read(50_000, 1000, at(270));
        window.on_read(50_000, 1000, at(285));
        for ms in 286..400 {
            takes(&mut window, 1000, at(ms));
        }
        assert_eq!(window.limit, steady);
    }

    #[test]
    fn without_a_round_trip_the_window_waits_for_one_and_without_timestamps_it_is_that_of_a_window() {
        let mut window = window(None);
        takes(&mut window, 9000, at(5));
        assert_eq!(window.limit, 10_000);
        window.on_offer(SeqNum(1), SeqNum(10_001), 0, at(0));
        window.on_offer(SeqNum(9001), SeqNum(19_001), 9000, at(30));
        assert_eq!(window.least.us(), None, "not all of it came");
        window.on_offer(SeqNum(10_001), SeqNum(20_001), 10_000, at(50));
        assert_eq!(window.least.us(), Some(50_000));
        window.on_offer(SeqNum(20_001), SeqNum(30_001), 20_000, at(500));
        assert_eq!(window.least.us(), Some(50_000), "the sender had nothing to send");
    }

    #[test]
    fn a_longer_path_is_believed_when_the_rate_fell_with_it() {
        let mut least = LeastRoundTrip::new(Some(10_000), at(0));
        let mut bytes = 0;
        let mut run = |least: &mut LeastRoundTrip, seconds: std::ops::Range<u64>, us, rate| {
            for second in seconds {
                bytes += rate;
                least.sample(us, bytes, at(second * 1000), true);
            }
        };
        // A queue: the round trip is longer, the rate is the same.
        run(&mut least, 1..41, 10_000, 1_000_000);
        run(&mut least, 41..101, 50_000, 1_000_000);
        assert_eq!(least.us(), Some(10_000));
        // The rate falls to a fifth.
        run(&mut least, 101..141, 50_000, 200_000);
        assert_eq!(least.us(), Some(50_000));
        // And a shorter one is believed at once.
        run(&mut least, 141..142, 20_000, 200_000);
        assert_eq!(least.us(), Some(20_000));
    }
}
