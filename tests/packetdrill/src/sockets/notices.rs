//! A socket's error queue (`MSG_ERRQUEUE`): what zero-copy writes and time stamps of sent data tell the app.
//!
//! The stack copies what is written, so a zero-copy write is done with its bytes at once; scripts expect the notice when
//! Linux would give the pages back, which is when the peer has acknowledged them.

use std::collections::VecDeque;

use crate::call::Control;
use crate::watch::Flow;

// Of Linux's errqueue.h and net_tstamp.h.
const ORIGIN_TIMESTAMPING: u8 = 4;
const ORIGIN_ZEROCOPY: u8 = 5;
const ZEROCOPY_COPIED: u8 = 1;
const TX_SOFTWARE: i32 = 1 << 1;
const SOFTWARE: i32 = 1 << 4;
const OPT_ID: i32 = 1 << 7;
const TX_SCHED: i32 = 1 << 8;
const TX_ACK: i32 = 1 << 9;
/// What a time stamp is of (SCM_TSTAMP_*).
const SENT: u32 = 0;
const SCHEDULED: u32 = 1;
const ACKED: u32 = 2;

/// What the app can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Zero-copy writes with these numbers are done.
    ZeroCopy { first: u32, last: u32 },
    /// The byte with this key was sent, scheduled or acknowledged at this microsecond.
    Stamp { kind: u32, key: u32, at_us: u64 },
}

/// A write that is waited for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Where it ends in the stream.
    end: u32,
    zero_copy: Option<u32>,
    /// The stamps that are wanted (SOF_TIMESTAMPING_*), and the key of the last byte.
    stamps: i32,
    key: u32,
    was_sent: bool,
}

/// The queue, and the writes that will put something into it.
#[derive(Debug, Default)]
pub(super) struct Notices {
    queue: VecDeque<Notice>,
    pending: VecDeque<Pending>,
    /// Zero-copy writes so far.
    zero_copies: u32,
    /// Where keys of time stamps count from.
    pub(super) key_base: u32,
}

impl Notices {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A write ended at an offset of the stream.
    pub(super) fn wrote(&mut self, end: u32, is_zero_copy: bool, stamps: i32) {
        let zero_copy = is_zero_copy.then_some(self.zero_copies);
        self.zero_copies += u32::from(is_zero_copy);
        if is_zero_copy || stamps & (TX_SOFTWARE | TX_SCHED | TX_ACK) != 0 {
            let key = end.wrapping_sub(1).wrapping_sub(self.key_base);
            self.pending.push_back(Pending { end, zero_copy, stamps, key, was_sent: false });
        }
    }

    /// Looks at what has happened to the writes; whether there is something new to tell. `is_over`: the connection is.
    pub(super) fn refresh(&mut self, flow: Option<&Flow>, is_over: bool) -> bool {
        let reached = |offset: u32, end: u32| offset.wrapping_sub(end) as i32 >= 0;
        let mut stamps = Vec::new();
        let mut done = Vec::new();
        for pending in &mut self.pending {
            let at = |marks: &std::collections::BTreeMap<u32, u64>| {
                marks.range(pending.end..).next().map_or(0, |(_, at_us)| *at_us)
            };
            let key = if pending.stamps & OPT_ID != 0 { pending.key } else { 0 };
            if let Some(flow) = flow.filter(|flow| !pending.was_sent && reached(flow.sent, pending.end)) {
                pending.was_sent = true;
                let at_us = at(&flow.first_sent);
                for (flag, kind) in [(TX_SCHED, SCHEDULED), (TX_SOFTWARE, SENT)] {
                    if pending.stamps & flag != 0 && pending.stamps & SOFTWARE != 0 {
                        stamps.push(Notice::Stamp { kind, key, at_us });
                    }
                }
            }
            let is_acked = flow.is_some_and(|flow| reached(flow.acked, pending.end));
            if is_acked || is_over {
                if let Some(flow) = flow
                    && is_acked
                    && pending.stamps & TX_ACK != 0
                    && pending.stamps & SOFTWARE != 0
                {
                    stamps.push(Notice::Stamp { kind: ACKED, key, at_us: at(&flow.acked_at) });
                }
                done.extend(pending.zero_copy);
            }
        }
        let is_kept =
            |pending: &Pending| !is_over && !flow.is_some_and(|flow| reached(flow.acked, pending.end));
        self.pending.retain(is_kept);
        // In the order in which they happened; the sort keeps that of one moment.
        stamps.sort_by_key(|stamp| match stamp {
            Notice::Stamp { at_us, .. } => *at_us,
            Notice::ZeroCopy { .. } => 0,
        });
        let is_new = !stamps.is_empty() || !done.is_empty();
        self.queue.extend(stamps);
        for number in done {
            match self.queue.back_mut() {
                // Notices of writes in a row are one.
                Some(Notice::ZeroCopy { last, .. }) if last.wrapping_add(1) == number => *last = number,
                _ => self.queue.push_back(Notice::ZeroCopy { first: number, last: number }),
            }
        }
        is_new
    }

    /// The next notice as `recvmsg` gives it: control messages and flags.
    pub(super) fn take(&mut self, is_v6: bool) -> Option<(Vec<Control>, i32)> {
        let notice = self.queue.pop_front()?;
        Some(match notice {
            Notice::ZeroCopy { first, last } => {
                let error = extended_error(is_v6, 0, ORIGIN_ZEROCOPY, ZEROCOPY_COPIED, first, last);
                (vec![error], libc::MSG_ERRQUEUE)
            }
            Notice::Stamp { kind, key, at_us } => {
                // Three stamps, of which the first is that of software.
                let mut data = vec![0; 48];
                data[..8].copy_from_slice(&(at_us / 1_000_000).to_ne_bytes());
                data[8..16].copy_from_slice(&(at_us % 1_000_000 * 1000).to_ne_bytes());
                let stamp = Control { level: libc::SOL_SOCKET, kind: libc::SCM_TIMESTAMPING, data };
                // Cannot cut: errno values are small.
                let error = extended_error(is_v6, libc::ENOMSG as u32, ORIGIN_TIMESTAMPING, 0, kind, key);
                (vec![stamp, error], libc::MSG_ERRQUEUE | libc::MSG_TRUNC)
            }
        })
    }
}

/// A `struct sock_extended_err`, and room for an address that is none.
fn extended_error(is_v6: bool, errno: u32, origin: u8, code: u8, info: u32, data: u32) -> Control {
    let mut bytes = errno.to_ne_bytes().to_vec();
    bytes.extend([origin, 0, code, 0]);
    bytes.extend(info.to_ne_bytes());
    bytes.extend(data.to_ne_bytes());
    let (level, kind, addr) = if is_v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, size_of::<libc::sockaddr_in6>())
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR, size_of::<libc::sockaddr_in>())
    };
    bytes.resize(bytes.len() + addr, 0);
    Control { level, kind, data: bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(control: &[Control]) -> (u32, u32) {
        let data = &control.last().unwrap().data;
        let at = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
        (at(8), at(12))
    }

    #[test]
    fn zero_copy_writes_in_a_row_make_one_notice_when_acknowledged() {
        let mut notices = Notices::default();
        for end in [1000, 2000, 3000] {
            notices.wrote(end, true, 0);
        }
        let mut flow = Flow::at(3000, 999);
        assert!(!notices.refresh(Some(&flow), false));
        flow.acked = 2000;
        assert!(notices.refresh(Some(&flow), false));
        assert!(!notices.refresh(Some(&flow), false), "told once");
        let (control, flags) = notices.take(false).unwrap();
        assert_eq!((numbers(&control), flags, control.len()), ((0, 1), libc::MSG_ERRQUEUE, 1));
        assert!(notices.take(false).is_none());
        assert!(notices.refresh(None, true), "the end gives the pages back");
        assert_eq!(numbers(&notices.take(true).unwrap().0), (2, 2));
    }

    #[test]
    fn stamps_come_in_the_order_of_time_with_the_last_bytes_key() {
        let mut notices = Notices { key_base: 100, ..Notices::default() };
        let all = TX_SCHED | TX_SOFTWARE | TX_ACK | SOFTWARE | OPT_ID;
        notices.wrote(1100, false, all);
        let mut flow = Flow::at(1100, 0);
        flow.first_sent.extend([(600, 5), (1100, 1_000_007)]);
        assert!(notices.refresh(Some(&flow), false));
        flow.acked = 1100;
        flow.acked_at.insert(1100, 2_000_000);
        assert!(notices.refresh(Some(&flow), false));
        let told = [(); 3].map(|()| notices.take(false).unwrap().0);
        assert_eq!(told.each_ref().map(|control| numbers(control)), [(1, 999), (0, 999), (2, 999)]);
        let nanoseconds = u64::from_ne_bytes(told[0][0].data[8..16].try_into().unwrap());
        assert_eq!(nanoseconds, 7000);
    }
}
