//! How large a packet the path takes: what ICMP says of it (RFC 1191, RFC 8201), and how far that is believed (RFC 5927
//! §7.2); and, with `SocketOptions::mtu_probing`, what is found out without ICMP (RFC 4821; state and constant names are
//! those of RFC 8899 §5).
//!
//! Sizes here are those of IP packets, but for `len`, which is payload. The size in use, PLPMTU, is the connection's
//! `path_mtu` or, if options or the peer's MSS allow less, what its `mss` makes.
//!
//! A probe is one segment of new data that is larger than the others. It arrives: so will the others. It alone is lost,
//! as SACK shows: the path did not take it, which is no congestion. Anything else tells nothing. When large segments
//! time out twice in a row, a router may be dropping them in silence: the size falls to one that nearly every path
//! takes, and the search begins from there.

use alloc::boxed::Box;

use hoststack_transport::{Duration, FlowKey, Instant, SessionLayer};
use hoststack_wire::SeqNum;

use crate::congestion::CongestionControl;
use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::engine::{Output, Shared};
use crate::output::{MSS_LEAST, TIMESTAMPS_LEN, distance, send_mss};
use crate::recovery::undo::Undo;
use crate::recovery::{DUP_THRESH, Mode};
use crate::state::State;

/// No IPv4 path MTU below this is believed (RFC 5927 §7.1: a small one costs the attacker nothing): as Linux does.
const MIN_PLPMTU_V4: u16 = 552;
/// No IPv6 path has a smaller one (RFC 8201 §4).
const MIN_PLPMTU_V6: u16 = 1280;
/// BASE_PLPMTU (RFC 8899 §5.1.2): nearly every path takes it. Over IPv6 every path takes `MIN_PLPMTU_V6`.
const BASE_PLPMTU_V4: u16 = 1200;
/// MAX_PROBES (RFC 8899 §5.1.2): a size is given up when so many probes of it were lost.
const MAX_PROBES: u8 = 3;
/// PMTU_RAISE_TIMER (RFC 8899 §5.1.1, RFC 8201 §5.3): a size that was refused is tried again after ten minutes.
const RAISE: Duration = Duration::from_secs(600);
/// After a probe that did not arrive, none for so many round trips, and no longer than `PROBE_WAIT_MAX_US`: each costs a
/// round trip of recovery.
const PROBE_WAIT_ROUNDS: u64 = 16;
/// See `PROBE_WAIT_ROUNDS`.
const PROBE_WAIT_MAX_US: u64 = 1_000_000;
/// The search ends when it is about less than this: as Linux does.
const SEARCH_THRESHOLD: u16 = 8;
/// No probe while the congestion window holds fewer segments than at first: the loss of one must not stall. Linux wants
/// 11.
const WINDOW_LEAST: u32 = 10;
/// Timeouts of a large segment in a row that make a black hole; after a fall to BASE_PLPMTU one more does.
const TIMEOUTS_MAX: u8 = 2;
/// How often, as a power of two in us, the path MTU is asked for: about once in a minute.
const ASK_SHIFT: u32 = 26;

/// What only some connections need: those that heard of a path MTU, or probe. Part of `Extras`.
#[derive(Debug)]
pub(crate) struct Pmtud {
    /// What ICMP said and was believed, and how long it is.
    told: Option<(u16, Instant)>,
    /// What ICMP says and is not believed yet, and of which segment.
    claim: Option<(u16, SeqNum)>,
    search: Option<Search>,
}

/// Where the search stands (RFC 8899 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SearchState {
    /// Larger segments vanished; whether those of BASE_PLPMTU pass is not known.
    Base,
    /// Those of BASE_PLPMTU vanished as well: MIN_PLPMTU.
    Error,
    /// Larger sizes are probed.
    Searching,
    /// The largest was found; it is searched for again at `next_at`.
    SearchComplete,
}

/// A probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    start: SeqNum,
    end: SeqNum,
    /// PROBED_SIZE.
    size: u16,
    /// What ICMP said of it.
    told: Option<u16>,
}

/// The search for a larger size. What is known to pass (search_low of RFC 4821 §7.3) is the size in use.
#[derive(Debug)]
struct Search {
    state: SearchState,
    /// MAX_PLPMTU: what the way out takes, as far as is known here.
    max: u16,
    /// search_high (RFC 4821 §7.3): nothing larger is tried.
    high: u16,
    /// Nothing was lost of size `high` yet, as a probe.
    is_high_open: bool,
    /// PROBE_COUNT: probes of one size that were lost.
    probe_count: u8,
    /// Timeouts in a row of segments that could be smaller.
    timeouts: u8,
    /// The data of a probe that was lost is sent again.
    is_repairing: bool,
    probe: Option<Probe>,
    /// No probe before; in `SearchComplete`, when the search begins again.
    next_at: Instant,
}

/// Whether new data goes out as a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeStep {
    /// No.
    None,
    /// A segment of `len`.
    Send { len: u32 },
    /// Soon: when cwnd has room for it.
    AwaitCongestionWindow,
    /// Soon: when the peer's window has room for it.
    AwaitWindow,
}

/// MIN_PLPMTU of a flow.
pub(crate) fn least_path_mtu(flow: &FlowKey) -> u16 {
    if flow.remote.addr.is_ipv4() { MIN_PLPMTU_V4 } else { MIN_PLPMTU_V6 }
}

impl Pmtud {
    fn new() -> Pmtud {
        Pmtud { told: None, claim: None, search: None }
    }

    /// For a connection that probes: up to `max`.
    pub(crate) fn probing(max: u16) -> Pmtud {
        let search = Search {
            state: SearchState::SearchComplete,
            max,
            high: max,
            is_high_open: true,
            probe_count: 0,
            timeouts: 0,
            is_repairing: false,
            probe: None,
            next_at: Instant::ZERO,
        };
        Pmtud { search: Some(search), ..Pmtud::new() }
    }
}

impl Search {
    /// Begins the search up to `high`.
    fn begin(&mut self, high: u16) {
        self.state = SearchState::Searching;
        self.high = high;
        self.is_high_open = true;
        self.probe_count = 0;
    }

    /// The size to try next when `low` passes and no more than `max` makes sense. First the largest, which settles it if
    /// it passes; then halfway (RFC 4821 §7.4 leaves the choice).
    fn next_size(&self, low: u16, max: u16) -> Option<u16> {
        let high = self.high.min(max);
        let interval = high.saturating_sub(low);
        if self.is_high_open && interval > 0 {
            return Some(high);
        }
        (interval >= SEARCH_THRESHOLD).then(|| low + interval.div_ceil(2))
    }

    /// The search is over, one way or the other, for ten minutes.
    fn complete(&mut self, now: Instant) {
        self.state = SearchState::SearchComplete;
        self.next_at = now + RAISE;
    }

    /// The probe was lost, and nothing else (RFC 4821 §7.7.2). The next goes at `next_at`.
    fn on_lost(&mut self, probe: Probe, next_at: Instant) {
        self.probe = None;
        self.next_at = next_at;
        if let Some(told) = probe.told {
            // RFC 8899 §4.6.2: "PL_PTB_SIZE" is the next to be tried; the loss has shown that the message is true.
            self.high = told;
            self.is_high_open = true;
            self.probe_count = 0;
            return;
        }
        self.probe_count += 1;
        if self.probe_count >= MAX_PROBES {
            self.high = probe.size - 1;
            self.is_high_open = false;
            self.probe_count = 0;
        }
    }

    /// What became of the probe tells nothing (RFC 4821 §7.7.4). The next goes at `next_at`.
    fn on_inconclusive(&mut self, next_at: Instant) {
        if self.probe.take().is_some() {
            self.next_at = next_at;
        }
    }
}

impl Connection {
    /// A number that changes when the path MTU is to be asked for again.
    pub(crate) const fn mtu_tick(now: Instant) -> u8 {
        (now.as_micros() >> ASK_SHIFT) as u8 // modulo 256: only compared
    }

    fn pmtud(&mut self) -> Option<&mut Pmtud> {
        self.extras.as_mut()?.pmtud.as_deref_mut()
    }

    fn search(&mut self) -> Option<&mut Search> {
        self.pmtud()?.search.as_mut()
    }

    fn begin_pmtud(&mut self) -> &mut Pmtud {
        self.extras_mut().pmtud.get_or_insert_with(|| Box::new(Pmtud::new()))
    }

    /// With `SocketOptions::mtu_probing`.
    pub(crate) fn start_mtu_probing(&mut self) {
        let max = self.path_mtu;
        self.extras_mut().pmtud = Some(Box::new(Pmtud::probing(max)));
    }

    /// What the headers of IP and TCP take, options of every segment included.
    fn header_space(&self) -> u16 {
        let fixed = if self.flow.remote.addr.is_ipv4() { 40 } else { 60 };
        fixed + if self.has_timestamps { TIMESTAMPS_LEN } else { 0 }
    }

    /// The size of a packet with a full segment.
    fn packet_size(&self) -> u16 {
        self.mss.saturating_add(self.header_space())
    }

    /// The largest packet that options and the peer's MSS allow (RFC 9293 §3.7.1: MUST-16).
    fn packet_max(&self) -> u16 {
        self.segment_len(u16::MAX).saturating_add(self.header_space())
    }

    /// The payload of a full segment in packets of `mtu`.
    fn segment_len(&self, mtu: u16) -> u16 {
        send_mss(&self.flow, mtu, self.mss_max, Some(self.peer_mss), self.has_timestamps)
    }

    /// Packets of `mtu` from now on.
    fn set_path_mtu(&mut self, mtu: u16) {
        self.path_mtu = mtu;
        self.set_mss(self.segment_len(mtu));
    }

    /// Full segments of `mss` from now on.
    pub(crate) fn set_mss(&mut self, mss: u16) {
        if mss == self.mss {
            return;
        }
        self.mss = mss;
        self.len_acked = self.len_acked.min(mss);
        self.len_sampled = 0;
        self.cc.on_mss_change(mss);
    }

    // ---- what ICMP says ----

    /// ICMP says that packets of the segment at `seq`, which is in flight, are larger than `mtu`, that of a link. An
    /// increase is never believed (RFC 1191 §3), and nothing below what every path takes.
    pub(crate) fn on_packet_too_big<L: SessionLayer>(
        &mut self,
        now: Instant,
        seq: SeqNum,
        mtu: u16,
        layer: &mut L,
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let mtu = mtu.max(least_path_mtu(&self.flow));
        let len = self.segment_len(mtu);
        if len >= self.mss {
            if let Some(search) = self.search()
                && let Some(probe) = &mut search.probe
                && probe.start == seq
                && mtu < probe.size
            {
                // Its loss will be found as that of any segment is; then the size to try next is known.
                probe.told = Some(mtu);
                return Ok(());
            }
            // RFC 5927 §7.2: a size that was not sent is none that did not fit. Equal: others were on their way.
            return if mtu > self.packet_size() { Err(DropReason::IcmpMtuLarger) } else { Ok(()) };
        }
        if len < self.len_acked {
            // RFC 5927 §7.2: larger segments arrived, so the message is false or the path changed; then what it quotes
            // times out.
            let una = self.snd.una;
            let claim = &mut self.begin_pmtud().claim;
            if claim.is_none_or(|(_, of)| of.before(una)) {
                *claim = Some((mtu, seq));
            }
            return Err(DropReason::IcmpMtuUnproven);
        }
        self.believe_path_mtu(mtu, now);
        // What was too big is lost, which says nothing about congestion (RFC 1191 §6.5).
        if self.state != State::SynReceived {
            self.enter_loss(false, shared, now);
            self.restart_timer(now, shared);
            layer.program_tx(self.session);
        }
        Ok(())
    }

    fn believe_path_mtu(&mut self, mtu: u16, now: Instant) {
        self.set_path_mtu(mtu);
        let pmtud = self.begin_pmtud();
        pmtud.told = Some((mtu, now + RAISE));
        pmtud.claim = None;
        if let Some(search) = &mut pmtud.search {
            search.probe = None;
            search.is_repairing = false;
            search.complete(now);
        }
    }

    /// The path MTU may have changed without a word to this connection: ICMP told others, or what it told is too old
    /// (RFC 1191 §6.3, RFC 8201 §5.3). Asked once in a while, when something may be sent.
    #[inline]
    pub(crate) fn follow_path_mtu<O: Output>(&mut self, now: Instant, out: &mut O) {
        let tick = Connection::mtu_tick(now);
        if tick != self.mtu_tick {
            self.mtu_tick = tick;
            self.take_path_mtu(out.path_mtu(&self.flow), now);
        }
    }

    #[cold]
    fn take_path_mtu(&mut self, mtu: u16, now: Instant) {
        let mut mtu = mtu;
        if let Some(pmtud) = self.pmtud() {
            if let Some(search) = &mut pmtud.search {
                // It tells where to search, and what passes is found by sending it.
                let is_wider = mtu > search.max;
                search.max = mtu;
                if is_wider && search.state == SearchState::SearchComplete {
                    search.next_at = now;
                }
                return;
            }
            pmtud.told = pmtud.told.filter(|(_, until)| *until > now);
            mtu = pmtud.told.map_or(mtu, |(told, _)| mtu.min(told));
        }
        if mtu != self.path_mtu {
            self.set_path_mtu(mtu);
        }
    }

    // ---- what is sent, and what becomes of it ----

    /// `len` bytes were sent from `seq` on for the first time.
    #[inline]
    pub(crate) fn note_len_sent(&mut self, seq: SeqNum, len: u32, shared: &mut Shared) {
        if len > u32::from(self.mss) {
            self.note_mtu_probe(seq, len);
            shared.counters.mtu_probes += 1;
        } else if len > u32::from(self.len_acked) && self.len_sampled == 0 {
            // Cannot lose bits: it is no more than MSS.
            self.len_sampled = len as u16;
            self.sample_end = seq + len;
        }
    }

    fn note_mtu_probe(&mut self, start: SeqNum, len: u32) {
        let size = u16::try_from(len).unwrap_or(u16::MAX).saturating_add(self.header_space());
        if let Some(search) = self.search() {
            search.probe = Some(Probe { start, end: start + len, size, told: None });
        }
    }

    /// What lies beyond `seq` is sent again, in other segments: which arrived will not be known.
    #[inline]
    pub(crate) fn note_len_lost(&mut self, seq: SeqNum, now: Instant) {
        if self.len_sampled > 0 && seq.before(self.sample_end) {
            self.len_sampled = 0;
        }
        if self.mtu_probe().is_some_and(|(_, end)| seq.before(end)) {
            let next_at = self.next_mtu_probe_at(now);
            self.search().into_iter().for_each(|search| search.on_inconclusive(next_at));
        }
    }

    /// SND.UNA moved.
    #[inline]
    pub(crate) fn on_len_acked(&mut self, now: Instant, shared: &mut Shared) {
        if self.len_sampled > 0 && self.snd.una.at_or_after(self.sample_end) {
            self.len_acked = self.len_acked.max(self.len_sampled);
            self.len_sampled = 0;
        }
        if self.extras.as_ref().is_some_and(|extras| extras.pmtud.is_some()) {
            self.on_pmtud_progress(now, shared);
        }
    }

    fn on_pmtud_progress(&mut self, now: Instant, shared: &mut Shared) {
        let una = self.snd.una;
        let Some(pmtud) = self.pmtud() else { return };
        // RFC 5927 §7.2: what ICMP spoke of arrived.
        pmtud.claim = pmtud.claim.filter(|(_, seq)| seq.at_or_after(una));
        let Some(search) = &mut pmtud.search else { return };
        search.timeouts = 0;
        if matches!(search.state, SearchState::Base | SearchState::Error) {
            // Small segments pass where larger ones vanished.
            shared.counters.black_holes += 1;
            search.state = SearchState::Searching;
        }
        if let Some(probe) = search.probe.filter(|probe| una.at_or_after(probe.end)) {
            // RFC 4821 §7.7.1.
            search.probe = None;
            search.probe_count = 0;
            search.next_at = now;
            self.set_path_mtu(probe.size);
            self.len_acked = self.mss;
        }
    }

    /// Whether full segments that may be sent go out as one larger one (RFC 4821 §7.5; the numbers are nearly Linux's).
    pub(crate) fn mtu_probe_step(&mut self, data_end: SeqNum, now: Instant) -> ProbeStep {
        let (low, limit) = (self.packet_size(), self.packet_max());
        let Some(search) = self.search() else { return ProbeStep::None };
        if search.probe.is_some() || search.next_at > now {
            return ProbeStep::None;
        }
        let max = search.max.min(limit);
        if search.state == SearchState::SearchComplete && max > low {
            search.begin(max);
        }
        if search.state != SearchState::Searching {
            return ProbeStep::None;
        }
        let Some(size) = search.next_size(low, max) else {
            search.complete(now);
            return ProbeStep::None;
        };
        self.mtu_probe_of(size, data_end)
    }

    fn mtu_probe_of(&self, size: u16, data_end: SeqNum) -> ProbeStep {
        let mss = u32::from(self.mss);
        let len = u32::from(size - self.header_space());
        // What follows must show whether it alone was lost; only SACK can.
        let needed = len + (DUP_THRESH + 1) * mss;
        let is_calm = self.recovery.as_ref().is_none_or(|recovery| {
            recovery.mode == Mode::Open
                && recovery.probe.is_none()
                && recovery.flight.sacked() == 0
                && recovery.flight.lost() == 0
        });
        let (nxt, window) = (self.snd.nxt, self.cc.window());
        if !self.has_sack
            || !is_calm
            || distance(nxt, data_end) < needed
            // Two more, so that waiting for it does not wait for a delayed acknowledgment.
            || self.snd.wnd < needed + 2 * mss
            || window < needed.max(WINDOW_LEAST * mss)
        {
            return ProbeStep::None;
        }
        if distance(nxt, self.snd.una + self.snd.wnd) < needed {
            return ProbeStep::AwaitWindow;
        }
        if self.pipe() + len > window {
            return ProbeStep::AwaitCongestionWindow;
        }
        ProbeStep::Send { len }
    }

    /// When the next probe may go, if one did not arrive.
    fn next_mtu_probe_at(&self, now: Instant) -> Instant {
        let srtt_us = u64::from(self.rtt.srtt_us().unwrap_or(u32::MAX));
        now.plus_micros((PROBE_WAIT_ROUNDS * srtt_us).min(PROBE_WAIT_MAX_US))
    }

    /// The probe in flight, which is no loss to congestion control.
    pub(crate) fn mtu_probe(&self) -> Option<(SeqNum, SeqNum)> {
        let search = self.extras.as_ref()?.pmtud.as_ref()?.search.as_ref()?;
        search.probe.map(|probe| (probe.start, probe.end))
    }

    /// Whether the data of a lost probe is being sent again.
    pub(crate) fn is_repairing_mtu_probe(&self) -> bool {
        let search = self.extras.as_ref().and_then(|extras| extras.pmtud.as_ref()?.search.as_ref());
        self.mode() == Mode::Loss && search.is_some_and(|search| search.is_repairing)
    }

    /// Something was found lost, and nothing was amiss before. If it is the probe and nothing else, its data goes out
    /// again in segments that pass, and congestion control is not told (RFC 4821 §7.7.2).
    pub(crate) fn repair_mtu_probe(&mut self, shared: &mut Shared, now: Instant) -> bool {
        let Some((start, end)) = self.mtu_probe() else { return false };
        let next_at = self.next_mtu_probe_at(now);
        let Some(recovery) = self.recovery.as_mut().filter(|recovery| recovery.mode == Mode::Open) else {
            return false;
        };
        let len = end.since(start);
        if recovery.flight.lost() != len || recovery.flight.next_lost(u32::MAX) != Some((start, len)) {
            // RFC 4821 §7.7.4: congestion, and the probe may have been its victim.
            self.search().into_iter().for_each(|search| search.on_inconclusive(next_at));
            return false;
        }
        recovery.mode = Mode::Loss;
        recovery.recovery_point = end;
        recovery.must_retransmit = true;
        recovery.is_frto = false;
        recovery.probe = None;
        recovery.undo = Undo::default();
        if let Some(search) = self.search()
            && let Some(probe) = search.probe
        {
            search.on_lost(probe, next_at);
            search.is_repairing = true;
        }
        shared.counters.mtu_probes_lost += 1;
        true
    }

    /// The retransmission timer fired for data in flight: a claim of ICMP is borne out, or large segments vanish.
    pub(crate) fn on_pmtud_timeout(&mut self, now: Instant) {
        let size = self.packet_size();
        let len = u16::try_from(self.flight_size()).unwrap_or(u16::MAX).min(self.mss);
        // What vanished, if it is that.
        let sent = len.saturating_add(self.header_space());
        let (least, next_at) = (least_path_mtu(&self.flow), self.next_mtu_probe_at(now));
        let Some(pmtud) = self.pmtud() else { return };
        if let Some(search) = &mut pmtud.search {
            // RFC 4821 §7.7.3.
            search.on_inconclusive(next_at);
            search.is_repairing = false;
        }
        if let Some((mtu, _)) = pmtud.claim.take() {
            // RFC 5927 §7.2, with MAXSEGRTO = 1.
            self.believe_path_mtu(mtu, now);
            return;
        }
        let Some(search) = &mut pmtud.search else { return };
        let base = BASE_PLPMTU_V4.max(least);
        let (state, mtu) = match sent {
            _ if sent > base => (SearchState::Base, base),
            _ if sent > least => (SearchState::Error, least),
            _ => return,
        };
        search.timeouts += 1;
        if search.timeouts < TIMEOUTS_MAX && search.state != SearchState::Base {
            return;
        }
        search.timeouts = 0;
        // RFC 4821 §7.8, RFC 8899 §5.3.3. Perhaps nothing passed for a while: one probe of the old size will tell.
        if search.state != SearchState::Base {
            search.begin(size);
            search.probe_count = MAX_PROBES - 1;
        }
        search.state = state;
        search.next_at = now;
        self.set_path_mtu(mtu);
    }
}

const _: () = assert!(MSS_LEAST + 60 + TIMESTAMPS_LEN < MIN_PLPMTU_V4);
