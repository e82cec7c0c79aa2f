//! What must be true of every segment that a stack sends, per flow and direction, whatever the other end does:
//! no segment before the SYN, no timestamp that runs backward, every byte the one that the app wrote at that place,
//! nothing beyond what was written, nothing behind the FIN.

use std::net::IpAddr;

use hoststack_wire::{Flags, NotedSegment, SeqNum};

use super::faults::Fault;
use super::hub::State;
use super::packets::Parsed;
use super::streams::{HEADER, Reader};

/// One direction of a flow, as it was seen on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
    pub(crate) iss: u32,
    /// The peer's initial sequence number, for the trace.
    pub(crate) irs: u32,
    /// One past the highest sequence number sent, relative to the initial one.
    pub(crate) snd_max: u32,
    /// The last acknowledgment sent: what is expected of the peer.
    pub(crate) rcv_nxt: Option<u32>,
    /// The last window sent, as if it were not scaled: at least so much.
    pub(crate) window: u32,
    /// The last timestamps sent.
    pub(crate) timestamps: Option<(u32, u32)>,
    reader: Reader,
    fin: Option<u32>,
    /// A reset went either way: the next SYN begins another connection.
    pub(crate) is_over: bool,
    /// When the last SYN was sent.
    syn_at_us: u64,
    /// Something was lost inside the stack before it could be seen: places cannot be told any more.
    blind: bool,
    /// It began with a SYN-ACK, and nothing came after that.
    is_offer: bool,
    /// Initial sequence numbers of other SYN-ACKs of the flow, of which no connection came so far. A listener that answers
    /// with SYN cookies does not know which it sent: the peer's ACK says which one counts, and a second ACK may begin
    /// another connection.
    offers: Vec<u32>,
}

impl Track {
    fn new(parsed: &Parsed<'_>, now_us: u64, before: Option<&Track>) -> Track {
        let header = &parsed.header;
        let mut offers = before.map_or(Vec::new(), |before| before.offers.clone());
        offers.extend(before.filter(|before| before.is_offer).map(|before| before.iss));
        offers.retain(|&iss| iss != header.seq.0);
        Track {
            local: (parsed.src, header.src_port),
            remote: (parsed.dst, header.dst_port),
            iss: header.seq.0,
            irs: before.map_or(0, |before| before.irs),
            snd_max: 1,
            rcv_nxt: None,
            window: 0,
            timestamps: None,
            reader: Reader::default(),
            fin: None,
            is_over: false,
            syn_at_us: now_us,
            blind: false,
            is_offer: header.flags.has(Flags::ACK),
            offers,
        }
    }

    /// A segment that is no SYN goes out: if it is the first of another SYN-ACK's connection, that one is followed from
    /// now on.
    fn follow(&mut self, seq: u32) {
        if let Some(place) = self.offers.iter().position(|&iss| seq == iss.wrapping_add(1)) {
            let iss = self.offers.swap_remove(place);
            if self.is_offer {
                self.offers.push(self.iss);
            }
            self.iss = iss;
            self.snd_max = 1;
            self.timestamps = None;
            self.reader = Reader::default();
            self.fin = None;
            self.is_over = false;
            self.blind = false;
        }
        self.is_offer = false;
    }

    /// Ours and the peer's initial sequence numbers.
    pub(crate) fn isns(&self) -> (u32, u32) {
        (self.iss, self.irs)
    }
}

/// Prints a segment of the trace.
pub(crate) fn trace(s: &State, end: usize, parsed: &Parsed<'_>, direction: &str, isns: (u32, u32)) {
    s.trace(|| {
        let noted =
            NotedSegment::new(&parsed.header, parsed.payload.len() as u32, SeqNum(isns.0), SeqNum(isns.1));
        let host = s.ends[end].host;
        let (src, dst) = (parsed.header.src_port, parsed.header.dst_port);
        format!("host {host} end {end} {direction} {}.{src} > {}.{dst} {noted}", parsed.src, parsed.dst)
    });
}

/// A stack sent this.
pub(crate) fn observe(s: &mut State, end: usize, parsed: &Parsed<'_>) {
    let flow = parsed.flow();
    let header = &parsed.header;
    let flags = header.flags;
    let (s_is_deaf, now_us) = (s.is_deaf, s.now_us);
    let State { ends, streams, oracle, overlaps, strikes, .. } = s;
    let host = ends[end].host;
    // What waits for a neighbour or a full device inside the stack may be late, or lost, before it can be seen.
    let may_lose = ends[end].macs.is_some() || strikes.on_host(host) & (1 << Fault::Clog as u8) != 0;
    let tracks = &mut ends[end].tracks;
    let text = || {
        format!(
            "host {host} sends {} {}:{}({}) to {}.{} from port {}",
            header.flags,
            header.seq.0,
            header.seq.0.wrapping_add(parsed.payload.len() as u32),
            parsed.payload.len(),
            parsed.dst,
            header.dst_port,
            header.src_port
        )
    };
    if flags.has(Flags::SYN) {
        if flags.has(Flags::ACK) && s_is_deaf {
            oracle.fail(|| format!("{}: nobody listens any more", text()));
        }
        let is_new = tracks
            .get(&flow)
            .is_none_or(|track| track.iss != header.seq.0 || track.fin.is_some() || track.is_over);
        if is_new {
            let track = Track::new(parsed, now_us, tracks.get(&flow));
            if let Some(before) = tracks.insert(flow, track)
                && !header.seq.at_or_after(SeqNum(before.iss.wrapping_add(before.snd_max)))
            {
                // The app asked for the port again before the clock of the sequence numbers had passed what was sent: an
                // old duplicate may be taken for a new segment (RFC 9293 §3.4.3), and no end can tell.
                overlaps.insert(flow);
                overlaps.insert(flow.turned());
            }
        }
        if !parsed.payload.is_empty() {
            oracle.fail(|| format!("{}: data on a SYN", text()));
        }
        if let Some(track) = tracks.get_mut(&flow)
            && !is_new
            && !flags.has(Flags::ACK)
        {
            // One that was held up comes close before the next; a port of the app's own may be asked for again at once.
            let paused = strikes.on_host(host) & (1 << Fault::Pause as u8) != 0;
            let is_exempt = may_lose || paused || (5000..5010).contains(&header.src_port);
            if now_us < track.syn_at_us + SYN_AGAIN_US && !is_exempt {
                oracle.fail(|| format!("{}: again after {} us", text(), now_us - track.syn_at_us));
            }
            track.syn_at_us = now_us;
        }
    }
    let Some(track) = tracks.get_mut(&flow) else {
        if !flags.has(Flags::RST) && !may_lose {
            oracle.fail(|| format!("{}: it has sent no SYN", text()));
        }
        return trace(s, end, parsed, ">", (0, 0));
    };
    if !flags.has_any(Flags::SYN | Flags::RST) {
        track.follow(header.seq.0);
    }
    let isns = track.isns();
    if flags.has(Flags::RST) {
        track.is_over = true;
        // It answers a segment of the peer and takes its numbers from there.
        return trace(s, end, parsed, ">", isns);
    }
    if flags.has(Flags::ACK) {
        track.rcv_nxt = Some(header.ack.0);
        track.window = u32::from(header.wnd);
    }
    if let Some(timestamps) = header.options.timestamps {
        if let Some((before, _)) = track.timestamps
            && SeqNum(timestamps.val).before(SeqNum(before))
        {
            oracle.fail(|| format!("{}: its timestamp {} comes after {before}", text(), timestamps.val));
        }
        track.timestamps = Some((timestamps.val, timestamps.ecr));
    }
    if !flags.has(Flags::SYN) {
        let at = header.seq.0.wrapping_sub(track.iss);
        let end_of_data = at.wrapping_add(parsed.payload.len() as u32);
        let got = track.reader.got;
        if !parsed.payload.is_empty() && at > 0 && got < HEADER as u64 && u64::from(at - 1) > got {
            track.blind = true;
        }
        if !track.blind && !overlaps.contains(&flow) {
            let written = track.reader.id().and_then(|id| streams.get(id)).map(|stream| stream.written);
            if let Some(fin) = track.fin
                && end_of_data > fin
                && !(parsed.payload.is_empty() && at == fin.wrapping_add(1))
            {
                oracle.fail(|| format!("{}: beyond its FIN at {fin}", text()));
            } else if parsed.payload.is_empty() {
                // Unless what it wrote was seen, it may have been lost.
                let most = written.unwrap_or(if may_lose { u64::MAX / 2 } else { HEADER as u64 }) + 2;
                if u64::from(at) > most {
                    oracle.fail(|| format!("{}: at {at}, and only {most} was written", text()));
                }
            } else if at == 0 {
                oracle.fail(|| format!("{}: data in the place of the SYN", text()));
            } else if let Err(what) = streams.check(&mut track.reader, u64::from(at - 1), parsed.payload) {
                oracle.fail(|| format!("{}: {what}", text()));
            }
            if flags.has(Flags::FIN) {
                if track.fin.is_some_and(|fin| fin != end_of_data) {
                    oracle.fail(|| format!("{}: its FIN was elsewhere before: {:?}", text(), track.fin));
                }
                track.fin = Some(end_of_data);
            }
        }
        let end = end_of_data.wrapping_add(u32::from(flags.has(Flags::FIN)));
        if end < FAR_BEHIND {
            track.snd_max = track.snd_max.max(end);
        }
    }
    trace(s, end, parsed, ">", isns);
}

/// A SYN is not sent again sooner: the first time-out is 1 s (RFC 6298 §2.1), and clocks may differ a little.
const SYN_AGAIN_US: u64 = 900_000;

/// Beyond it a difference of sequence numbers is a negative one.
const FAR_BEHIND: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use hoststack_wire::{Options, SegmentHeader, Timestamps};

    use super::*;
    use crate::sim::dice::Dice;
    use crate::sim::streams::fill;
    use crate::sim::world::World;

    const ISS: u32 = 0xffff_ff00;

    /// A host that has sent a SYN, and a stream of 100 bytes that its app wrote.
    struct Wire {
        world: World,
        bytes: Vec<u8>,
    }

    impl Wire {
        fn new() -> Wire {
            let world = World::build(0, false, false);
            let mut bytes = vec![0; 100];
            {
                let s = &mut *world.hub.lock();
                s.ends[0].macs = None;
                let id = s.streams.open(&mut Dice::new(1), false);
                s.streams.get_mut(id).unwrap().written = 100;
                fill(id, 0, &mut bytes);
            }
            let mut wire = Wire { world, bytes };
            assert_eq!(wire.sends(Flags::SYN, 0, 1, 0..0), None);
            wire
        }

        /// The host sends this, at a place relative to its ISS; says what is wrong with it.
        fn sends(
            &mut self,
            flags: Flags,
            at: u32,
            tsval: u32,
            bytes: std::ops::Range<usize>,
        ) -> Option<String> {
            let header = SegmentHeader {
                src_port: 1,
                dst_port: 2,
                seq: SeqNum(ISS) + at,
                ack: SeqNum(9),
                flags,
                wnd: 100,
                urgent: 0,
                options: Options {
                    timestamps: Some(Timestamps { val: tsval, ecr: 0 }),
                    ..Options::default()
                },
            };
            let (src, dst) = (IpAddr::from([10, 0, 1, 1]), IpAddr::from([10, 0, 1, 2]));
            let payload = &self.bytes[bytes];
            let s = &mut *self.world.hub.lock();
            observe(s, 0, &Parsed { src, dst, header, payload, link: 0 });
            s.oracle.take_violation()
        }
    }

    #[test]
    fn data_in_order_again_and_up_to_the_fin_is_right() {
        let mut wire = Wire::new();
        let data = Flags::ACK | Flags::PSH;
        assert_eq!(wire.sends(data, 1, 1, 0..5), None);
        assert_eq!(wire.sends(data, 6, 2, 5..60), None);
        assert_eq!(wire.sends(data, 1, 2, 0..60), None);
        assert_eq!(wire.sends(data | Flags::FIN, 61, 3, 60..100), None);
        assert_eq!(wire.sends(Flags::ACK, 102, 3, 0..0), None);
        assert_eq!(wire.sends(Flags::RST, 7777, 0, 0..0), None);
    }

    #[test]
    fn whichever_syn_ack_the_peer_acknowledges_begins_the_connection() {
        let (syn_ack, data) = (Flags::SYN | Flags::ACK, Flags::ACK | Flags::PSH);
        let mut wire = Wire::new();
        assert_eq!(wire.sends(syn_ack, 10_000, 1, 0..0), None);
        assert_eq!(wire.sends(syn_ack, 20_000, 1, 0..0), None);
        assert_eq!(wire.sends(syn_ack, 30_000, 1, 0..0), None);
        assert_eq!(wire.sends(data, 10_001, 1, 0..50), None);
        assert_eq!(wire.sends(data | Flags::FIN, 10_051, 1, 50..100), None);
        // When that is over, another may come of the next. The first cannot come again.
        assert_eq!(wire.sends(Flags::ACK | Flags::FIN, 30_001, 1, 0..0), None);
        let what = wire.sends(Flags::ACK, 10_001, 1, 0..0).expect("this is wrong");
        assert!(what.contains("beyond its FIN"), "{what}");
        // What no SYN-ACK offered is no beginning.
        let mut wire = Wire::new();
        assert_eq!(wire.sends(syn_ack, 10_000, 1, 0..0), None);
        assert_eq!(wire.sends(syn_ack, 20_000, 1, 0..0), None);
        let what = wire.sends(Flags::ACK | Flags::FIN, 15_001, 1, 0..0).expect("this is wrong");
        assert!(what.contains("only 10 was written"), "{what}");
    }

    #[test]
    fn what_must_not_be_sent_is_found() {
        let data = Flags::ACK | Flags::PSH;
        let finds = |wire: &mut Wire, flags, at, tsval, bytes, words: &str| {
            let what = wire.sends(flags, at, tsval, bytes).expect("this is wrong");
            assert!(what.contains(words), "{what:?} does not say {words:?}");
        };
        finds(&mut Wire::new(), data, 1, 0, 0..5, "its timestamp");
        finds(&mut Wire::new(), data, 0, 1, 0..5, "in the place of the SYN");
        finds(&mut Wire::new(), Flags::ACK, 500, 1, 0..0, "only 10 was written");
        let mut wire = Wire::new();
        assert_eq!(wire.sends(data, 1, 1, 0..50), None);
        finds(&mut wire, data, 51, 1, 49..60, "is another's");
        finds(&mut wire, data, 41, 1, 39..50, "is another's");
        let mut wire = Wire::new();
        assert_eq!(wire.sends(data | Flags::FIN, 1, 1, 0..50), None);
        finds(&mut wire, data, 51, 1, 50..60, "beyond its FIN");
        finds(&mut wire, data | Flags::FIN, 1, 1, 0..40, "elsewhere before");
        let mut wire = Wire::new();
        wire.world.hub.lock().ends[0].tracks.clear();
        finds(&mut wire, data, 1, 1, 0..5, "no SYN");
    }
}
