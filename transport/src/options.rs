//! What may be asked of a stream transport for one connection: [`SocketOptions`] with a connect or a listen,
//! [`SocketOption`] while it is up. A transport takes what it knows and ignores the rest.

use core::fmt;

/// How a connection behaves. Given with a connect or a listen; what may change later is a [`SocketOption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The largest receive window, in bytes: the capacity of the receive fifo, which sets it. Default 256 KiB.
    pub rx_window: u32,
    /// The receive window to begin with, in bytes, four units of the window scale at least. It grows to `rx_window` as the
    /// app reads: to twice of what it takes in a round trip, and room for a sender that doubles; it never shrinks. Default
    /// `u32::MAX`: all of `rx_window` at once, for an idle connection holds no memory.
    pub rx_window_initial: u32,
    /// Most bytes in a second (pacing, whatever the congestion control wants). Default `u64::MAX`: no limit.
    pub pacing_rate_max: u64,
    /// Probes of an idle connection. Default `None`: no keep-alive (RFC 9293 §3.8.4, MUST-25).
    pub keepalive: Option<Keepalive>,
    /// How long sent data may stay unacknowledged before the connection is given up, in ms (RFC 5482, Linux's
    /// `TCP_USER_TIMEOUT`); 0: the number of retransmissions decides. Default 0.
    pub user_timeout_ms: u32,
    /// How long a close may take to send what is queued, in ms, before the connection is reset; 0 resets at once.
    /// Default `None`: as long as it takes.
    pub linger_ms: Option<u32>,
    /// Never announce, nor send, a larger maximum segment size than this. Default `None`: the path's MTU decides.
    pub mss_max: Option<u16>,
    /// SYN, or SYN-ACK, retransmissions before the handshake is given up. Default `None`: the stack's limit.
    pub syn_retries: Option<u8>,
    /// The congestion control. Default CUBIC.
    pub congestion: Algorithm,
    /// Explicit congestion notification. Default: if the peer asks for it.
    pub ecn: EcnMode,
    /// DSCP of its packets (RFC 2474), 0 to 63. Default 0.
    pub dscp: u8,
    /// Time to live (IPv6: hop limit) of its packets, 1 to 255; 0 is taken as 1. Default 64; 255 lets neighbours see
    /// that nothing forwarded them (RFC 5082).
    pub ttl: u8,
    /// Send small segments at once (no Nagle algorithm, RFC 9293 §3.7.4). Default false.
    pub nodelay: bool,
    /// Send full segments only, until this is switched off or a retransmission timeout has passed. Default false.
    pub cork: bool,
    /// Acknowledge every segment at once. Default false.
    pub quick_ack: bool,
    /// Spread segments over the round trip at a rate that follows the window. BBR always does. Default false.
    pub pacing: bool,
    /// Offer and accept window scaling (RFC 7323 §2). Default true.
    pub window_scale: bool,
    /// Offer and accept timestamps (RFC 7323 §3). Default true.
    pub timestamps: bool,
    /// Offer and accept selective acknowledgments (RFC 2018). Default true.
    pub sack: bool,
    /// TCP Fast Open (RFC 7413): a connect sends its early data in the SYN when it has a cookie, a listener gives
    /// cookies out and takes data in SYNs. Default false: data in a SYN may be delivered twice.
    pub fast_open: bool,
    /// With `fast_open`: a connect's early data goes without a cookie, and a listener takes data in SYNs whatever cookie they
    /// have (RFC 7413 §4.1.3 knows no such thing: only for a path on which nobody forges addresses). Default false.
    pub fast_open_no_cookie: bool,
    /// Search for a larger path MTU by probing (RFC 4821; with SACK only), and for a smaller one when large segments
    /// vanish. Default false: ICMP alone tells.
    pub mtu_probing: bool,
    /// An ICMP unreachable ends an active open, or a listener's handshake, at once instead of being remembered as the cause of
    /// its end. Default false
    /// (RFC 9293 §3.9.2.2: MUST NOT abort on a soft error).
    pub abort_on_icmp: bool,
}

impl SocketOptions {
    /// The defaults, as a constant.
    pub const DEFAULT: SocketOptions = SocketOptions {
        rx_window: 256 * 1024,
        rx_window_initial: u32::MAX,
        pacing_rate_max: u64::MAX,
        keepalive: None,
        user_timeout_ms: 0,
        linger_ms: None,
        mss_max: None,
        syn_retries: None,
        congestion: Algorithm::DEFAULT,
        ecn: EcnMode::Accept,
        dscp: 0,
        ttl: 64,
        nodelay: false,
        cork: false,
        quick_ack: false,
        pacing: false,
        window_scale: true,
        timestamps: true,
        sack: true,
        fast_open: false,
        fast_open_no_cookie: false,
        mtu_probing: false,
        abort_on_icmp: false,
    };
    /// The defaults without the Nagle algorithm: for requests and answers.
    pub const NODELAY: SocketOptions = SocketOptions { nodelay: true, ..SocketOptions::DEFAULT };
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions::DEFAULT
    }
}

/// Probes of an idle connection (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long nothing must have come before the first probe, in ms. RFC 9293 (MUST-28) wants two hours by default.
    pub idle_ms: u32,
    /// Between probes, in ms.
    pub interval_ms: u32,
    /// Unanswered probes after which the connection is given up.
    pub probes: u8,
}

impl Default for Keepalive {
    /// Two hours, 75 seconds, nine probes.
    fn default() -> Keepalive {
        Keepalive { idle_ms: 7_200_000, interval_ms: 75_000, probes: 9 }
    }
}

/// When explicit congestion notification (RFC 3168) is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EcnMode {
    /// Never.
    Off,
    /// If the peer's SYN asks for it.
    Accept,
    /// Our SYN asks for it, and the peer's may.
    Request,
}

/// A congestion control algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 9438.
    Cubic,
    /// RFC 5681 and 6582.
    NewReno,
    /// BBR version 3 (draft-ietf-ccwg-bbr).
    Bbr,
}

impl Algorithm {
    /// The default.
    pub const DEFAULT: Algorithm = Algorithm::Cubic;
    /// All, in the order in which help texts show them.
    pub const ALL: &[Algorithm] = &[Algorithm::Cubic, Algorithm::NewReno, Algorithm::Bbr];

    /// The name that configuration and CLI use.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Cubic => "cubic",
            Algorithm::NewReno => "newreno",
            Algorithm::Bbr => "bbr",
        }
    }

    /// The algorithm of a name, as [`Algorithm::name`] writes it.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }
}

impl core::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        Algorithm::from_name(name).ok_or(UnknownAlgorithm)
    }
}

/// A name that no congestion control has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a congestion control:")?;
        for (n, algorithm) in Algorithm::ALL.iter().enumerate() {
            write!(f, "{}{algorithm}", if n == 0 { " " } else { " or " })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownAlgorithm {}

impl Default for Algorithm {
    fn default() -> Algorithm {
        Algorithm::DEFAULT
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One change to a connection that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// [`SocketOptions::nodelay`]; switching it on sends what waits.
    NoDelay(bool),
    /// [`SocketOptions::cork`]; switching it off sends what waits.
    Cork(bool),
    /// [`SocketOptions::quick_ack`]; switching it on sends a delayed acknowledgment.
    QuickAck(bool),
    /// [`SocketOptions::keepalive`].
    Keepalive(Option<Keepalive>),
    /// [`SocketOptions::user_timeout_ms`].
    UserTimeout(u32),
    /// [`SocketOptions::linger_ms`].
    Linger(Option<u32>),
    /// [`SocketOptions::mss_max`]; it only ever lowers the segment size in use.
    MssMax(u16),
    /// [`SocketOptions::pacing_rate_max`].
    PacingRateMax(u64),
    /// [`SocketOptions::congestion`]: the new algorithm starts from the window that the old one had.
    Congestion(Algorithm),
    /// [`SocketOptions::dscp`].
    Dscp(u8),
    /// [`SocketOptions::ttl`].
    Ttl(u8),
    /// What the app wrote up to so many bytes after the first unacknowledged one ends a record: no segment holds bytes of
    /// both sides of it, and what is before it is pushed. A stream remembers 64 such ends; one more replaces the last.
    RecordEnd(u32),
}

/// What a connection measured and counted, for its app and for the CLI: what Linux calls `TCP_INFO`. Times are in
/// microseconds, sizes in bytes, over the connection's life unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ConnectionStats {
    /// Smoothed round-trip time; 0 before the first measurement.
    pub srtt_us: u32,
    /// RTTVAR.
    pub rtt_var_us: u32,
    /// The least round trip; 0 before the first measurement.
    pub rtt_min_us: u32,
    /// The retransmission timeout, back-off included.
    pub rto_us: u32,
    /// The congestion window.
    pub cwnd: u32,
    /// ssthresh; `u32::MAX` before the first congestion.
    pub ssthresh: u32,
    /// The segment size for sending, options excluded.
    pub mss: u16,
    /// The peer's full segment, as seen.
    pub peer_mss: u16,
    /// The path MTU in use: of the way out, as ICMP told or as probing found. Segments may be smaller for other reasons.
    pub path_mtu: u16,
    /// The peer's window.
    pub snd_wnd: u32,
    /// Our window as announced.
    pub rcv_wnd: u32,
    /// Sent and not acknowledged.
    pub flight: u32,
    /// Of these, selectively acknowledged.
    pub sacked: u32,
    /// Of these, thought lost.
    pub lost: u32,
    /// Of these, sent again and not known to have arrived.
    pub retransmitted: u32,
    /// Retransmissions in a row without progress.
    pub retransmits: u8,
    /// As many as R1 (RFC 9293 §3.8.3): what was sent does not arrive, and the connection may soon be given up.
    pub in_trouble: bool,
    /// Unanswered keep-alive or window probes.
    pub probes: u8,
    /// Bytes acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmitted_segments: u32,
    /// Retransmissions that D-SACK showed to be needless.
    pub dsack_duplicates: u32,
    /// Congestion responses that were undone.
    pub undone: u32,
    /// Segments delivered, by acknowledgment or SACK, duplicates included.
    pub delivered: u32,
    /// Of these, with a congestion mark echoed.
    pub delivered_ce: u32,
    /// The latest delivery rate, in bytes per second; 0 before one.
    pub delivery_rate: u64,
    /// The rate that segments are sent with, in bytes per second; `u64::MAX` without pacing.
    pub pacing_rate: u64,
    /// The furthest reordering seen, in segments.
    pub reordering: u32,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// SACK is in use.
    pub sack: bool,
    /// Window scaling is in use.
    pub window_scaling: bool,
    /// ECN is in use.
    pub ecn: bool,
    /// Data in our SYN was acknowledged.
    pub syn_data: bool,
    /// The peer's window shift.
    pub snd_scale: u8,
    /// Our window shift.
    pub rcv_scale: u8,
    /// `Open`, `Disorder`, `Cwr`, `Recovery`, `Loss`, as Linux numbers them: 0 to 4.
    pub recovery: u8,
    /// The congestion control.
    pub congestion: Algorithm,
    /// What of all this the transport knows. The rest is as in the default and means nothing.
    pub known: Known,
}

/// How much a transport knows of what its connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// [`ConnectionStats::bytes_acked`], which is here what it took over for sending, and
    /// [`ConnectionStats::bytes_received`]: somebody else's TCP has the rest.
    Bytes,
    /// All.
    All,
}

impl Known {
    fn has(self, name: &str) -> bool {
        match self {
            Known::Nothing => false,
            Known::Bytes => matches!(name, "bytes_acked" | "bytes_received"),
            Known::All => true,
        }
    }
}

impl ConnectionStats {
    /// The figures that the transport knows, by name, in the units of their fields; flags are 0 or 1. `None`: there is no such
    /// thing now, as a round trip before the first measurement.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let known = self.known;
        let figures = self.figures().into_iter().filter(move |(name, _)| known.has(name));
        figures.map(|(name, figure)| {
            let is_there = match name {
                "srtt_us" | "rtt_min_us" | "delivery_rate" => figure > 0,
                "ssthresh" => figure != u64::from(u32::MAX),
                "pacing_rate" => figure != u64::MAX,
                _ => true,
            };
            (name, is_there.then_some(figure))
        })
    }

    fn figures(&self) -> [(&'static str, u64); 33] {
        [
            ("srtt_us", u64::from(self.srtt_us)),
            ("rtt_var_us", u64::from(self.rtt_var_us)),
            ("rtt_min_us", u64::from(self.rtt_min_us)),
            ("rto_us", u64::from(self.rto_us)),
            ("cwnd", u64::from(self.cwnd)),
            ("ssthresh", u64::from(self.ssthresh)),
            ("mss", u64::from(self.mss)),
            ("peer_mss", u64::from(self.peer_mss)),
            ("path_mtu", u64::from(self.path_mtu)),
            ("snd_wnd", u64::from(self.snd_wnd)),
            ("rcv_wnd", u64::from(self.rcv_wnd)),
            ("flight", u64::from(self.flight)),
            ("sacked", u64::from(self.sacked)),
            ("lost", u64::from(self.lost)),
            ("retransmitted", u64::from(self.retransmitted)),
            ("retransmits", u64::from(self.retransmits)),
            ("in_trouble", u64::from(self.in_trouble)),
            ("probes", u64::from(self.probes)),
            ("bytes_acked", self.bytes_acked),
            ("bytes_received", self.bytes_received),
            ("retransmitted_segments", u64::from(self.retransmitted_segments)),
            ("dsack_duplicates", u64::from(self.dsack_duplicates)),
            ("undone", u64::from(self.undone)),
            ("delivered", u64::from(self.delivered)),
            ("delivered_ce", u64::from(self.delivered_ce)),
            ("delivery_rate", self.delivery_rate),
            ("pacing_rate", self.pacing_rate),
            ("reordering", u64::from(self.reordering)),
            ("timestamps", u64::from(self.timestamps)),
            ("sack", u64::from(self.sack)),
            ("window_scaling", u64::from(self.window_scaling)),
            ("ecn", u64::from(self.ecn)),
            ("syn_data", u64::from(self.syn_data)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn named(stats: &ConnectionStats) -> Vec<(&'static str, Option<u64>)> {
        stats.named().collect()
    }

    #[test]
    fn only_what_a_transport_knows_is_named() {
        let stats =
            ConnectionStats { bytes_acked: 5, bytes_received: 7, mss: 1460, ..ConnectionStats::default() };
        assert_eq!(named(&stats), []);
        let bytes = named(&ConnectionStats { known: Known::Bytes, ..stats });
        assert_eq!(bytes, [("bytes_acked", Some(5)), ("bytes_received", Some(7))]);
        let all = named(&ConnectionStats { known: Known::All, ..stats });
        assert_eq!(all.len(), stats.figures().len());
        assert!(all.contains(&("mss", Some(1460))) && all.contains(&("bytes_received", Some(7))));
    }

    #[test]
    fn what_is_not_there_yet_is_none_and_a_count_of_nothing_is_zero() {
        let fresh = ConnectionStats {
            ssthresh: u32::MAX,
            pacing_rate: u64::MAX,
            known: Known::All,
            ..ConnectionStats::default()
        };
        let none: Vec<&str> =
            named(&fresh).into_iter().filter(|(_, figure)| figure.is_none()).map(|(name, _)| name).collect();
        assert_eq!(none, ["srtt_us", "rtt_min_us", "ssthresh", "delivery_rate", "pacing_rate"]);
        let measured = ConnectionStats { srtt_us: 850, ssthresh: 14_480, ..fresh };
        assert!(named(&measured).contains(&("srtt_us", Some(850))));
        assert!(named(&measured).contains(&("ssthresh", Some(14_480))));
        assert!(named(&measured).contains(&("retransmits", Some(0))));
    }
}
