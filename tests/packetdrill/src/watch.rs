//! What the adapter learns of a connection by watching its packets: counts and times for `TCP_INFO`, and PSH.
//!
//! **PSH.** RFC 9293 (§3.9.1.2, MUST-61) asks for PSH on the last segment of what was queued. Linux sets it where its
//! send buffers end, and scripts that were written on Linux expect it there: at the end of each write, inside a long
//! write after each half of the peer's window, and at the end of each group of segments that was cut from one buffer
//! at once (its segmentation offload). Which segments end there depends on how bytes fell into buffers, which is no
//! behaviour of a TCP. So in profile `linux` PSH of outgoing data is put where Linux would have it, computed from the
//! script's writes ([`Watch::wrote`]) and from what was sent together ([`Watch::push`]); `psh=exact` leaves it as the
//! stack set it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use hoststack_wire::{Flags, IpProtocol, Segment, SegmentHeader, SeqNum, ipv4, ipv6, tcp};

/// Linux's largest segment before it is cut (GSO_MAX_SIZE, less the largest header).
const BUFFER_MAX: u32 = 65_536 - 1 - 320;
/// What Linux accounts for a buffer besides its data: about that much. Its structures differ between versions, and scripts that
/// fill a send buffer leave room for 550 to 660.
const BUFFER_COST: u32 = 640;
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
    /// `tcp_min_tso_segs`.
    pub(crate) group_min: u32,
    /// Peers that answered a SYN with the fast open option or data: their MSS, and whether they gave a cookie.
    servers: BTreeMap<IpAddr, (u32, bool)>,
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
    /// Offsets at which PSH is due, and at which buffers end.
    pushes: BTreeSet<u32>,
    ends: BTreeSet<u32>,
    /// The ends of all buffers that are not acknowledged.
    buffers: VecDeque<u32>,
    is_push_due: bool,
    /// Where the SYN's data end, and where segments end that carried some of it again and are not acknowledged.
    syn_data_end: u32,
    pub(crate) syn_data_again: Vec<u32>,
    /// The congestion window when the last segments were sent; 0: not known.
    pub(crate) cwnd: u32,
    /// Selectively acknowledged bytes, as the last acknowledgment told.
    sacked: u32,
    /// Smoothed and least round trip, in microseconds; 0 before the first.
    srtt_us: u64,
    rtt_min_us: u64,
    syn_sent_us: u64,
    pushed: u32,
    /// Segments of the group that is being sent, how many it will have, and how long its first is.
    group: (u32, u32, u32),
    /// The least length of a group that pacing leaves (`tcp_min_tso_segs`); 0: Linux's default of 2.
    group_min: u32,
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
    limits: Limits,
    limits_since_us: u64,
    /// The script waits for room in the send buffer.
    pub(crate) is_full: bool,
    /// When each end of sent data was sent first, for time stamps: offset, microsecond.
    pub(crate) first_sent: BTreeMap<u32, u64>,
    /// When what was acknowledged was: offset, microsecond.
    pub(crate) acked_at: BTreeMap<u32, u64>,
}

/// A write of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) now_us: u64,
    /// How many bytes it would write.
    pub(crate) want: u32,
    /// MSG_MORE, MSG_EOR.
    pub(crate) more: bool,
    pub(crate) eor: bool,
    /// The send buffer, and how much may be unsent.
    pub(crate) sndbuf: u32,
    pub(crate) lowat: u32,
    /// The congestion window, in bytes.
    pub(crate) cwnd: u32,
}

/// How long a connection had data to send, and what kept it from sending (tcpi_busy_time and its kin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Something was not acknowledged.
    pub(crate) busy_us: u64,
    /// The peer's window was full.
    pub(crate) window_us: u64,
    /// All was sent, and the script waited for room.
    pub(crate) buffer_us: u64,
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

/// Whether the options of a segment have a fast open cookie (RFC 7413 §4.1.1, and the experimental kind before it).
fn has_cookie(segment: &[u8]) -> bool {
    let header_len = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    let mut options = segment.get(20..header_len).unwrap_or(&[]);
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => return false,
            (1, _) => options = rest,
            (34, [len, ..]) if *len > 2 => return true,
            (254, [len, 0xf9, 0x89, ..]) if *len > 4 => return true,
            (_, [len, ..]) if *len >= 2 => options = options.get(usize::from(*len)..).unwrap_or(&[]),
            _ => return false,
        }
    }
    false
}

impl Watch {
    /// How many bytes fit into a SYN to a peer, if it gave a cookie; `any`: even if not. `limit`: that of the socket.
    pub(crate) fn early_room(&self, remote: IpAddr, limit: Option<u16>, any: bool) -> Option<usize> {
        let most = if remote.is_ipv4() { self.mss_v4 } else { self.mss_v4.saturating_sub(20) };
        let most = most.min(limit.map_or(u32::MAX, u32::from));
        let known = self.servers.get(&remote).filter(|(_, has_cookie)| *has_cookie || any);
        let mss = known.map(|(mss, _)| *mss).or(any.then_some(most))?;
        // Linux leaves room for all options that there can be.
        Some(mss.min(most).saturating_sub(40) as usize)
    }

    /// Forgets all cookies.
    pub(crate) fn forget_cookies(&mut self) {
        self.servers.clear();
    }

    pub(crate) fn flow(&self, ends: &Ends) -> Option<&Flow> {
        self.flows.get(ends)
    }

    /// The connection between two ends, as new if it was not seen.
    pub(crate) fn flow_mut(&mut self, ends: Ends) -> &mut Flow {
        self.flows.entry(ends).or_default()
    }

    /// The script writes: how many of `write.want` bytes Linux's send buffer would take, and takes note of them.
    pub(crate) fn wrote(&mut self, ends: Ends, write: &Write) -> u32 {
        let mss_v4 = self.mss_v4;
        let flow = self.flow_mut(ends);
        let limit = if ends.0.is_ipv4() { mss_v4 } else { mss_v4.saturating_sub(20) };
        flow.pass_time(write.now_us);
        let taken = flow.fill(write, limit);
        flow.is_full = taken < write.want;
        taken
    }

    /// A packet of the peer goes to the stack.
    pub(crate) fn on_receive(&mut self, packet: &[u8], now_us: u64) {
        let Some(seen) = look(packet) else { return };
        let Seen { src, dst, header, payload, at } = seen;
        if header.flags.has(Flags::SYN) && !header.flags.has(Flags::ACK) {
            // A new connection, unless it is the SYN of one that we are opening.
            let is_ours = self.flow(&(dst, src)).is_some_and(|flow| flow.iss.is_some() && flow.irs.is_none());
            if !is_ours {
                self.flows.insert((dst, src), Flow::default());
            }
        }
        // One that acknowledges what was never sent belongs to nobody.
        let is_answer = self.flow(&(dst, src)).is_some_and(|flow| {
            let acked = flow.iss.map(|iss| header.ack.0.wrapping_sub(iss.0).wrapping_sub(1));
            acked.is_some_and(|acked| !is_before(flow.sent, acked))
        });
        if header.flags.has(Flags::SYN) && header.flags.has(Flags::ACK) && is_answer {
            let mss = header.options.mss.map_or(MSS_DEFAULT, u32::from);
            let server = self.servers.entry(src.ip()).or_default();
            *server = (mss, server.1 || has_cookie(&packet[at..]));
        }
        self.flow_mut((dst, src)).on_receive(&header, payload, now_us);
    }

    /// A packet of the stack goes to the peer.
    pub(crate) fn on_send(&mut self, packet: &[u8], now_us: u64) -> Option<Data> {
        let Seen { src, dst, header, payload, .. } = look(packet)?;
        if header.flags.has(Flags::SYN) && !header.flags.has(Flags::ACK) {
            let known = self.flow(&(src, dst)).and_then(|flow| flow.iss);
            if known.is_some_and(|iss| iss != header.seq) {
                self.flows.insert((src, dst), Flow::default());
            }
        }
        let (end, is_new) = self.flow_mut((src, dst)).on_send(&header, payload, now_us)?;
        Some(Data { ends: (src, dst), end, len: payload, is_new })
    }

    /// Which of the segments that were sent at once, of whatever connections, have PSH.
    pub(crate) fn push(&mut self, sent: &[Data]) -> Vec<bool> {
        let mut pushed = vec![false; sent.len()];
        if !self.moves_push {
            return pushed;
        }
        for (number, data) in sent.iter().enumerate() {
            let group_min = self.group_min;
            let Some(flow) = self.flows.get_mut(&data.ends) else { continue };
            let rest = sent[number + 1..].iter().find(|other| other.ends == data.ends && other.is_new);
            // What is sent again is cut anew: only the ends of writes keep PSH.
            flow.group_min = group_min;
            let ends_group = data.is_new && {
                let left = sent[number + 1..].iter().filter(|other| other.ends == data.ends && other.is_new);
                // Cannot cut: what is sent at once is at most some dozens of segments.
                flow.group(data, rest.is_some(), left.count() as u32)
            };
            pushed[number] = ends_group || flow.pushes.contains(&data.end);
        }
        pushed
    }
}

/// A segment with data that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data {
    ends: Ends,
    /// Where it ends in its stream.
    end: u32,
    len: u32,
    /// For the first time.
    is_new: bool,
}

/// Sets or clears PSH of a packet with TCP data.
pub(crate) fn set_push(packet: &mut [u8], is_push: bool) {
    let Some(Seen { src, dst, header, at, .. }) = look(packet) else { return };
    if is_push == header.flags.has(Flags::PSH) {
        return;
    }
    let segment = &mut packet[at..];
    // PSH is bit 3 of the fourteenth byte (RFC 9293 §3.1).
    segment[13] ^= 0x08;
    tcp::set_checksum(src.ip(), dst.ip(), segment);
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

    /// What the bytes that were written and not acknowledged cost, with what each buffer costs by itself.
    fn memory(&self) -> u32 {
        let buffers = self.buffers.iter().filter(|end| is_before(self.acked, **end)).count();
        // Cannot cut: a run has some thousands of buffers.
        self.written.wrapping_sub(self.acked) + BUFFER_COST * buffers as u32
    }

    /// The send buffer that Linux would make for a congestion window, unless it is full or the script set one: room for
    /// two windows of segments with what they cost (`tcp_sndbuf_expand`).
    pub(crate) fn expanded_sndbuf(&self, cwnd: u32, mss: u32) -> u32 {
        let flight = self.sent.wrapping_sub(self.acked).saturating_sub(self.sacked).div_ceil(mss);
        let segments = cwnd / mss;
        if flight >= segments {
            return 0;
        }
        // A segment, its headers and its description, rounded to what is allocated.
        let cost = (mss + 640).next_power_of_two() + 256;
        2 * segments.max(10) * cost
    }

    /// Whether a writer is woken: a third of the buffer is free, and less than half of the threshold is unsent.
    pub(crate) fn is_writable(&self, sndbuf: u32, lowat: u32) -> bool {
        let memory = self.memory();
        sndbuf.saturating_sub(memory) >= memory / 2
            && memory < sndbuf
            && u64::from(self.unsent()) * 2 < u64::from(lowat)
    }

    /// Puts bytes into buffers as Linux would, marks the ends that are pushed, and tells how many there was room for.
    ///
    /// A buffer that is full is sent at once, as far as the windows let it, and what is left of it takes more.
    fn fill(&mut self, write: &Write, limit: u32) -> u32 {
        let Write { want, more, eor, sndbuf, lowat, cwnd, .. } = *write;
        let (size, mss) = (self.buffer_size(limit), self.mss(limit));
        let (start, end) = (self.written, self.written.wrapping_add(want));
        self.buffers.retain(|end| is_before(self.acked, *end));
        // How far it would be sent by now, and how far the windows would let it.
        let mut sent = self.sent;
        let flight = sent.wrapping_sub(self.acked).saturating_sub(self.sacked).div_ceil(mss);
        let mut quota = (cwnd / mss).saturating_sub(flight);
        let half = (cwnd / mss / 2).max(1);
        let window_end = self.acked.wrapping_add(self.window);
        while self.written != end {
            let is_open = is_before(sent, self.written) && !self.is_closed;
            if is_open && is_before(self.buffer_start, sent) {
                self.buffer_start = sent;
            }
            if is_open && self.written.wrapping_sub(self.buffer_start) < size {
                let was_push = self.pushes.remove(&self.written);
                self.ends.remove(&self.written);
                self.buffers.pop_back();
                // What was pushed within this write stays so, and ends later.
                self.is_push_due |= was_push && self.written != start;
            } else {
                if self.memory() >= sndbuf || self.written.wrapping_sub(sent) >= lowat {
                    break;
                }
                self.buffer_start = self.written;
                self.is_closed = false;
            }
            let room = size - self.written.wrapping_sub(self.buffer_start);
            self.written = self.written.wrapping_add(end.wrapping_sub(self.written).min(room));
            self.buffers.push_back(self.written);
            if std::mem::take(&mut self.is_push_due) {
                self.pushes.insert(self.written);
            }
            if self.written.wrapping_sub(self.buffer_start) < size {
                continue;
            }
            self.ends.insert(self.written);
            let is_due = self.is_half_a_window();
            if is_due {
                self.pushes.insert(self.written);
                self.pushed = self.written;
            }
            // All that waits is sent, or one group of the buffer if it is the first.
            let is_first = !is_before(sent, self.buffer_start);
            while quota > 0 && is_before(sent, self.written) && (is_due || is_first) {
                let group = half.min(quota) * mss;
                let next = sent.wrapping_add(group.min(self.written.wrapping_sub(sent)));
                if is_before(window_end, next) {
                    break;
                }
                quota -= next.wrapping_sub(sent).div_ceil(mss);
                sent = next;
                if !is_due {
                    break;
                }
            }
        }
        let taken = self.written.wrapping_sub(start);
        // A writer that must wait for room pushes what it wrote.
        if taken > 0 && (!more || taken < want || self.is_half_a_window()) {
            self.pushes.insert(self.written);
            self.pushed = self.written;
        }
        self.is_closed = (eor && taken == want) || (self.is_closed && taken == 0);
        taken
    }

    fn is_half_a_window(&self) -> bool {
        self.written.wrapping_sub(self.pushed) > self.window_max >> 1
    }

    fn on_receive(&mut self, header: &SegmentHeader, payload: u32, now_us: u64) {
        let flags = header.flags;
        self.pass_time(now_us);
        self.segments_in += 1;
        let mut window = u32::from(header.wnd);
        if flags.has(Flags::SYN) {
            self.last_data_received_us = now_us;
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
        if flags.has(Flags::ACK)
            && let Some(iss) = self.iss
        {
            if self.last_ack_received_us == 0 {
                self.on_round_trip(now_us.saturating_sub(self.syn_sent_us));
            }
            self.last_ack_received_us = now_us;
            let blocks = header.options.sack.as_slice();
            let beyond = blocks.iter().filter(|(start, _)| is_before(header.ack.0, start.0));
            self.sacked = beyond.map(|(start, end)| end.0.wrapping_sub(start.0)).sum();
            let acked = header.ack.0.wrapping_sub(iss.0).wrapping_sub(1);
            if is_before(self.acked, acked) && !is_before(self.sent, acked) {
                if let Some((_, sent_us)) = self.first_sent.range(..=acked).next_back() {
                    let sent_us = *sent_us;
                    self.on_round_trip(now_us.saturating_sub(sent_us));
                }
                self.acked = acked;
                self.syn_data_again.retain(|end| is_before(acked, *end));
                self.acked_at.insert(acked, now_us);
            }
        }
    }

    /// One of which so much is sent and acknowledged.
    #[cfg(test)]
    pub(crate) fn at(sent: u32, acked: u32) -> Flow {
        Flow { sent, acked, written: sent, ..Flow::default() }
    }

    fn on_round_trip(&mut self, us: u64) {
        let us = us.max(1);
        self.rtt_min_us = if self.rtt_min_us == 0 { us } else { self.rtt_min_us.min(us) };
        self.srtt_us = if self.srtt_us == 0 { us } else { (7 * self.srtt_us + us) / 8 };
    }

    /// Segments that Linux hands down in one buffer, when that many more follow: half a congestion window, and no more
    /// than a millisecond's worth at the rate at which it would pace (`tcp_tso_autosize`).
    fn group_len(&self, more: u32, mss: u32) -> u32 {
        let flight = self.sent.wrapping_sub(self.acked).saturating_sub(self.sacked).div_ceil(mss);
        // Without knowledge of the window: as if it were full.
        let window = if self.cwnd > 0 { (self.cwnd / mss).max(1) } else { flight };
        let half = (window / 2).max(1);
        let paced = match self.srtt_us {
            0 => u32::MAX,
            srtt_us => {
                let rate = u64::from(window.max(1)) * u64::from(mss) * 2_000_000 / srtt_us;
                // For short round trips Linux adds more than ever fits.
                let bonus = if self.rtt_min_us >> 9 < 32 { 65_536 >> (self.rtt_min_us >> 9) } else { 0 };
                u32::try_from((rate >> 10) + bonus).unwrap_or(u32::MAX) / mss
            }
        };
        half.min(paced.max(self.group_min.max(2))).min(more + 1)
    }

    /// Counts a new segment into its group; whether it ends one of several segments.
    fn group(&mut self, data: &Data, is_followed: bool, more: u32) -> bool {
        if self.group.0 == 0 {
            self.group = (0, self.group_len(more, data.len.max(1)), data.len);
        }
        self.group.0 += 1;
        let is_over = !is_followed
            || self.group.0 >= self.group.1
            || data.len < self.group.2
            || self.ends.contains(&data.end)
            || self.pushes.contains(&data.end);
        let is_of_several = self.group.0 > 1;
        if is_over {
            self.group = (0, 0, 0);
        }
        is_over && is_of_several
    }

    /// Takes note of a segment that is sent: where its data end, and whether they are new.
    fn on_send(&mut self, header: &SegmentHeader, payload: u32, now_us: u64) -> Option<(u32, bool)> {
        let flags = header.flags;
        if flags.has(Flags::RST) {
            return None;
        }
        self.pass_time(now_us);
        self.segments_out += 1;
        if flags.has(Flags::SYN) {
            self.iss = Some(header.seq);
            self.syn_sent_us = now_us;
            self.our_scale = header.options.window_scale.is_some();
            self.our_mss = header.options.mss;
            if !flags.has(Flags::ACK) {
                self.has_timestamps = header.options.timestamps.is_some();
            }
        }
        let iss = self.iss.filter(|_| payload > 0)?;
        // The SYN takes the number before offset 0, and data may follow in it.
        let start = header.seq.0.wrapping_sub(iss.0).wrapping_sub(u32::from(!flags.has(Flags::SYN)));
        let end = start.wrapping_add(payload);
        self.data_segments_out += 1;
        self.bytes_sent += u64::from(payload);
        self.last_data_sent_us = now_us;
        if flags.has(Flags::SYN) {
            self.syn_data_end = end;
        } else if is_before(start, self.syn_data_end) && !self.syn_data_again.contains(&end) {
            self.syn_data_again.push(end);
        }
        if is_before(start, self.sent) {
            let again = self.sent.wrapping_sub(start).min(payload);
            self.bytes_again += u64::from(again);
            self.segments_again += 1;
        }
        if is_before(self.written, end) {
            // Early data: it goes out before anything is written to the connection.
            self.written = end;
            self.buffer_start = end;
            self.buffers.push_back(end);
            self.pushes.insert(end);
        }
        let is_new = is_before(self.sent, end);
        if is_new {
            self.sent = end;
            self.first_sent.insert(end, now_us);
        }
        // A SYN has no PSH, whatever it carries.
        (!flags.has(Flags::SYN)).then_some((end, is_new))
    }

    /// Time passed: what it was spent on until now.
    pub(crate) fn limits_at(&self, now_us: u64) -> Limits {
        let mut limits = self.limits;
        let passed = now_us.saturating_sub(self.limits_since_us);
        let (unsent, flight) = (self.unsent(), self.sent.wrapping_sub(self.acked));
        if unsent == 0 && flight == 0 {
            return limits;
        }
        limits.busy_us += passed;
        let mss = u32::from(self.peer_mss.unwrap_or(536));
        if unsent > 0 && flight + unsent.min(mss) > self.window {
            limits.window_us += passed;
        } else if unsent == 0 && self.is_full {
            limits.buffer_us += passed;
        }
        limits
    }

    /// To be called before anything changes.
    fn pass_time(&mut self, now_us: u64) {
        self.limits = self.limits_at(now_us);
        self.limits_since_us = now_us;
    }

    /// Bytes written and not sent.
    pub(crate) fn unsent(&self) -> u32 {
        self.written.wrapping_sub(self.sent)
    }

    /// Segments that were acknowledged, as they were cut when they were sent first.
    pub(crate) fn segments_acked(&self) -> u32 {
        // Cannot cut: a run has some thousands of segments.
        self.first_sent.keys().filter(|end| !is_before(self.acked, **end)).count() as u32
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

    /// A write while the congestion window lets nothing out.
    fn write(want: u32) -> Write {
        Write { now_us: 0, want, more: false, eor: false, sndbuf: u32::MAX, lowat: u32::MAX, cwnd: 0 }
    }

    #[test]
    fn each_write_that_was_sent_ends_with_a_push() {
        let mut flow = flow(32_000);
        flow.fill(&write(1500), 1460);
        flow.sent = 1500;
        flow.fill(&write(1000), 1460);
        assert_eq!(pushes(&flow), [1500, 2500]);
        // What is not sent yet takes more.
        flow.fill(&write(200), 1460);
        assert_eq!(pushes(&flow), [1500, 2700]);
    }

    #[test]
    fn a_long_write_is_pushed_after_half_a_window() {
        let mut flow = flow(32_000);
        flow.fill(&write(100_000), 1460);
        // Buffers of 16000; the second goes beyond half of the window.
        assert_eq!(pushes(&flow), [32_000, 64_000, 96_000, 100_000]);
    }

    #[test]
    fn what_is_cut_from_a_buffer_at_once_ends_with_a_push() {
        let ends = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let mut watch = Watch { moves_push: true, mss_v4: 1460, ..Watch::default() };
        *watch.flow_mut(ends) = flow(32_000);
        watch.wrote(ends, &write(30_000));
        let mut send = |from: u32, count: u32, acked: u32| {
            let flow = watch.flow_mut(ends);
            (flow.sent, flow.acked) = ((from + count) * 1000, acked);
            let sent: Vec<Data> = (from..from + count)
                .map(|number| Data { ends, end: (number + 1) * 1000, len: 1000, is_new: true })
                .collect();
            let pushed = watch.push(&sent);
            pushed.iter().map(|is_push| if *is_push { 'P' } else { '.' }).collect::<String>()
        };
        // A window of ten: two groups of five. Of seven: the last is alone. The first buffer ends at 16000.
        assert_eq!(send(0, 10, 0), "....P....P");
        assert_eq!(send(10, 7, 10_000), "..P..P.");
        assert_eq!(send(17, 2, 17_000), "..", "half a window of two is one");
    }

    #[test]
    fn more_to_come_is_not_pushed_and_nothing_joins_an_end_of_record() {
        let mut flow = flow(32_000);
        flow.fill(&Write { more: true, ..write(100) }, 1460);
        assert_eq!(pushes(&flow), []);
        flow.fill(&Write { eor: true, ..write(100) }, 1460);
        flow.fill(&write(100), 1460);
        assert_eq!(pushes(&flow), [200, 300]);
    }

    #[test]
    fn what_is_sent_while_it_is_written_moves_the_ends_of_buffers() {
        let mut flow = flow(32_792);
        flow.window = 32_792;
        // Of the first 16000 five segments go at once; the rest takes 5000 more, is pushed, and takes again what went.
        let taken = flow.fill(&Write { sndbuf: 50_000, cwnd: 10_000, ..write(59_000) }, 1460);
        assert_eq!(taken, 58_000);
        assert_eq!(flow.ends.iter().copied().collect::<Vec<_>>(), [26_000, 42_000, 58_000]);
        assert!(!flow.is_writable(50_000, u32::MAX));
        (flow.sent, flow.acked) = (42_000, 26_000);
        assert!(flow.is_writable(50_000, u32::MAX) && !flow.is_writable(50_000, 32_000));
    }

    #[test]
    fn a_write_joins_only_what_is_left_of_a_buffer() {
        let mut flow = flow(4000);
        flow.fill(&write(2000), 1460);
        flow.sent = 1000;
        // Of the first buffer a thousand bytes wait: it takes a thousand more.
        flow.fill(&write(1500), 1460);
        assert_eq!(pushes(&flow), [3500]);
        flow.sent = 3500;
        flow.fill(&write(10), 1460);
        assert_eq!(pushes(&flow), [3500, 3510]);
    }
}
