//! TIME-WAIT in 64 bytes a flow: what it takes to answer old duplicates, and to tell a new SYN from one.
//!
//! All records wait equally long, so a queue in order of entry is their timer.

use alloc::collections::VecDeque;

use hoststack_transport::{Duration, FlowKey, Instant, Key, Pool, Usage};
use hoststack_wire::{Flags, Options, SegmentHeader, SeqNum, Timestamps};

use crate::config::TcpConfig;
use crate::connection::Connection;
use crate::isn::{Secrets, timestamp_clock};

/// A connection that is over: the peer may not know it yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) flow: FlowKey,
    /// Our last sequence number plus one.
    pub(crate) snd_nxt: SeqNum,
    /// The peer's last sequence number plus one.
    pub(crate) rcv_nxt: SeqNum,
    /// TS.Recent.
    pub(crate) ts_recent: u32,
    /// When it ends, in milliseconds (modulo 2^32) since the epoch.
    ends_ms: u32,
    /// The window field that its ACKs carry.
    pub(crate) wnd: u16,
    /// [`TIMESTAMPS`], [`ACTIVE_OPEN`].
    flags: u8,
    /// Milliseconds by which the connection's timestamps were ahead of the clock, because main's clock was ahead of the
    /// worker's when it sent the SYN.
    ts_ahead: u8,
}

/// Timestamps were negotiated.
const TIMESTAMPS: u8 = 1;
/// Main chose the 4-tuple and is told when the flow is gone.
const ACTIVE_OPEN: u8 = 2;

const _: () = assert!(size_of::<TimeWait>() <= 64);

/// What TIME-WAIT makes of a segment (RFC 9293 §3.10.7.4, RFC 6191).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitVerdict {
    /// A SYN that cannot be an old duplicate: a new connection may begin.
    Reuse,
    /// Answer with an ACK and wait 2 MSL anew: the peer sent its FIN again.
    AckAndRestart,
    /// Answer with an ACK.
    Ack,
    /// A reset: ignored (RFC 1337 fix 1).
    IgnoreReset,
    /// Drop it.
    Drop,
}

impl TimeWait {
    /// What is left of a connection.
    pub(crate) fn of(connection: &Connection, secrets: &Secrets) -> TimeWait {
        let ahead = connection.ts.offset.wrapping_sub(secrets.timestamp_offset(&connection.flow));
        TimeWait {
            flow: connection.flow,
            snd_nxt: connection.snd.nxt,
            rcv_nxt: connection.rcv.nxt,
            ts_recent: connection.ts.recent,
            ends_ms: 0,
            wnd: u16::try_from(connection.rcv_wnd() >> connection.rcv_scale).unwrap_or(u16::MAX),
            flags: if connection.has_timestamps { TIMESTAMPS } else { 0 }
                | if connection.is_active_open { ACTIVE_OPEN } else { 0 },
            ts_ahead: if connection.has_timestamps { u8::try_from(ahead).unwrap_or(u8::MAX) } else { 0 },
        }
    }

    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>.
    pub(crate) fn ack(&self, now: Instant, secrets: &Secrets) -> SegmentHeader {
        SegmentHeader {
            src_port: self.flow.local.port,
            dst_port: self.flow.remote.port,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            wnd: self.wnd,
            urgent: 0,
            options: Options {
                timestamps: self.has(TIMESTAMPS).then(|| Timestamps {
                    val: timestamp_clock(now, secrets.timestamp_offset(&self.flow))
                        .wrapping_add(u32::from(self.ts_ahead)),
                    ecr: self.ts_recent,
                }),
                ..Options::default()
            },
        }
    }

    pub(crate) fn judge(&self, header: &SegmentHeader, payload_len: usize) -> TimeWaitVerdict {
        let flags = header.flags;
        // Deviates: RFC 9293 §3.10.7.4 (second) ends TIME-WAIT upon a reset: that is TIME-WAIT assassination, which RFC 1337
        // §3 (fix 1) prevents by ignoring it.
        if flags.has(Flags::RST) {
            return TimeWaitVerdict::IgnoreReset;
        }
        if flags.has(Flags::SYN) && !flags.has(Flags::ACK) && self.may_reopen(header) {
            return TimeWaitVerdict::Reuse;
        }
        // The retransmitted FIN ends at RCV.NXT; only that starts 2 MSL anew (RFC 9293 §3.6.1, MUST-13).
        let len = payload_len as u32 + u32::from(flags.has(Flags::FIN));
        if flags.has(Flags::FIN) && header.seq + len == self.rcv_nxt {
            return TimeWaitVerdict::AckAndRestart;
        }
        // Anything else is outside a window that no longer exists: an ACK tells the peer so.
        // Deviates: RFC 9293 §3.10.7.4 answers a segment that takes no sequence number, too. The peer has closed and
        // needs no such answer; in SYN-RECEIVED (an old SYN came to its listener) it would answer ours, for ever.
        if len == 0 && !flags.has(Flags::SYN) {
            return TimeWaitVerdict::Drop;
        }
        TimeWaitVerdict::Ack
    }

    /// RFC 9293 §3.6.1 (MAY-2, SHLD-4), RFC 6191 §2: by the timestamps where both incarnations have them, by the sequence number otherwise.
    fn may_reopen(&self, header: &SegmentHeader) -> bool {
        let seq_is_new = header.seq.after(self.rcv_nxt);
        match header.options.timestamps {
            Some(ts) if self.has(TIMESTAMPS) => {
                is_later(ts.val, self.ts_recent) || (ts.val == self.ts_recent && seq_is_new)
            }
            // The peer uses timestamps only now: a clock that an old duplicate cannot have.
            Some(_) => true,
            None => seq_is_new,
        }
    }

    /// Whether our own new SYN may take the flow (RFC 6191 §4; RFC 9293 §3.4.2): its ISS is beyond all we sent, or
    /// both incarnations have timestamps and the clock has ticked since TIME-WAIT, which lasts `time_wait`, began.
    pub(crate) fn may_be_opened(&self, syn: &SegmentHeader, time_wait: Duration, secrets: &Secrets) -> bool {
        let ticked = |ts: Timestamps| {
            let began_ms = self.ends_ms.wrapping_sub(time_wait.as_micros().div_euclid(1000) as u32);
            let last = began_ms.wrapping_add(secrets.timestamp_offset(&self.flow));
            self.has(TIMESTAMPS) && is_later(ts.val, last.wrapping_add(u32::from(self.ts_ahead)))
        };
        syn.seq.after(self.snd_nxt) || syn.options.timestamps.is_some_and(ticked)
    }

    pub(crate) fn is_active_open(&self) -> bool {
        self.has(ACTIVE_OPEN)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Whether one timestamp value is after another on the circle (RFC 7323 §5.2).
fn is_later(ts: u32, than: u32) -> bool {
    ts.wrapping_sub(than) as i32 > 0
}

/// All TIME-WAIT records of a worker.
pub(crate) struct TimeWaits {
    pool: Pool<TimeWait>,
    /// In order of entry; a key whose record is gone or was restarted is skipped.
    queue: VecDeque<(Instant, Key)>,
}

impl TimeWaits {
    pub(crate) fn new(config: &TcpConfig) -> TimeWaits {
        TimeWaits { pool: Pool::new(config.time_wait_max.max(1)), queue: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }

    /// One past the highest slot ever used.
    pub(crate) fn slot_end(&self) -> u32 {
        self.pool.slot_end()
    }

    /// What it holds; the bytes include the queue.
    pub(crate) fn usage(&self) -> Usage {
        let usage = self.pool.usage();
        let queue = self.queue.capacity() * size_of::<(Instant, Key)>();
        Usage { held_bytes: usage.held_bytes + queue, ..usage }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&TimeWait> {
        self.pool.get(key)
    }

    /// The record in a slot, for the flow table.
    #[inline]
    pub(crate) fn at_slot(&self, slot: u32) -> Option<(Key, &TimeWait)> {
        self.pool.at_slot(slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &TimeWait)> {
        self.pool.iter()
    }

    /// Puts a record in; the caller made room with [`TimeWaits::take_oldest`].
    pub(crate) fn insert(&mut self, mut record: TimeWait, ends: Instant) -> Key {
        record.ends_ms = millis(ends);
        let Ok(key) = self.pool.insert(record) else {
            unreachable!("the caller took the oldest out of a full pool")
        };
        self.queue.push_back((ends, key));
        key
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pool.is_full()
    }

    /// 2 MSL begin anew.
    pub(crate) fn restart(&mut self, key: Key, ends: Instant) {
        // An entry a second at most, so that a flood of FINs does not grow the queue.
        if let Some(record) = self.pool.get_mut(key)
            && millis(ends).wrapping_sub(record.ends_ms) >= 1000
        {
            record.ends_ms = millis(ends);
            self.queue.push_back((ends, key));
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<TimeWait> {
        self.pool.remove(key)
    }

    /// Takes the record out that has waited longest.
    pub(crate) fn take_oldest(&mut self) -> Option<(Key, TimeWait)> {
        while let Some((_, key)) = self.queue.pop_front() {
            if let Some(record) = self.pool.remove(key) {
                return Some((key, record));
            }
        }
        None
    }

    /// Takes out one record whose time is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<(Key, TimeWait)> {
        while let Some(&(at, key)) = self.queue.front() {
            let ends_ms = self.pool.get(key).map(|record| record.ends_ms);
            match ends_ms {
                Some(_) if at > now => return None,
                Some(ends_ms) if ends_ms == millis(at) => {
                    self.queue.pop_front();
                    return self.pool.remove(key).map(|record| (key, record));
                }
                // Gone, or restarted: another entry stands for it further back.
                _ => {
                    self.queue.pop_front();
                }
            }
        }
        None
    }

    /// When the next record may be over.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|&(at, _)| at)
    }
}

fn millis(at: Instant) -> u32 {
    at.as_millis() as u32 // a distance below 2^32 ms is all that is taken of it
}
