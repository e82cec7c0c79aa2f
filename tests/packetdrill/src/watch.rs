//! What the adapter learns of a connection by watching its packets: counts and times for `TCP_INFO`, and PSH.
//!
//! **PSH.** RFC 9293 (§3.9.1.2, MUST-61) asks for PSH on the last segment of what was queued. Linux sets it where its
//! send buffers end, and scripts that were written on Linux expect it there: at the end of each write, and inside a
//! long write after each half of the peer's window. Which segments end there depends on how bytes fell into buffers,
//! which is no behaviour of a TCP. So in profile `linux` PSH of outgoing data is put where Linux's buffers would have
//! it, computed from the script's writes ([`Flow::wrote`]); `psh=exact` leaves it as the stack set it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use hoststack_wire::{Flags, IpProtocol, Segment, SegmentHeader, SeqNum, ipv4, ipv6, tcp};

/// Linux's largest segment before it is cut (GSO_MAX_SIZE, less the largest header).
const BUFFER_MAX: u32 = 65_536 - 1 - 320;
/// Linux's MSS when the peer names none.
const MSS_DEFAULT: u32 = 536;

/// Both ends of a connection: ours, the peer's.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// The connections of a run.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    flows: BTreeMap<Ends, Flow>,
    /// PSH is put where Linux has it.
    pub(crate) moves_push: bool,
    /// What an MTU leaves for an IPv4 segment's payload.
    pub(crate) mss_v4: u32,
}

/// One connection. Offsets count the bytes of a stream from 0; they wrap like sequence numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    iss: Option<SeqNum>,
    irs: Option<SeqNum>,
    /// The furthest offset sent, and acknowledged.
    pub(crate) sent: u32,
    pub(crate) acked: u32,
    /// What the script has written, and where the buffer begins that more could join.
    written: u32,
    buffer_start: u32,
    /// Nothing may join the last buffer (MSG_EOR).
    is_closed: bool,
    /// Offsets at which PSH is due.
    pushes: BTreeSet<u32>,
    pushed: u32,
    /// The peer's shift, its largest window, its MSS, and whether timestamps are in use.
    scale: Option<u8>,
    our_scale: bool,
    window_max: u32,
    pub(crate) peer_mss: Option<u16>,
    has_timestamps: bool,
    /// MSS that we announced.
    pub(crate) our_mss: Option<u16>,
    // Counts and times for TCP_INFO.
    pub(crate) segments_out: u32,
    pub(crate) segments_in: u32,
    pub(crate) data_segments_out: u32,
    pub(crate) data_segments_in: u32,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_again: u64,
    pub(crate) segments_again: u32,
    pub(crate) out_of_order: u32,
    received: u32,
    pub(crate) last_data_sent_us: u64,
    pub(crate) last_data_received_us: u64,
    pub(crate) last_ack_received_us: u64,
    /// The largest payload that came.
    pub(crate) segment_in_max: u32,
    /// The peer's window now.
    pub(crate) window: u32,
    /// When each end of sent data was sent first, for time stamps: offset, microsecond.
    pub(crate) first_sent: BTreeMap<u32, u64>,
    /// When what was acknowledged was: offset, microsecond.
    pub(crate) acked_at: BTreeMap<u32, u64>,
}

/// A TCP packet's ends and header, and where the TCP header starts.
struct Seen {
    src: SocketAddr,
    dst: SocketAddr,
    header: SegmentHeader,
    payload: u32,
    at: usize,
}

fn look(packet: &[u8]) -> Option<Seen> {
    let (src, dst, bytes): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let (header, payload) = ipv4::Header::parse(packet).ok()?;
            if header.protocol != IpProtocol::TCP {
                return None;
            }
            (header.src.into(), header.dst.into(), payload)
        }
        _ => {
            let (header, payload) = ipv6::Header::parse(packet).ok()?;
            if header.next_header != IpProtocol::TCP {
                return None;
            }
            (header.src.into(), header.dst.into(), payload)
        }
    };
    let segment = Segment::parse(bytes).ok()?;
    let header = segment.header;
    Some(Seen {
        src: SocketAddr::new(src, header.src_port),
        dst: SocketAddr::new(dst, header.dst_port),
        // Cannot cut: a packet is at most 64 KiB.
        payload: segment.payload.len() as u32,
        at: packet.len() - bytes.len(),
        header,
    })
}

impl Watch {
    pub(crate) fn flow(&self, ends: &Ends) -> Option<&Flow> {
        self.flows.get(ends)
    }

    /// The connection between two ends, as new if it was not seen.
    pub(crate) fn flow_mut(&mut self, ends: Ends) -> &mut Flow {
        self.flows.entry(ends).or_default()
    }

    /// The script wrote `count` bytes in one go.
    pub(crate) fn wrote(&mut self, ends: Ends, count: usize, more: bool, eor: bool) {
        let mss_v4 = self.mss_v4;
        let flow = self.flow_mut(ends);
        let limit = if ends.0.is_ipv4() { mss_v4 } else { mss_v4.saturating_sub(20) };
        // Cannot cut: a write is at most 1 GiB.
        flow.wrote(count as u32, limit, more, eor);
    }

    /// A packet of the peer goes to the stack.
    pub(crate) fn on_receive(&mut self, packet: &[u8], now_us: u64) {
        let Some(seen) = look(packet) else { return };
        let Seen { src, dst, header, payload, .. } = seen;
        if header.flags.has(Flags::SYN) && !header.flags.has(Flags::ACK) {
            // A new connection, unless it is the SYN of one that we are opening.
            let is_ours = self.flow(&(dst, src)).is_some_and(|flow| flow.iss.is_some() && flow.irs.is_none());
            if !is_ours {
                self.flows.insert((dst, src), Flow::default());
            }
        }
        self.flow_mut((dst, src)).on_receive(&header, payload, now_us);
    }

    /// A packet of the stack goes to the peer: sets PSH.
    pub(crate) fn on_send(&mut self, packet: &mut [u8], now_us: u64) {
        let Some(seen) = look(packet) else { return };
        let Seen { src, dst, header, payload, at } = seen;
        let moves_push = self.moves_push;
        if header.flags.has(Flags::SYN) && !header.flags.has(Flags::ACK) {
            let known = self.flow(&(src, dst)).and_then(|flow| flow.iss);
            if known.is_some_and(|iss| iss != header.seq) {
                self.flows.insert((src, dst), Flow::default());
            }
        }
        let is_push = self.flow_mut((src, dst)).on_send(&header, payload, now_us);
        // What the script did not write through us is not ours to judge.
        if !moves_push || payload == 0 || is_push == header.flags.has(Flags::PSH) {
            return;
        }
        let segment = &mut packet[at..];
        // PSH is bit 3 of the fourteenth byte (RFC 9293 §3.1).
        segment[13] ^= 0x08;
        tcp::set_checksum(src.ip(), dst.ip(), segment);
    }
}

/// `a` is before `b`, for offsets that wrap.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Flow {
    fn mss(&self, limit: u32) -> u32 {
        let peer = self.peer_mss.map_or(MSS_DEFAULT, u32::from);
        // The timestamps option takes 12 bytes of each segment.
        peer.min(limit).saturating_sub(if self.has_timestamps { 12 } else { 0 }).max(1)
    }

    /// How much a send buffer of Linux takes: whole segments, no more than half of the largest window seen.
    fn buffer_size(&self, limit: u32) -> u32 {
        let mss = self.mss(limit);
        let half = if self.window_max > MSS_DEFAULT { self.window_max >> 1 } else { self.window_max };
        let most = if half > 0 { BUFFER_MAX.min(half.max(48)) } else { BUFFER_MAX };
        (most / mss * mss).max(mss)
    }

    /// Puts `count` bytes into buffers as Linux would, and marks the ends that are pushed.
    fn wrote(&mut self, count: u32, limit: u32, more: bool, eor: bool) {
        if count == 0 {
            return;
        }
        let size = self.buffer_size(limit);
        // The last buffer takes more while it is not sent; what is sent of it was cut off.
        let is_open = is_before(self.sent, self.written) && !self.is_closed;
        if is_open && is_before(self.buffer_start, self.sent) {
            self.buffer_start = self.sent;
        }
        if !is_open || self.written.wrapping_sub(self.buffer_start) >= size {
            self.buffer_start = self.written;
        } else {
            self.pushes.remove(&self.written);
        }
        let end = self.written.wrapping_add(count);
        loop {
            let room = size - self.written.wrapping_sub(self.buffer_start);
            let step = end.wrapping_sub(self.written).min(room);
            self.written = self.written.wrapping_add(step);
            let is_full = step == room;
            let is_end = self.written == end;
            let is_due = self.written.wrapping_sub(self.pushed) > self.window_max >> 1;
            if (is_full && is_due) || (is_end && (!more || is_due)) {
                self.pushes.insert(self.written);
                self.pushed = self.written;
            }
            if is_end {
                break;
            }
            self.buffer_start = self.written;
        }
        self.is_closed = eor;
    }

    fn on_receive(&mut self, header: &SegmentHeader, payload: u32, now_us: u64) {
        let flags = header.flags;
        self.segments_in += 1;
        let mut window = u32::from(header.wnd);
        if flags.has(Flags::SYN) {
            self.irs = Some(header.seq);
            self.received = 0;
            self.peer_mss = header.options.mss;
            self.scale = header.options.window_scale;
            if !flags.has(Flags::ACK) {
                self.has_timestamps = header.options.timestamps.is_some();
            } else {
                self.has_timestamps &= header.options.timestamps.is_some();
            }
        } else if self.our_scale {
            window <<= self.scale.unwrap_or(0).min(14);
        }
        self.window = window;
        self.window_max = self.window_max.max(window);
        if payload > 0 && !flags.has(Flags::SYN) {
            self.data_segments_in += 1;
            self.last_data_received_us = now_us;
            self.segment_in_max = self.segment_in_max.max(payload);
            if let Some(irs) = self.irs {
                let start = header.seq.0.wrapping_sub(irs.0).wrapping_sub(1);
                let end = start.wrapping_add(payload);
                if is_before(self.received, start) {
                    self.out_of_order += 1;
                } else if is_before(self.received, end) {
                    self.received = end;
                }
            }
        }
        if flags.has(Flags::ACK) && let Some(iss) = self.iss {
            self.last_ack_received_us = now_us;
            let acked = header.ack.0.wrapping_sub(iss.0).wrapping_sub(1);
            if is_before(self.acked, acked) && !is_before(self.sent, acked) {
                self.acked = acked;
                self.acked_at.insert(acked, now_us);
            }
        }
    }

    /// Takes note of a segment that is sent; whether it ends where PSH is due.
    fn on_send(&mut self, header: &SegmentHeader, payload: u32, now_us: u64) -> bool {
        let flags = header.flags;
        if flags.has(Flags::RST) {
            return false;
        }
        self.segments_out += 1;
        if flags.has(Flags::SYN) {
            self.iss = Some(header.seq);
            self.our_scale = header.options.window_scale.is_some();
            self.our_mss = header.options.mss;
            if !flags.has(Flags::ACK) {
                self.has_timestamps = header.options.timestamps.is_some();
            }
        }
        let Some(iss) = self.iss.filter(|_| payload > 0) else { return false };
        // The SYN takes the number before offset 0, and data may follow in it.
        let start = header.seq.0.wrapping_sub(iss.0).wrapping_sub(u32::from(!flags.has(Flags::SYN)));
        let end = start.wrapping_add(payload);
        self.data_segments_out += 1;
        self.bytes_sent += u64::from(payload);
        self.last_data_sent_us = now_us;
        if is_before(start, self.sent) {
            let again = self.sent.wrapping_sub(start).min(payload);
            self.bytes_again += u64::from(again);
            self.segments_again += 1;
        }
        if is_before(self.sent, end) {
            self.sent = end;
            self.first_sent.insert(end, now_us);
        }
        self.pushes.contains(&end)
    }

    /// Bytes written and not sent.
    pub(crate) fn unsent(&self) -> u32 {
        self.written.wrapping_sub(self.sent)
    }

    /// Bytes written in all.
    pub(crate) fn written(&self) -> u32 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(window: u32) -> Flow {
        Flow { window_max: window, peer_mss: Some(1000), ..Flow::default() }
    }

    fn pushes(flow: &Flow) -> Vec<u32> {
        flow.pushes.iter().copied().collect()
    }

    #[test]
    fn each_write_that_was_sent_ends_with_a_push() {
        let mut flow = flow(32_000);
        flow.wrote(1500, 1460, false, false);
        flow.sent = 1500;
        flow.wrote(1000, 1460, false, false);
        assert_eq!(pushes(&flow), [1500, 2500]);
        // What is not sent yet takes more.
        flow.wrote(200, 1460, false, false);
        assert_eq!(pushes(&flow), [1500, 2700]);
    }

    #[test]
    fn a_long_write_is_pushed_after_half_a_window() {
        let mut flow = flow(32_000);
        flow.wrote(100_000, 1460, false, false);
        // Buffers of 16000; the second goes beyond half of the window.
        assert_eq!(pushes(&flow), [32_000, 64_000, 96_000, 100_000]);
    }

    #[test]
    fn more_to_come_is_not_pushed_and_nothing_joins_an_end_of_record() {
        let mut flow = flow(32_000);
        flow.wrote(100, 1460, true, false);
        assert_eq!(pushes(&flow), []);
        flow.wrote(100, 1460, false, true);
        flow.wrote(100, 1460, false, false);
        assert_eq!(pushes(&flow), [200, 300]);
    }

    #[test]
    fn a_write_joins_only_what_is_left_of_a_buffer() {
        let mut flow = flow(4000);
        flow.wrote(2000, 1460, false, false);
        flow.sent = 1000;
        // Of the first buffer a thousand bytes wait: it takes a thousand more.
        flow.wrote(1500, 1460, false, false);
        assert_eq!(pushes(&flow), [3500]);
        flow.sent = 3500;
        flow.wrote(10, 1460, false, false);
        assert_eq!(pushes(&flow), [3500, 3510]);
    }
}
