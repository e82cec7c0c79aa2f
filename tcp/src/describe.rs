//! What the CLI and tests may see of an engine: counts, counters, and every variable of a connection by its RFC name.

use core::fmt;

use hoststack_transport::{
    ConnectFailure, ConnectionId, Duration, FlowKey, HalfOpenId, HalfOpenUser, Instant, SessionId,
};
use hoststack_wire::SeqNum;

use crate::seed::IcmpError;
use crate::state::State;

/// What an engine holds now. All are zero when nothing is open and TIME-WAIT has passed (listeners apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EngineCounts {
    /// Synchronized connections.
    pub connections: usize,
    /// Flows that wait for main's decision: entries for half-opens.
    pub half_open_entries: usize,
    /// SYN-RECEIVED records of listeners.
    pub syn_received: usize,
    /// TIME-WAIT records.
    pub time_wait: usize,
    /// Listeners.
    pub listeners: usize,
    /// Flow table entries: the sum of the first four.
    pub flows: usize,
}

impl EngineCounts {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &EngineCounts) {
        let EngineCounts { connections, half_open_entries, syn_received, time_wait, listeners, flows } =
            *other;
        self.connections += connections;
        self.half_open_entries += half_open_entries;
        self.syn_received += syn_received;
        self.time_wait += time_wait;
        self.listeners += listeners;
        self.flows += flows;
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What an engine did so far.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds another worker's.
            pub fn merge(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            /// Names (stable, snake case) and values.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Segments taken in.
    segments_in,
    /// Segments sent, retransmissions included.
    segments_out,
    /// Payload bytes stored in order.
    bytes_in,
    /// Payload bytes sent for the first time.
    bytes_out,
    /// Segments that carried sequence space sent before (data, SYN or FIN).
    retransmitted_segments,
    /// Payload bytes sent again.
    retransmitted_bytes,
    /// Retransmission timeouts.
    rtos,
    /// Times that a connection's retransmissions, or its probes of a closed window, went unanswered up to R1 (RFC 9293 §3.8.3).
    r1_reached,
    /// Losses found by duplicate acknowledgments or SACK.
    fast_retransmits,
    /// Tail loss probes sent (RFC 8985 §7).
    tail_probes,
    /// Losses that a tail loss probe repaired.
    tail_losses_repaired,
    /// Responses to congestion that were undone: nothing was lost (D-SACK, Eifel, F-RTO).
    undone,
    /// Duplicates that peers reported (D-SACK, RFC 2883).
    dsacks_in,
    /// Duplicates that we reported.
    dsacks_out,
    /// Packets received with a congestion mark (RFC 3168), on connections with ECN.
    ce_in,
    /// Acknowledgments received that echo a mark.
    ecn_echoes_in,
    /// Segments sent larger than others to find a larger path MTU (RFC 4821).
    mtu_probes,
    /// Of these, those that alone were lost.
    mtu_probes_lost,
    /// Full segments that vanished while smaller ones passed: segments became smaller.
    black_holes,
    /// Zero-window and small-window probes.
    probes_out,
    /// Duplicate acknowledgments received.
    duplicate_acks_in,
    /// Urgent pointers of peers that were ahead of the one before and of what the app had read.
    urgent_in,
    /// Urgent pointers of ours: how often apps called more data urgent.
    urgent_out,
    /// Segments without payload, SYN, FIN or RST that were sent.
    pure_acks_out,
    /// Acknowledgments that waited for the delayed-ACK timer.
    delayed_acks,
    /// Challenge acknowledgments sent (RFC 5961).
    challenge_acks_out,
    /// Resets sent.
    resets_out,
    /// Resets that ended a connection.
    resets_in,
    /// SYNs sent for the first time.
    active_opens,
    /// SYNs that listeners answered.
    passive_opens,
    /// SYNs sent with data (RFC 7413).
    fast_opens_out,
    /// SYNs whose Fast Open cookie was good: their connections were accepted at once.
    fast_opens_in,
    /// SYNs with a good cookie that got the usual handshake, because too many others wait for their ACK.
    fast_opens_put_off,
    /// SYNs whose Fast Open cookie was not good.
    fast_open_cookies_bad,
    /// Fast Open cookies given out.
    fast_open_cookies_out,
    /// SYNs answered with a SYN cookie.
    syn_cookies_out,
    /// SYN cookies that came back and became connections.
    syn_cookies_in,
    /// Active opens handed over by main.
    established_active,
    /// Passive opens taken by the session layer.
    established_passive,
    /// Connections that ended, whatever the reason.
    closed,
    /// Of these, by a reset of the peer's, a time-out or another error.
    failed,
    /// TIME-WAIT records reused by a new SYN of the peer (RFC 6191).
    time_wait_reused_in,
    /// TIME-WAIT records reused by an active open.
    time_wait_reused_out,
}

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryPhase {
    /// Nothing is lost as far as is known.
    Open,
    /// Fast recovery.
    Fast,
    /// After a timeout.
    Loss,
}

/// How a connection stands with congestion: what is cheap to gather of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionState {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// In slow start (RFC 5681 §3.1), or in Startup (BBR).
    pub is_slow_start: bool,
    /// Loss recovery.
    pub recovery: RecoveryPhase,
    /// Bytes in flight (FlightSize).
    pub flight: u32,
    /// How fast it may send, in bytes per second, if it is paced.
    pub pacing_rate: Option<u64>,
    /// Smoothed round-trip time in microseconds, once measured.
    pub srtt_us: Option<u32>,
}

/// All variables of a connection, by the names of the RFCs; times are relative to the `now` they were asked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionInfo {
    /// Its name on this worker.
    pub connection: ConnectionId,
    /// Its session.
    pub session: SessionId,
    /// The flow.
    pub flow: FlowKey,
    /// The state.
    pub state: State,
    /// ISS.
    pub iss: SeqNum,
    /// IRS.
    pub irs: SeqNum,
    /// SND.UNA.
    pub snd_una: SeqNum,
    /// SND.NXT.
    pub snd_nxt: SeqNum,
    /// SND.WND in bytes.
    pub snd_wnd: u32,
    /// The largest SND.WND seen.
    pub snd_wnd_max: u32,
    /// SND.WL1.
    pub snd_wl1: SeqNum,
    /// SND.WL2.
    pub snd_wl2: SeqNum,
    /// The peer's window shift.
    pub snd_scale: u8,
    /// RCV.NXT.
    pub rcv_nxt: SeqNum,
    /// RCV.WND as last announced, in bytes.
    pub rcv_wnd: u32,
    /// Our window shift.
    pub rcv_scale: u8,
    /// Payload bytes that a full segment carries.
    pub mss: u16,
    /// Whether timestamps were negotiated.
    pub timestamps: bool,
    /// Whether SACK was negotiated.
    pub sack: bool,
    /// TS.Recent.
    pub ts_recent: u32,
    /// Bytes in flight (FlightSize, RFC 5681).
    pub flight_size: u32,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow start threshold in bytes.
    pub ssthresh: u32,
    /// The congestion control algorithm.
    pub congestion: &'static str,
    /// `open`, `recovery` (fast) or `loss` (after a timeout).
    pub recovery: &'static str,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// Retransmission timeout, back-off included.
    pub rto: Duration,
    /// Retransmissions since the last progress.
    pub retransmits: u8,
    /// What the retransmission timer is for, when it is armed.
    pub timer: &'static str,
    /// In how long the earliest timer fires.
    pub timer_in: Option<Duration>,
    /// The app closed both ways.
    pub app_closed: bool,
    /// A FIN waits for the data before it, or was sent.
    pub fin_wanted: bool,
}

impl fmt::Display for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionInfo {
            connection,
            session,
            flow,
            state,
            iss,
            irs,
            snd_una,
            snd_nxt,
            snd_wnd,
            snd_wnd_max,
            snd_wl1,
            snd_wl2,
            snd_scale,
            rcv_nxt,
            rcv_wnd,
            rcv_scale,
            mss,
            timestamps,
            sack,
            ts_recent,
            flight_size,
            cwnd,
            ssthresh,
            congestion,
            recovery,
            srtt,
            rto,
            retransmits,
            timer,
            timer_in,
            app_closed,
            fin_wanted,
        } = *self;
        write!(
            f,
            "connection={connection} session={session} state={state} domain={} local={} remote={} iss={iss} irs={irs} snd.una={snd_una} \
             snd.nxt={snd_nxt} snd.wnd={snd_wnd} snd.wnd_max={snd_wnd_max} snd.wl1={snd_wl1} snd.wl2={snd_wl2} \
             snd.scale={snd_scale} rcv.nxt={rcv_nxt} rcv.wnd={rcv_wnd} rcv.scale={rcv_scale} mss={mss} \
             timestamps={timestamps} sack={sack} ts.recent={ts_recent} flight={flight_size} cc={congestion} cwnd={cwnd} \
             ssthresh={ssthresh} recovery={recovery} srtt_us={} rto_us={} retransmits={retransmits} timer={timer} \
             timer_us={} app_closed={app_closed} fin_wanted={fin_wanted}",
            flow.domain,
            flow.local,
            flow.remote,
            Micros(srtt),
            rto.as_micros(),
            Micros(timer_in),
        )
    }
}

struct Micros(Option<Duration>);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => write!(f, "{}", duration.as_micros()),
            None => f.write_str("none"),
        }
    }
}

/// Where a half-open stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpenState {
    /// SYN-SENT.
    SynSent,
    /// It became a connection; its outcome has not been told yet.
    HandedOver,
    /// It failed; its outcome has not been told yet.
    Failed(ConnectFailure),
    /// It was cancelled or detached: its timers are stopped.
    Cleaned,
}

impl fmt::Display for HalfOpenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HalfOpenState::SynSent => f.write_str("syn-sent"),
            HalfOpenState::HandedOver => f.write_str("handed-over"),
            HalfOpenState::Failed(failure) => write!(f, "failed ({failure})"),
            HalfOpenState::Cleaned => f.write_str("cleaned"),
        }
    }
}

/// A half-open, for the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenInfo {
    /// Its name.
    pub half_open: HalfOpenId,
    /// Whose it is.
    pub user: HalfOpenUser,
    /// The flow.
    pub flow: FlowKey,
    /// ISS.
    pub iss: SeqNum,
    /// Where it stands.
    pub state: HalfOpenState,
    /// SYNs sent.
    pub attempts: u8,
    /// When the next SYN goes out.
    pub next_retransmission: Option<Instant>,
    /// When it gives up.
    pub deadline: Instant,
    /// The last soft error heard about it.
    pub soft_error: Option<IcmpError>,
}
