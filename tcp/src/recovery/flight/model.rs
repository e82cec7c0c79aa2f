//! The flight beside a naive model, one record a byte: for the property tests beside this file and for `fuzz/`.

use alloc::vec::Vec;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Byte {
    at: u64,
    is_sacked: bool,
    is_lost: bool,
    is_out: bool,
    is_repeated: bool,
}

/// Bytes from SND.UNA on.
struct Model {
    una: SeqNum,
    bytes: Vec<Byte>,
    /// The latest that was delivered, for RACK: when it was sent, and its end.
    latest: (u64, SeqNum),
}

impl Model {
    fn check(&self, flight: &mut Flight) {
        let nxt = self.una + self.bytes.len() as u32;
        flight.check_consistency(self.una, nxt);
        let mut seen = Vec::new();
        for (start, sent) in flight.iter() {
            for _ in 0..sent.end.since(start) {
                seen.push(Byte {
                    at: sent.sent_at.as_micros(),
                    is_sacked: sent.is_sacked,
                    is_lost: sent.is_lost,
                    is_out: sent.is_out,
                    is_repeated: sent.is_repeated,
                });
            }
        }
        assert_eq!(seen.len(), self.bytes.len());
        for (n, (mine, theirs)) in seen.iter().zip(&self.bytes).enumerate() {
            if theirs.is_sacked {
                assert!(mine.is_sacked && !mine.is_lost && !mine.is_out, "byte {n}");
            } else {
                assert_eq!(mine, theirs, "byte {n}");
            }
        }
        let count = |is: fn(&Byte) -> bool| self.bytes.iter().filter(|b| is(b)).count() as u32;
        assert_eq!(flight.sacked(), count(|b| b.is_sacked));
        assert_eq!(flight.lost(), count(|b| b.is_lost));
        assert_eq!(flight.out(), count(|b| b.is_out));
        assert_eq!(flight.pipe(), count(|b| !b.is_sacked && (!b.is_lost || b.is_out)));
        let wants = |b: &Byte| b.is_lost && !b.is_out;
        assert_eq!(
            flight.next_lost(u32::MAX).map(|(seq, _)| seq.since(self.una) as usize),
            self.bytes.iter().position(wants)
        );
        // Asked twice: the first may have forgotten what leads to the second.
        assert_eq!(flight.next_lost(u32::MAX), flight.next_lost(u32::MAX));
        assert_eq!(flight.has_reneged(), self.bytes.first().is_some_and(|b| b.is_sacked));
        assert_eq!(
            flight.last_unsacked(1).map(|(seq, _)| seq.since(self.una) as usize),
            self.bytes.iter().rposition(|b| !b.is_sacked)
        );
    }
}

impl Model {
    /// RFC 8985 §6.2 step 5 as it is written, over all ranges.
    fn detect(&mut self, flight: &mut Flight, at: u64, ago: u64, offset: u32, due: u64) {
        let latest = (at.saturating_sub(ago), self.una + offset.min(self.bytes.len() as u32));
        if latest.0 > self.latest.0 || (latest.0 == self.latest.0 && latest.1.after(self.latest.1)) {
            self.latest = latest;
        }
        let (latest_at, latest_end) = self.latest;
        let (mut bytes, mut wait) = (0, None);
        for (start, sent) in flight.iter() {
            let (sent_at, is_out) = (sent.sent_at.as_micros(), !sent.is_lost || sent.is_out);
            let is_before = sent_at < latest_at || (sent_at == latest_at && sent.end.before(latest_end));
            if sent.is_sacked || !is_out || !is_before {
                continue;
            }
            if at - sent_at < due {
                wait = wait.max(Some(sent_at + due - at));
                continue;
            }
            bytes += sent.end.since(start);
            let (a, b) = (start.since(self.una) as usize, sent.end.since(self.una) as usize);
            for byte in &mut self.bytes[a..b] {
                (byte.is_lost, byte.is_out) = (true, false);
            }
        }
        let latest = (Instant::from_micros(latest_at), latest_end);
        let (mut told, mut told_at) = (0, Instant::ZERO);
        let found = flight.mark_lost_before(latest, Instant::from_micros(at), due, |sent, len| {
            assert!(sent.sent_at >= told_at, "a younger one before an older");
            told_at = sent.sent_at;
            told += len;
        });
        assert_eq!((found, told), ((bytes, wait), bytes));
    }
}

/// What happens to a flight. Numbers that reach beyond what is in flight are cut.
#[derive(Clone, Copy, Debug)]
pub enum FlightStep {
    /// So many new bytes are sent, at least 1.
    Push(u32),
    /// A microsecond passes.
    Tick,
    /// SND.UNA moves on by up to so many bytes.
    Acknowledge(u32),
    /// A SACK block: from this offset on, so many bytes, as far as they were sent.
    Sack(u32, u32),
    /// What lies before this offset and was sent so many microseconds ago is thought lost.
    Lose(u32, u64),
    /// What was sent so many microseconds ago up to this offset was delivered: RACK says what is lost of what was sent
    /// before and is so old.
    Detect(u64, u32, u64),
    /// The first bytes are thought lost, up to so many.
    LoseFirst(u32),
    /// The first that is to be sent again is, up to so many bytes.
    Again(u32),
    /// The last that is not SACKed is sent again, up to so many bytes, whatever became of it.
    ProbeTail(u32),
    /// The last bytes count as not sent, up to so many.
    Retract(u32),
    /// SACKs are forgotten: the receiver reneged.
    Forget,
    /// Nothing is lost after all.
    Unmark,
}

/// Takes a flight and its model through `steps`, from the sequence number `isn` on.
///
/// # Panics
/// When they differ.
pub fn check_flight(isn: u32, steps: &[FlightStep]) {
    let una = SeqNum(isn);
    let mut flight = Flight::new();
    flight.reset(una);
    let mut model = Model { una, bytes: Vec::new(), latest: (0, una) };
    let mut at = 0;
    for &step in steps {
        let now = Instant::from_micros(at);
        let len = model.bytes.len() as u32;
        let nxt = model.una + len;
        match step {
            FlightStep::Push(count) => {
                flight.push(Sent::new(nxt + count, now, Snapshot::default()));
                let new = Byte { at, is_sacked: false, is_lost: false, is_out: false, is_repeated: false };
                model.bytes.extend((0..count).map(|_| new));
            }
            FlightStep::Tick => at += 1,
            FlightStep::Acknowledge(count) => {
                let count = count.min(len);
                let (mut told, mut told_sacked) = (0, 0);
                flight.acknowledge(model.una + count, |sent, len| {
                    told += len;
                    told_sacked += if sent.is_sacked { len } else { 0 };
                });
                let gone: Vec<Byte> = model.bytes.drain(..count as usize).collect();
                model.una += count;
                assert_eq!(told, count);
                assert_eq!(told_sacked as usize, gone.iter().filter(|b| b.is_sacked).count());
            }
            FlightStep::Sack(from, count) if from < len => {
                let end = from.saturating_add(count).min(len);
                let mut told = 0;
                flight.sack(model.una + from, model.una + end, 1000, |_, len| told += len);
                let mut new = 0;
                for byte in &mut model.bytes[from as usize..end as usize] {
                    new += u32::from(!byte.is_sacked);
                    (byte.is_sacked, byte.is_lost, byte.is_out) = (true, false, false);
                }
                assert_eq!(told, new);
            }
            FlightStep::Lose(until, age) => {
                // By whole ranges, which share a time.
                let is_lost = |sent_at: u64| sent_at.saturating_add(age) <= at;
                let until = model.una + until.min(len);
                let mut told = 0;
                let bytes = flight.mark_lost(
                    until,
                    |_, sent| is_lost(sent.sent_at.as_micros()),
                    |_, len| told += len,
                );
                assert_eq!(bytes, told);
                let mut new = 0;
                let ends: Vec<(SeqNum, SeqNum)> =
                    flight.iter().map(|(start, sent)| (start, sent.end)).collect();
                for (start, end) in ends {
                    if !start.before(until) {
                        break;
                    }
                    let (a, b) = (start.since(model.una) as usize, end.since(model.una) as usize);
                    for byte in &mut model.bytes[a..b] {
                        if !byte.is_sacked && (!byte.is_lost || byte.is_out) && is_lost(byte.at) {
                            (byte.is_lost, byte.is_out) = (true, false);
                            new += 1;
                        }
                    }
                }
                assert_eq!(bytes, new);
            }
            FlightStep::Detect(ago, offset, due) => model.detect(&mut flight, at, ago, offset, due),
            FlightStep::LoseFirst(count) => {
                let count = count.min(len);
                flight.mark_first_lost(count);
                for byte in &mut model.bytes[..count as usize] {
                    if !byte.is_sacked {
                        (byte.is_lost, byte.is_out) = (true, false);
                    }
                }
            }
            FlightStep::Again(most) => {
                if let Some((seq, len)) = flight.next_lost(most) {
                    flight.on_retransmitted(seq, len, now, Snapshot::default());
                    let first = seq.since(model.una) as usize;
                    for byte in &mut model.bytes[first..first + len as usize] {
                        assert!(byte.is_lost && !byte.is_out && !byte.is_sacked);
                        (byte.at, byte.is_out, byte.is_repeated) = (at, true, true);
                    }
                }
            }
            FlightStep::ProbeTail(most) => {
                if let Some((seq, len)) = flight.last_unsacked(most) {
                    flight.on_retransmitted(seq, len, now, Snapshot::default());
                    let first = seq.since(model.una) as usize;
                    for byte in &mut model.bytes[first..first + len as usize] {
                        assert!(!byte.is_sacked);
                        (byte.at, byte.is_repeated) = (at, true);
                        byte.is_out |= byte.is_lost;
                    }
                }
            }
            FlightStep::Retract(count) => {
                let count = count.min(len);
                if count > 0 {
                    flight.retract(count);
                    model.bytes.truncate((len - count) as usize);
                }
            }
            FlightStep::Forget => {
                flight.forget_sacked();
                // What was SACKed has no history of its own any more: the model takes the flight's.
                let mut n = 0;
                for (start, sent) in flight.iter() {
                    for _ in 0..sent.end.since(start) {
                        let byte = &mut model.bytes[n];
                        if byte.is_sacked {
                            byte.is_sacked = false;
                            (byte.at, byte.is_repeated) = (sent.sent_at.as_micros(), sent.is_repeated);
                        }
                        n += 1;
                    }
                }
            }
            FlightStep::Unmark => {
                flight.unmark_lost();
                for byte in &mut model.bytes {
                    (byte.is_lost, byte.is_out) = (false, false);
                }
            }
            FlightStep::Sack(..) => {}
        }
        model.check(&mut flight);
    }
}
