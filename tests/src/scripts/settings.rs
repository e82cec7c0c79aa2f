//! What a script may set: options of its connections, timers and limits of TCP, the wire.

use hoststack::SessionLimits;
use hoststack::app::{Algorithm, Duration, EcnMode, Keepalive, SessionOptions, SocketOption, SocketOptions};
use hoststack::tcp::{SynCookies, TcpConfig};

/// What holds for the whole script.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Options of the listener and of connects.
    pub socket: SocketOptions,
    /// TCP's limits and timers.
    pub tcp: TcpConfig,
    /// Fifo sizes. Default 65535 for receiving, 1 MiB for sending.
    pub fifos: SessionOptions,
    /// Limits of the session layer.
    pub sessions: SessionLimits,
    /// Of the wire, in bytes.
    pub mtu: usize,
    /// Over IPv6.
    pub is_v6: bool,
    /// Of all chance in the stack.
    pub seed: u64,
    /// Of the listener.
    pub backlog: u32,
    /// Of connects.
    pub connect_timeout: Duration,
    /// How far a time may be off.
    pub tolerance: Duration,
    /// The peer's initial sequence number.
    pub peer_isn: u32,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            socket: SocketOptions::DEFAULT,
            // A script is small: limits of its size are taken in no time.
            tcp: TcpConfig {
                connections_max: 64,
                half_opens_max: 64,
                flows_reserved: 64,
                ..TcpConfig::default()
            },
            fifos: SessionOptions { rx_capacity: 65_535, tx_capacity: 1 << 20, tx_capacity_max: 0 },
            sessions: SessionLimits { sessions: 64, chunks: 1 << 12, ..SessionLimits::default() },
            mtu: 1500,
            is_v6: false,
            seed: 1,
            backlog: 16,
            connect_timeout: Duration::from_secs(600),
            tolerance: Duration::from_micros(10),
            peer_isn: 70_000,
        }
    }
}

/// A time span: `200ms`, `1.5s`, `10us`, or `0`.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let unit_us: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let mut us = whole.parse::<u64>().ok()?.checked_mul(unit_us)?;
    let mut place = unit_us;
    for digit in part.chars() {
        place /= 10;
        us += u64::from(digit.to_digit(10)?) * place;
    }
    Some(Duration::from_micros(us))
}

/// `on` or `off`.
fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn millis(text: &str) -> Option<u32> {
    u32::try_from(duration(text)?.as_millis()).ok()
}

/// `off`, or idle time, interval, number of probes.
fn keepalive(words: &[&str]) -> Option<Option<Keepalive>> {
    match *words {
        ["off"] => Some(None),
        [idle, interval, probes] => Some(Some(Keepalive {
            idle_ms: millis(idle)?,
            interval_ms: millis(interval)?,
            probes: probes.parse().ok()?,
        })),
        _ => None,
    }
}

/// What `set NAME VALUE` changes while a connection is up.
pub fn change(words: &[&str]) -> Option<SocketOption> {
    let (&name, values) = words.split_first()?;
    let value = *values.first()?;
    Some(match name {
        "nodelay" => SocketOption::NoDelay(switch(value)?),
        "cork" => SocketOption::Cork(switch(value)?),
        "quick_ack" => SocketOption::QuickAck(switch(value)?),
        "keepalive" => SocketOption::Keepalive(keepalive(values)?),
        "user_timeout" => SocketOption::UserTimeout(millis(value)?),
        "linger" if value == "off" => SocketOption::Linger(None),
        "linger" => SocketOption::Linger(Some(millis(value)?)),
        "mss_max" => SocketOption::MssMax(value.parse().ok()?),
        "pacing_rate_max" => SocketOption::PacingRateMax(value.parse().ok()?),
        "congestion" => SocketOption::Congestion(Algorithm::from_name(value)?),
        "dscp" => SocketOption::Dscp(value.parse().ok()?),
        "ttl" => SocketOption::Ttl(value.parse().ok()?),
        _ => return None,
    })
}

impl Setup {
    /// Takes a line of the header; `None` when it is not one, or its value is none.
    pub fn set(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["option", name, ref values @ ..] => self.option(name, values)?,
            ["config", name, value] => self.config(name, value)?,
            ["mtu", bytes] => self.mtu = bytes.parse().ok()?,
            ["rx_buffer", bytes] => self.fifos.rx_capacity = bytes.parse().ok()?,
            ["tx_buffer", bytes] => self.fifos.tx_capacity = bytes.parse().ok()?,
            ["tx_buffer_max", bytes] => self.fifos.tx_capacity_max = bytes.parse().ok()?,
            ["chunks", count] => self.sessions.chunks = count.parse().ok()?,
            ["sessions", count] => self.sessions.sessions = count.parse().ok()?,
            ["ip", "6"] => self.is_v6 = true,
            ["seed", number] => self.seed = number.parse().ok()?,
            ["backlog", number] => self.backlog = number.parse().ok()?,
            ["connect_timeout", time] => self.connect_timeout = duration(time)?,
            ["tolerance", time] => self.tolerance = duration(time)?,
            ["peer_isn", number] => self.peer_isn = number.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn option(&mut self, name: &str, values: &[&str]) -> Option<()> {
        let value = *values.first()?;
        let socket = &mut self.socket;
        match name {
            "congestion" => socket.congestion = Algorithm::from_name(value)?,
            "ecn" => {
                socket.ecn = match value {
                    "off" => EcnMode::Off,
                    "accept" => EcnMode::Accept,
                    "request" => EcnMode::Request,
                    _ => return None,
                }
            }
            "keepalive" => socket.keepalive = keepalive(values)?,
            "user_timeout" => socket.user_timeout_ms = millis(value)?,
            "linger" => socket.linger_ms = if value == "off" { None } else { Some(millis(value)?) },
            "mss_max" => socket.mss_max = Some(value.parse().ok()?),
            "syn_retries" => socket.syn_retries = Some(value.parse().ok()?),
            "dscp" => socket.dscp = value.parse().ok()?,
            "ttl" => socket.ttl = value.parse().ok()?,
            "pacing_rate_max" => socket.pacing_rate_max = value.parse().ok()?,
            "rx_window_initial" => socket.rx_window_initial = value.parse().ok()?,
            "nodelay" => socket.nodelay = switch(value)?,
            "cork" => socket.cork = switch(value)?,
            "quick_ack" => socket.quick_ack = switch(value)?,
            "pacing" => socket.pacing = switch(value)?,
            "window_scale" => socket.window_scale = switch(value)?,
            "timestamps" => socket.timestamps = switch(value)?,
            "sack" => socket.sack = switch(value)?,
            "fast_open" => socket.fast_open = switch(value)?,
            "mtu_probing" => socket.mtu_probing = switch(value)?,
            "abort_on_icmp" => socket.abort_on_icmp = switch(value)?,
            _ => return None,
        }
        Some(())
    }

    fn config(&mut self, name: &str, value: &str) -> Option<()> {
        let tcp = &mut self.tcp;
        match name {
            "rto_min" => tcp.rto_min = duration(value)?,
            "rto_max" => tcp.rto_max = duration(value)?,
            "rto_initial" => tcp.rto_initial = duration(value)?,
            "time_wait" => tcp.time_wait = duration(value)?,
            "fin_wait_2" => tcp.fin_wait_2 = duration(value)?,
            "ack_delay" => tcp.ack_delay = duration(value)?,
            "tail_loss_probe" => tcp.tail_loss_probe = switch(value)?,
            "syn_retries" => tcp.syn_retries = value.parse().ok()?,
            "syn_ack_retries" => tcp.syn_ack_retries = value.parse().ok()?,
            "retransmits_max" => tcp.retransmits_max = value.parse().ok()?,
            "quick_acks" => tcp.quick_acks = value.parse().ok()?,
            "resets_per_step" => tcp.resets_per_step = value.parse().ok()?,
            "challenge_acks_per_second" => tcp.challenge_acks_per_second = value.parse().ok()?,
            "burst_max" => tcp.burst_max = value.parse().ok()?,
            "time_wait_max" => tcp.time_wait_max = value.parse().ok()?,
            "syn_cookies" => {
                tcp.syn_cookies = match value {
                    "never" => SynCookies::Never,
                    "under-pressure" => SynCookies::UnderPressure,
                    "always" => SynCookies::Always,
                    _ => return None,
                }
            }
            "syn_received_max" => tcp.syn_received_max = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}
