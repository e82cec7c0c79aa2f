//! What can be set per stack, with a default and a reason. What differs between connections is `SocketOptions`.

use core::fmt;

use hoststack_transport::{Duration, SocketOptions};
use hoststack_wire::OptionProfile;

/// Limits and timers of both engines. One value is shared by main and all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Most synchronized connections on one worker. Default 2^20: about 0.3 GiB of connection state.
    pub connections_max: usize,
    /// Most half-opens on main. Default 2^20, so that a whole worker's worth of connects may start at once.
    pub half_opens_max: usize,
    /// Most SYN-RECEIVED records on one worker, over all listeners. Default 65536: a SYN flood costs 10 MiB at most.
    pub syn_received_max: usize,
    /// Most TIME-WAIT records on one worker; at the limit the oldest ends early and is counted. Default 2^20.
    pub time_wait_max: usize,
    /// Most listeners on one worker. Default 65536.
    pub listeners_max: usize,
    /// Flow table entries for which room is taken at start, so that the table does not grow under load. Default 4096.
    pub flows_reserved: usize,
    /// What the retransmission timeout adds to the round trip at least. Default 200 ms as Linux; RFC 6298 §2.4 has 1 s for
    /// the whole timeout and admits less.
    pub rto_min: Duration,
    /// The retransmission timeout is no less than this before it is doubled. Default 0: `rto_min` bounds it well enough.
    pub rto_floor: Duration,
    /// Added to every retransmission timeout once it is doubled, but to that of the first SYN. Default 0. FreeBSD adds
    /// 200 ms, and has a floor of 30 ms and no `rto_min`: it backs off from a shorter timeout.
    pub rto_slop: Duration,
    /// Greatest retransmission timeout (RFC 6298 §2.5: at least 60 s). Also bounds the persist timer.
    pub rto_max: Duration,
    /// Retransmission timeout before the first measurement (RFC 6298 §2.1). Default 1 s.
    pub rto_initial: Duration,
    /// Probe the tail of what is in flight when nothing is heard of it (RFC 8985 §7). Default true.
    pub tail_loss_probe: bool,
    /// Nagle with Minshall's modification: a small segment waits only for an earlier small one. False: for any data in
    /// flight (RFC 9293 §3.7.4), the default. Linux has it on: a request that ends in a small segment does not wait for a
    /// delayed acknowledgment.
    pub minshall: bool,
    /// An end that answers what it receives with data acknowledges with that data: once an acknowledgment went along, the
    /// next ones are delayed from the start, until one had to go alone. Linux does this. Default false: the first
    /// `quick_acks` are never delayed.
    pub interactive_acks: bool,
    /// Take segments without a timestamp on a connection that agreed on them, as Linux does, though RFC 7323 §3.2 says
    /// that they SHOULD be dropped. Default false.
    pub tolerate_missing_timestamps: bool,
    /// Tell peers that do SACK what they sent twice (D-SACK, RFC 2883), so that they learn which retransmissions were
    /// needless. Default true.
    pub dsack: bool,
    /// SYN retransmissions before an active open gives up by itself: R2 of RFC 9293 §3.8.3, which wants 3 minutes at least
    /// (MUST-23). Default 7 (183 s); its deadline mostly ends it first.
    pub syn_retries: u8,
    /// SYN retransmissions before the timeout begins to double. Default 0 (RFC 6298 §5.5); FreeBSD, and Linux since 2023,
    /// have 4: a lost SYN costs a second, whether it was the first or the third.
    pub syn_linear_timeouts: u8,
    /// SYN-ACK retransmissions before a SYN-RECEIVED record is dropped. Default 5 (63 s).
    ///
    /// Deviates: RFC 9293 §3.8.3 wants 3 minutes for any SYN; a listener under a flood of them cannot wait so long.
    pub syn_ack_retries: u8,
    /// Retransmissions in a row before a connection is given up: R2 of RFC 9293 §3.8.3. Default 12, above 5 minutes
    /// with the default timers (SHLD-11: 100 s at least).
    pub retransmits_max: u8,
    /// 2 MSL. Default 60 s.
    pub time_wait: Duration,
    /// How long a connection that the app closed waits in FIN-WAIT-2 for the peer's FIN. Default 60 s.
    pub fin_wait_2: Duration,
    /// How long an acknowledgment may be delayed (RFC 9293 §3.8.6.3, MUST-40: below 0.5 s). Default 40 ms.
    pub ack_delay: Duration,
    /// Acknowledgments that are not delayed at the start of a connection, while the peer's window grows. Default 16.
    pub quick_acks: u8,
    /// The least time between probes of a closed window (RFC 9293 §3.8.6.1). Default 0: a retransmission timeout, as the RFC
    /// has it. FreeBSD waits for 5 s.
    pub persist_min: Duration,
    /// The initial window in segments, within the bounds of RFC 6928 §2. Default 10.
    pub initial_window: u8,
    /// After an idle time longer than a retransmission timeout the initial window begins anew (RFC 5681 §4.1). Default true;
    /// false: the window stays as it was, and bursts.
    pub idle_restart: bool,
    /// The first duplicate acknowledgments let new data out (RFC 3042). Default true.
    pub limited_transmit: bool,
    /// In fast recovery the window falls in proportion to what arrives (PRR, RFC 6937). Default true; false: at once.
    pub prr: bool,
    /// Only a reset at RCV.NXT is believed (RFC 5961 §3.2). Default true; false: any in the window (RFC 793).
    pub exact_resets: bool,
    /// A SYN on a connection is answered with a challenge (RFC 5961 §4). Default true; false: one in the window resets the
    /// connection (RFC 793).
    pub challenge_syns: bool,
    /// Acknowledgments older than a window are not believed (RFC 5961 §5). Default true; false: they are duplicates.
    pub bounded_acks: bool,
    /// Drop segments with SYN and FIN, whatever their connection. Default false.
    pub drop_syn_fin: bool,
    /// What gets no reset though nothing is there. Default: nothing (RFC 9293 §3.10.7.1).
    pub blackhole: Blackhole,
    /// Resets that answer segments of no flow, at most, in one step: a flood cannot make the stack a reflector. Default 64.
    pub resets_per_step: u32,
    /// Challenge acknowledgments of one connection in a second (RFC 5961 §7). Default 10.
    pub challenge_acks_per_second: u8,
    /// Most segments that a timer or an input may send at once for one connection (retransmissions). Default 10.
    pub burst_max: usize,
    /// The key of Fast Open cookies (RFC 7413 §4.1.2), as Linux reads it: for servers that share an address. Default
    /// `None`: one that nobody knows, new with each start.
    pub fast_open_key: Option<FastOpenKey>,
    /// The key before that: its cookies are still good, and answered with a new one (RFC 7413 §4.1.2). Default `None`.
    pub fast_open_key_previous: Option<FastOpenKey>,
    /// Most connections of one listener, on one worker, whose app has them before their handshake is complete
    /// (RFC 7413 §5.1: `PendingFastOpenRequests`); beyond, handshakes are the usual ones. Default 256.
    pub fast_open_pending_max: u32,
    /// Most servers whose Fast Open cookies are remembered; at the limit the one not used for longest is forgotten.
    /// Default 4096.
    pub fast_open_cache_max: usize,
    /// When listeners answer SYNs without keeping state. Default: under pressure.
    pub syn_cookies: SynCookies,
    /// How the options of SYNs are written. Default: as Linux does.
    pub option_profile: OptionProfile,
}

/// A key of Fast Open cookies. Whoever has it can forge them, so that no text shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FastOpenKey([u8; 16]);

impl FastOpenKey {
    /// The two numbers that SipHash takes, in little endian.
    pub(crate) fn halves(self) -> [u64; 2] {
        let number = u128::from_le_bytes(self.0);
        // Cannot lose bits: the lower half, and the upper.
        [number as u64, (number >> 64) as u64]
    }
}

impl From<[u8; 16]> for FastOpenKey {
    fn from(bytes: [u8; 16]) -> FastOpenKey {
        FastOpenKey(bytes)
    }
}

impl fmt::Debug for FastOpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FastOpenKey(..)")
    }
}

/// When a SYN is answered with a cookie instead of a SYN-RECEIVED record (RFC 4987 §3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynCookies {
    /// Never: a SYN that finds no room is dropped.
    Never,
    /// When the listener's backlog or the SYN-RECEIVED pool is full.
    #[default]
    UnderPressure,
    /// Always: for tests.
    Always,
}

/// Which segments of no flow are dropped without the reset that RFC 9293 §3.10.7.1 has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Blackhole {
    /// None.
    #[default]
    Off,
    /// SYNs: a scan for open ports learns nothing and waits.
    Syns,
    /// All.
    All,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            connections_max: 1 << 20,
            half_opens_max: 1 << 20,
            syn_received_max: 1 << 16,
            time_wait_max: 1 << 20,
            listeners_max: 1 << 16,
            flows_reserved: 4096,
            rto_min: Duration::from_millis(200),
            rto_floor: Duration::ZERO,
            rto_slop: Duration::ZERO,
            rto_max: Duration::from_secs(60),
            rto_initial: Duration::from_secs(1),
            tail_loss_probe: true,
            minshall: false,
            interactive_acks: false,
            tolerate_missing_timestamps: false,
            dsack: true,
            syn_retries: 7,
            syn_linear_timeouts: 0,
            syn_ack_retries: 5,
            retransmits_max: 12,
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            ack_delay: Duration::from_millis(40),
            quick_acks: 16,
            persist_min: Duration::ZERO,
            initial_window: 10,
            idle_restart: true,
            limited_transmit: true,
            prr: true,
            exact_resets: true,
            challenge_syns: true,
            bounded_acks: true,
            drop_syn_fin: false,
            blackhole: Blackhole::Off,
            resets_per_step: 64,
            challenge_acks_per_second: 10,
            burst_max: 10,
            fast_open_key: None,
            fast_open_key_previous: None,
            fast_open_pending_max: 256,
            fast_open_cache_max: 4096,
            syn_cookies: SynCookies::UnderPressure,
            option_profile: OptionProfile::Linux,
        }
    }
}

/// The shift with which the whole receive window can be announced (RFC 7323 §2.2).
pub(crate) fn rx_scale(options: &SocketOptions) -> u8 {
    (0..14).find(|&shift| options.rx_window >> shift <= u32::from(u16::MAX)).unwrap_or(14)
}

/// The window that our SYN or SYN-ACK announces, which is never scaled (RFC 7323 §2.2).
pub(crate) fn syn_window(options: &SocketOptions) -> u16 {
    u16::try_from(options.rx_window.min(options.rx_window_initial)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn no_text_shows_a_key() {
        let with = |byte: u8| TcpConfig {
            fast_open_key: Some([byte; 16].into()),
            fast_open_key_previous: Some([byte + 1; 16].into()),
            ..TcpConfig::default()
        };
        assert_eq!(format!("{:?}", with(0x5a)), format!("{:?}", with(0xc3)));
        assert_eq!(format!("{:#?}", with(0x5a)), format!("{:#?}", with(0xc3)));
        assert_ne!(with(0x5a), with(0xc3));
    }
}
