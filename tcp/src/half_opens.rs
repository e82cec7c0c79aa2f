//! Active opens in SYN-SENT: main's engine. It sends nothing and tells nobody: it appends [`HalfOpenAction`]s, which
//! main turns into messages.
//!
//! A record is freed in one place, [`HalfOpens::settled`]'s [`HalfOpenAction::Deleted`], whatever became of the open.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    ConnectFailure, EarlyData, FlowKey, Full, HalfOpenId, HalfOpenUser, Instant, Key, Pool, SocketOptions,
    TimerWheel,
};
use hoststack_wire::{FastOpenCookie, Flags, SeqNum};

use crate::config::{TcpConfig, rx_scale, syn_window};
use crate::describe::{HalfOpenInfo, HalfOpenState};
use crate::ecn;
use crate::fast_open::{Attempt, CookieCache};
use crate::isn::{Secrets, echoed_round_trip_us, timestamp_clock};
use crate::output::{ip_fields, local_mss};
use crate::seed::{
    ConnectionSeed, HalfOpenError, HalfOpenSegment, IcmpError, SeedState, SeedTimestamps, Syn,
};
use crate::state::{State, StateEvent};

/// What main is to do for a half-open, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HalfOpenAction {
    /// Have the flow's worker send this SYN (`Engine::open` before, if it is the first).
    SendSyn {
        /// Whose.
        half_open: HalfOpenId,
        /// What to send.
        syn: Syn,
    },
    /// Hand the connection over: `Engine::establish` on the flow's worker. The record stays until it is settled.
    Establish {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
        /// The connection.
        seed: Box<ConnectionSeed>,
    },
    /// The attempt failed. The record stays until it is settled.
    Failed {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
        /// Why.
        failure: ConnectFailure,
    },
    /// An acceptable answer came after the attempt was decided (handed over, failed, cleaned up): it does nothing.
    Late {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
    },
    /// The delete notification: the record is gone. Exactly once per half-open, and the last thing said about it.
    Deleted {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
    },
}

/// What main's engine did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HalfOpenCounters {
    /// Opens started.
    pub opened: u64,
    /// SYNs asked for, retransmissions included.
    pub syns: u64,
    /// SYNs asked for again.
    pub syn_retransmissions: u64,
    /// Handed over to a worker.
    pub established: u64,
    /// Of these, simultaneous opens.
    pub simultaneous: u64,
    /// Failed by a reset.
    pub refused: u64,
    /// Failed by the deadline or for want of retries.
    pub timed_out: u64,
    /// Failed for other reasons.
    pub failed: u64,
    /// Cleaned up (cancelled, detached) before they ended.
    pub cleaned: u64,
    /// Deleted.
    pub deleted: u64,
    /// Segments and errors for a half-open that was no longer in SYN-SENT.
    pub stale: u64,
    /// Opens whose first SYN carried data (RFC 7413).
    pub fast_opens: u64,
    /// Of these, answered with an acknowledgment of all the data.
    pub fast_opens_accepted: u64,
    /// Opens whose first SYN had data or the Fast Open option and was lost, while one without came through.
    pub fast_opens_lost: u64,
    /// Fast Open cookies learnt.
    pub cookies_learnt: u64,
}

/// No SYN carries more data than what is left beside the longest option list: as much as the peer's MSS surely holds.
const OPTIONS_LEN_MAX: u16 = 40;

/// What the first SYN of a Fast Open says (RFC 7413 §4.2.1).
struct FastOpenTry {
    /// None, if the server wants no cookie.
    option: Option<FastOpenCookie>,
    /// How much of the early data goes with it, in bytes.
    data_len: u16,
}

struct HalfOpen {
    flow: FlowKey,
    user: HalfOpenUser,
    iss: SeqNum,
    options: Arc<SocketOptions>,
    state: HalfOpenState,
    /// MSS that our SYN announces.
    local_mss: u16,
    attempts: u8,
    /// With the Fast Open option in its first SYN.
    fast_open: Option<Box<FastOpenTry>>,
    soft_error: Option<IcmpError>,
    timestamp_offset: u32,
    last_tsval: u32,
    first_sent: Instant,
    retransmit_at: Instant,
    deadline: Instant,
    /// Deadline of the wheel's entry for this; an entry with another one is stale.
    wheel_at: Instant,
}

impl HalfOpen {
    fn timer(&self) -> Instant {
        match self.state {
            HalfOpenState::SynSent if canary::has(Bug::DeadlineIgnored) => self.retransmit_at,
            HalfOpenState::SynSent => self.retransmit_at.min(self.deadline),
            _ => Instant::FAR,
        }
    }

    /// Bytes of early data in its first SYN.
    fn syn_data_len(&self) -> u16 {
        self.fast_open.as_ref().map_or(0, |fast_open| fast_open.data_len)
    }

    /// The SYN, sent now; with the early data if it is the first.
    fn syn(&mut self, now: Instant, early_data: Option<&EarlyData>, config: &TcpConfig) -> Syn {
        let first = self.attempts == 0;
        self.attempts = self.attempts.saturating_add(1);
        if self.options.timestamps {
            self.last_tsval = timestamp_clock(now, self.timestamp_offset);
        }
        // RFC 7413 §4.2.1 (and §4.1.3.1): a SYN that is sent again has neither option nor data, in case they were why the
        // first was lost.
        let fast_open = self.fast_open.as_ref().filter(|_| first);
        Syn {
            flow: self.flow,
            iss: self.iss,
            flags: ecn::syn_flags(&self.options, first),
            wnd: syn_window(&self.options),
            mss: self.local_mss,
            window_scale: self.options.window_scale.then(|| rx_scale(&self.options)),
            has_sack: self.options.sack,
            tsval: self.options.timestamps.then_some(self.last_tsval),
            fast_open: fast_open.and_then(|fast_open| fast_open.option).map(Box::new),
            profile: config.option_profile,
            first,
            data: early_data.filter(|_| fast_open.is_some()).cloned().unwrap_or(EarlyData::NONE),
            data_len: fast_open.map_or(0, |fast_open| fast_open.data_len),
            ip: ip_fields(&self.options),
        }
    }

    /// How much early data may go with the SYN to a server whose MSS is known.
    fn syn_room(&self, peer_mss: u16) -> u16 {
        self.local_mss.min(peer_mss).saturating_sub(OPTIONS_LEN_MAX)
    }

    /// From SYN to SYN-ACK. RFC 6298 §3 (Karn): of a SYN that was sent twice only if the echoed timestamp tells which one
    /// was answered.
    fn round_trip_us(&self, segment: &HalfOpenSegment) -> Option<u32> {
        if self.attempts == 1 {
            return Some(u32::try_from(segment.received.micros_since(self.first_sent)).unwrap_or(u32::MAX));
        }
        let echo = segment.header.options.timestamps.filter(|_| self.options.timestamps)?.ecr;
        echoed_round_trip_us(segment.received, self.first_sent, self.timestamp_offset, echo)
    }

    /// What the peer's SYN made of it: consumes SYN-SENT, for only plain data leaves main.
    fn establish(&self, id: HalfOpenId, segment: &HalfOpenSegment, state: SeedState) -> ConnectionSeed {
        let theirs = &segment.header.options;
        let scales = theirs.window_scale.filter(|_| self.options.window_scale);
        ConnectionSeed {
            flow: self.flow,
            half_open: id,
            user: self.user,
            state,
            options: *self.options,
            iss: self.iss,
            irs: segment.header.seq,
            peer_wnd: segment.header.wnd,
            peer_mss: theirs.mss,
            local_mss: self.local_mss,
            // RFC 7323 §2.2: both ends must send the option, or neither shift is used.
            scales: scales.map(|peer| (peer.min(14), rx_scale(&self.options))),
            sack: theirs.sack_permitted && self.options.sack,
            ecn: match state {
                SeedState::Established => ecn::is_setup_syn_ack(&self.options, &segment.header),
                // Both asked in their SYNs: what the SYN-ACKs say is for `Connection` to send.
                SeedState::SynReceived => false,
            },
            timestamps: theirs.timestamps.filter(|_| self.options.timestamps).map(|ts| SeedTimestamps {
                recent: ts.val,
                last_sent: self.last_tsval,
                offset: self.timestamp_offset,
            }),
            rtt_us: if state == SeedState::Established { self.round_trip_us(segment) } else { None },
            syn_retransmitted: self.attempts > 1,
            syn_data_sent: self.syn_data_len(),
            syn_data_acked: if state == SeedState::Established {
                // The worker saw that it lies within what was sent.
                segment.header.ack.since(self.iss + 1).min(self.syn_data_len().into()) as u16
            } else {
                0
            },
        }
    }
}

/// All half-opens of a stack, on main.
pub struct HalfOpens {
    config: TcpConfig,
    secrets: Secrets,
    pool: Pool<HalfOpen>,
    wheel: TimerWheel<Key>,
    /// The first time-outs of all, which are equally long and so in order: nearly all opens are over before theirs, and
    /// a queue costs less than the wheel.
    first: VecDeque<(Instant, Key)>,
    fired: Vec<(Instant, Key)>,
    cookies: CookieCache,
    counters: HalfOpenCounters,
}

impl HalfOpens {
    /// None yet. `secrets` are the same as the workers'.
    pub fn new(config: TcpConfig, secrets: Secrets) -> HalfOpens {
        HalfOpens {
            pool: Pool::new(config.half_opens_max),
            cookies: CookieCache::new(config.fast_open_cache_max),
            config,
            secrets,
            wheel: TimerWheel::new(Instant::ZERO),
            first: VecDeque::new(),
            fired: Vec::new(),
            counters: HalfOpenCounters::default(),
        }
    }

    /// From now on it works by `config`, but for the limits of its pool and its cookies, which stay as they were made.
    pub fn set_config(&mut self, config: TcpConfig) {
        self.config = config;
    }

    /// Forgets what servers taught about Fast Open: their cookies, their MSS, and that SYNs with data do not come through.
    pub fn forget_servers(&mut self) {
        self.cookies.clear();
    }

    /// From now on every open finds the pool full, or no longer so: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.pool.set_refusing(refusing);
    }

    /// Starts an active open: SYN-SENT. `mtu` is that of the path (IP packet size). `deadline` ends it with
    /// [`ConnectFailure::TimedOut`], or `Unreachable` if an ICMP error had said so. Some of `early_data` goes with the SYN
    /// if the options say `fast_open` and the server's cookie is known; the caller of [`crate::Engine::establish`] queues
    /// all of it whatever went.
    ///
    /// # Errors
    /// [`Full`] at the limit.
    pub fn open(
        &mut self,
        now: Instant,
        flow: FlowKey,
        user: HalfOpenUser,
        options: impl Into<Arc<SocketOptions>>,
        early_data: EarlyData,
        mtu: u16,
        deadline: Instant,
        actions: &mut Vec<HalfOpenAction>,
    ) -> Result<HalfOpenId, Full> {
        let options = options.into();
        let mut half_open = HalfOpen {
            flow,
            user,
            iss: self.secrets.isn(now, &flow),
            state: HalfOpenState::SynSent,
            local_mss: local_mss(&flow, mtu, options.mss_max),
            options,
            attempts: 0,
            fast_open: None,
            soft_error: None,
            timestamp_offset: self.secrets.timestamp_offset(&flow),
            last_tsval: 0,
            first_sent: now,
            retransmit_at: now + self.config.rto_initial,
            deadline,
            wheel_at: Instant::FAR,
        };
        let options = &half_open.options;
        if options.fast_open && options.fast_open_no_cookie {
            let room = half_open.syn_room(self.cookies.mss(&flow).unwrap_or(u16::MAX));
            let data_len = u16::try_from(early_data.len()).unwrap_or(u16::MAX).min(room);
            half_open.fast_open = (data_len > 0).then(|| Box::new(FastOpenTry { option: None, data_len }));
        } else if options.fast_open {
            let asked = match self.cookies.attempt(now, &flow) {
                // Also without data, as in Linux: the server sees that the cookie is still good.
                Attempt::Cookie(cookie, mss) => {
                    let room = half_open.syn_room(mss);
                    let data_len = u16::try_from(early_data.len()).unwrap_or(u16::MAX).min(room);
                    Some(FastOpenTry { option: Some(cookie), data_len })
                }
                Attempt::Request => Some(FastOpenTry { option: Some(FastOpenCookie::REQUEST), data_len: 0 }),
                Attempt::Plain => None,
            };
            half_open.fast_open = asked.map(Box::new);
        }
        let has_data = half_open.syn_data_len() > 0;
        let id = HalfOpenId(self.pool.insert(half_open)?);
        self.counters.opened += 1;
        self.counters.fast_opens += u64::from(has_data);
        self.send_syn(now, id, Some(&early_data), actions);
        Ok(id)
    }

    fn send_syn(
        &mut self,
        now: Instant,
        id: HalfOpenId,
        early_data: Option<&EarlyData>,
        actions: &mut Vec<HalfOpenAction>,
    ) {
        let Some(half_open) = self.pool.get_mut(id.0) else { return };
        let syn = half_open.syn(now, early_data, &self.config);
        // RFC 6298 §5.5: doubled with each. RFC 9293 §3.8.3 (MUST-22): as for data.
        // Deviates: RFC 6298 §5.5, if it is asked for: the first few are not doubled.
        let doublings = (half_open.attempts - 1).saturating_sub(self.config.syn_linear_timeouts);
        let slop =
            if half_open.attempts > 1 { self.config.rto_slop } else { hoststack_transport::Duration::ZERO };
        let back_off = self.config.rto_initial * (1 << doublings.min(16)) + slop;
        half_open.retransmit_at = now + back_off.min(self.config.rto_max);
        self.counters.syns += 1;
        self.counters.syn_retransmissions += u64::from(!syn.first);
        let first = syn.first;
        actions.push(HalfOpenAction::SendSyn { half_open: id, syn });
        let timer = half_open.timer();
        if first && timer == half_open.retransmit_at && self.first.back().is_none_or(|last| last.0 <= timer) {
            half_open.wheel_at = timer;
            self.first.push_back((timer, id.0));
        } else {
            Self::arm(&mut self.wheel, id, half_open);
        }
    }

    fn arm(wheel: &mut TimerWheel<Key>, id: HalfOpenId, half_open: &mut HalfOpen) {
        let timer = half_open.timer();
        if timer < half_open.wheel_at {
            half_open.wheel_at = timer;
            wheel.insert(timer, id.0);
        }
    }

    /// A segment that the flow's worker judged acceptable in SYN-SENT (RFC 9293 §3.10.7.3). One that is stale, because
    /// the half-open is settled, handed over or cleaned, is counted and does nothing.
    pub fn on_segment(&mut self, segment: &HalfOpenSegment, actions: &mut Vec<HalfOpenAction>) {
        let id = segment.half_open;
        let Some(half_open) = self.pool.get_mut(id.0) else {
            self.counters.stale += 1;
            return;
        };
        if half_open.state != HalfOpenState::SynSent {
            self.counters.stale += 1;
            actions.push(HalfOpenAction::Late { half_open: id, user: half_open.user });
            return;
        }
        let flags = segment.header.flags;
        // Second, RST: with an acceptable ACK (the worker checked) it refuses the open.
        if flags.has(Flags::RST) {
            debug_assert_eq!(State::SynSent.after(StateEvent::RcvRst), State::Closed);
            return self.fail(id, ConnectFailure::Refused, actions);
        }
        // Fourth: SYN, with or without ACK: SYNs may cross (RFC 9293 §3.5, MUST-10).
        let (event, state) = if flags.has(Flags::ACK) {
            (StateEvent::RcvSynAck, SeedState::Established)
        } else {
            self.counters.simultaneous += 1;
            (StateEvent::RcvSyn, SeedState::SynReceived)
        };
        tracing::debug!(half_open = %id, from = %State::SynSent, to = %State::SynSent.after(event), "half-open");
        half_open.state = HalfOpenState::HandedOver;
        Self::learn(&mut self.cookies, &mut self.counters, half_open, segment);
        self.counters.established += 1;
        let (user, seed) = (half_open.user, Box::new(half_open.establish(id, segment, state)));
        actions.push(HalfOpenAction::Establish { half_open: id, user, seed });
    }

    /// As if a server had given this cookie out.
    #[cfg(any(test, feature = "testing"))]
    pub fn remember(&mut self, flow: &FlowKey, cookie: FastOpenCookie, mss: u16) {
        self.cookies.learn(flow, Some(cookie), mss);
    }

    /// What a SYN-ACK, or the SYN that crossed ours, says of Fast Open there (RFC 7413 §4.1.3).
    fn learn(
        cookies: &mut CookieCache,
        counters: &mut HalfOpenCounters,
        half_open: &HalfOpen,
        segment: &HalfOpenSegment,
    ) {
        let header = &segment.header;
        let Some(fast_open) = half_open.fast_open.as_ref().filter(|_| header.flags.has(Flags::ACK)) else {
            return;
        };
        let flow = &half_open.flow;
        let mss = header.options.mss.unwrap_or(if flow.remote.addr.is_ipv4() { 536 } else { 1220 });
        // What was not asked for is not believed.
        let cookie = header.options.fast_open.filter(|_| fast_open.option.is_some());
        counters.cookies_learnt += u64::from(cookie.is_some_and(|cookie| !cookie.is_request()));
        cookies.learn(flow, cookie, mss);
        if half_open.options.fast_open_no_cookie {
            cookies.learn_mss(flow, mss);
        }
        let acked = header.ack.since(half_open.iss + 1);
        // A cookie shows that the option came through: the timeout was spurious.
        if acked > 0 || half_open.attempts == 1 || cookie.is_some() {
            let is_all = acked > 0 && acked == u32::from(half_open.syn_data_len());
            counters.fast_opens_accepted += u64::from(is_all);
            cookies.on_passed(flow);
        } else {
            counters.fast_opens_lost += 1;
            cookies.on_lost(segment.received, flow);
        }
    }

    /// The network said something about its SYN: remembered as the cause of a time-out, or the end of the open if its
    /// options say so (RFC 9293 §3.9.2.2).
    pub fn on_icmp_error(&mut self, now: Instant, error: &HalfOpenError, actions: &mut Vec<HalfOpenAction>) {
        let Some(half_open) =
            self.pool.get_mut(error.half_open.0).filter(|h| h.state == HalfOpenState::SynSent)
        else {
            self.counters.stale += 1;
            return;
        };
        if let IcmpError::PacketTooBig { mtu } = error.error {
            // A SYN is never too big, but what it promises may be, and the data that goes with it: then it goes again at
            // once, without.
            let mtu = mtu.max(crate::pmtud::least_path_mtu(&half_open.flow));
            let mss = local_mss(&half_open.flow, mtu, half_open.options.mss_max);
            half_open.local_mss = half_open.local_mss.min(mss);
            if half_open.syn_data_len() > 0 && half_open.attempts == 1 {
                self.send_syn(now, error.half_open, None, actions);
            }
            return;
        }
        // RFC 9293 §3.9.2.2 (MUST-56, SHLD-25): the connect goes on, and its failure will have a cause.
        half_open.soft_error = Some(error.error);
        if half_open.options.abort_on_icmp {
            self.fail(error.half_open, ConnectFailure::Unreachable, actions);
        }
    }

    /// Ends the attempt for a reason that main knows (no neighbour, flow taken on the worker, ...). Does nothing
    /// unless it is in SYN-SENT.
    pub fn fail(&mut self, id: HalfOpenId, failure: ConnectFailure, actions: &mut Vec<HalfOpenAction>) {
        let Some(half_open) = self.pool.get_mut(id.0).filter(|h| h.state == HalfOpenState::SynSent) else {
            return;
        };
        half_open.state = HalfOpenState::Failed(failure);
        match failure {
            ConnectFailure::Refused => self.counters.refused += 1,
            ConnectFailure::TimedOut => self.counters.timed_out += 1,
            _ => self.counters.failed += 1,
        }
        tracing::debug!(half_open = %id, cause = %failure, "half-open failed");
        actions.push(HalfOpenAction::Failed { half_open: id, user: half_open.user, failure });
    }

    /// Cancel or detach: stops its timers and marks it, so that nothing more is said about it but its end. Frees
    /// nothing; the caller tells the outcome and then calls [`HalfOpens::settled`].
    pub fn cleanup(&mut self, id: HalfOpenId) {
        if let Some(half_open) = self.pool.get_mut(id.0)
            && half_open.state == HalfOpenState::SynSent
        {
            half_open.state = HalfOpenState::Cleaned;
            self.counters.cleaned += 1;
        }
    }

    /// Its outcome was told: it deletes itself. Does nothing for a half-open that is gone.
    pub fn settled(&mut self, id: HalfOpenId, actions: &mut Vec<HalfOpenAction>) {
        if let Some(half_open) = self.pool.remove(id.0) {
            self.counters.deleted += 1;
            actions.push(HalfOpenAction::Deleted { half_open: id, user: half_open.user });
        }
    }

    /// Fires what is due: SYN retransmissions and deadlines.
    pub fn poll(&mut self, now: Instant, actions: &mut Vec<HalfOpenAction>) {
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.advance(now, &mut fired);
        for (at, key) in fired.drain(..) {
            self.on_timer(now, at, HalfOpenId(key), actions);
        }
        self.fired = fired;
        while let Some(&(at, key)) = self.first.front()
            && (at <= now || !self.pool.contains(key))
        {
            self.first.pop_front();
            self.on_timer(now, at, HalfOpenId(key), actions);
        }
    }

    fn on_timer(&mut self, now: Instant, at: Instant, id: HalfOpenId, actions: &mut Vec<HalfOpenAction>) {
        let Some(half_open) = self.pool.get_mut(id.0).filter(|h| h.wheel_at == at) else { return };
        half_open.wheel_at = Instant::FAR;
        let timer = half_open.timer();
        if timer > now {
            Self::arm(&mut self.wheel, id, half_open);
        } else if half_open.deadline <= now && !canary::has(Bug::DeadlineIgnored)
            || half_open.attempts > half_open.options.syn_retries.unwrap_or(self.config.syn_retries)
        {
            // RFC 9293 §3.8.3 (MUST-22): the app is told. §3.9.1.8 (MUST-47): the soft error is what it is blamed on.
            let cause = match half_open.soft_error {
                Some(_) => ConnectFailure::Unreachable,
                None => ConnectFailure::TimedOut,
            };
            self.fail(id, cause, actions);
        } else {
            self.send_syn(now, id, None, actions);
        }
    }

    /// When [`HalfOpens::poll`] must be called next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([self.wheel.next_deadline(), self.first.front().map(|first| first.0)])
    }

    /// Number of half-opens, settled ones not included.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// What the pool holds of its limit.
    pub fn usage(&self) -> hoststack_transport::Usage {
        self.pool.usage()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Half-opens whose timers run.
    pub fn armed_timers(&self) -> usize {
        self.pool.iter().filter(|(_, h)| h.timer() != Instant::FAR).count()
    }

    /// What happened so far.
    pub fn counters(&self) -> &HalfOpenCounters {
        &self.counters
    }

    /// One half-open, for the CLI.
    pub fn describe(&self, id: HalfOpenId) -> Option<HalfOpenInfo> {
        let HalfOpen { flow, user, iss, state, attempts, soft_error, retransmit_at, deadline, .. } =
            self.pool.get(id.0)?;
        Some(HalfOpenInfo {
            half_open: id,
            user: *user,
            flow: *flow,
            iss: *iss,
            state: *state,
            attempts: *attempts,
            next_retransmission: (*state == HalfOpenState::SynSent).then_some(*retransmit_at),
            deadline: *deadline,
            soft_error: *soft_error,
        })
    }

    /// The half-open in a slot, for walks in slices up to [`HalfOpens::slot_end`].
    pub fn at_slot(&self, slot: u32) -> Option<HalfOpenInfo> {
        self.describe(HalfOpenId(self.pool.at_slot(slot)?.0))
    }

    /// One past the highest slot ever used.
    pub fn slot_end(&self) -> u32 {
        self.pool.slot_end()
    }

    /// Checks what must hold between any two calls.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_consistency(&self) {
        for (key, half_open) in self.pool.iter() {
            let timer = half_open.timer();
            assert!(half_open.wheel_at <= timer, "half-open {key} has a timer that no wheel entry will fire");
            assert!(half_open.attempts > 0, "half-open {key} never asked for a SYN");
        }
    }
}
