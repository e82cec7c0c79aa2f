//! The system-wide settings that scripts change with `sysctl`: what they are at first, and what they mean to the stack.
//!
//! A value that is set is kept and read back, whether the stack has a counterpart or not. What has one is read by
//! [`Settings::tcp`] when the stack is built and by [`Settings::socket`] when a socket is opened.

use std::collections::BTreeMap;

use hoststack::app::{Algorithm, Duration, EcnMode, Keepalive, SocketOptions};
use hoststack::tcp::{Blackhole, FastOpenKey, SynCookies, TcpConfig};
use hoststack_wire::OptionProfile;

use crate::flags::Profile;

/// Linux's settings that mean something here, with its defaults.
const LINUX: &[(&str, &str)] = &[
    ("net.core.rmem_default", "212992"),
    ("net.core.rmem_max", "212992"),
    ("net.core.somaxconn", "4096"),
    ("net.core.wmem_default", "212992"),
    ("net.core.wmem_max", "212992"),
    ("net.ipv4.ip_no_pmtu_disc", "0"),
    ("net.ipv4.tcp_abort_on_overflow", "0"),
    ("net.ipv4.tcp_base_mss", "1024"),
    ("net.ipv4.tcp_challenge_ack_limit", "2147483647"),
    ("net.ipv4.tcp_congestion_control", "cubic"),
    ("net.ipv4.tcp_dsack", "1"),
    ("net.ipv4.tcp_early_retrans", "3"),
    ("net.ipv4.tcp_ecn", "2"),
    ("net.ipv4.tcp_ecn_fallback", "1"),
    ("net.ipv4.tcp_fastopen", "1"),
    ("net.ipv4.tcp_fastopen_blackhole_timeout_sec", "0"),
    ("net.ipv4.tcp_fin_timeout", "60"),
    ("net.ipv4.tcp_frto", "2"),
    ("net.ipv4.tcp_invalid_ratelimit", "500"),
    ("net.ipv4.tcp_keepalive_intvl", "75"),
    ("net.ipv4.tcp_keepalive_probes", "9"),
    ("net.ipv4.tcp_keepalive_time", "7200"),
    ("net.ipv4.tcp_max_syn_backlog", "4096"),
    ("net.ipv4.tcp_min_tso_segs", "2"),
    ("net.ipv4.tcp_moderate_rcvbuf", "1"),
    ("net.ipv4.tcp_mtu_probing", "0"),
    ("net.ipv4.tcp_no_metrics_save", "0"),
    ("net.ipv4.tcp_notsent_lowat", "4294967295"),
    ("net.ipv4.tcp_recovery", "1"),
    ("net.ipv4.tcp_reordering", "3"),
    ("net.ipv4.tcp_retries1", "3"),
    ("net.ipv4.tcp_retries2", "15"),
    ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    ("net.ipv4.tcp_sack", "1"),
    ("net.ipv4.tcp_slow_start_after_idle", "1"),
    ("net.ipv4.tcp_syn_retries", "6"),
    ("net.ipv4.tcp_synack_retries", "5"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv4.tcp_timestamps", "1"),
    ("net.ipv4.tcp_tw_reuse", "2"),
    ("net.ipv4.tcp_window_scaling", "1"),
    ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
];

/// FreeBSD's.
const FREEBSD: &[(&str, &str)] = &[
    ("kern.ipc.maxsockbuf", "2097152"),
    ("kern.ipc.soacceptqueue", "128"),
    ("net.inet.tcp.abc_l_var", "2"),
    ("net.inet.tcp.ack_war_cnt", "5"),
    ("net.inet.tcp.ack_war_timewindow", "1000"),
    ("net.inet.tcp.always_keepalive", "1"),
    ("net.inet.tcp.blackhole", "0"),
    ("net.inet.tcp.cc.abe", "0"),
    ("net.inet.tcp.cc.algorithm", "cubic"),
    ("net.inet.tcp.delacktime", "40"),
    ("net.inet.tcp.delayed_ack", "1"),
    ("net.inet.tcp.do_prr", "1"),
    ("net.inet.tcp.drop_synfin", "0"),
    ("net.inet.tcp.ecn.enable", "2"),
    ("net.inet.tcp.fast_finwait2_recycle", "0"),
    ("net.inet.tcp.fastopen.client_enable", "1"),
    ("net.inet.tcp.fastopen.server_enable", "0"),
    ("net.inet.tcp.finwait2_timeout", "60000"),
    ("net.inet.tcp.functions_default", "freebsd"),
    ("net.inet.tcp.icmp_may_rst", "1"),
    ("net.inet.tcp.initcwnd_segments", "10"),
    ("net.inet.tcp.insecure_ack", "0"),
    ("net.inet.tcp.insecure_rst", "0"),
    ("net.inet.tcp.insecure_syn", "0"),
    ("net.inet.tcp.keepcnt", "8"),
    ("net.inet.tcp.keepidle", "7200000"),
    ("net.inet.tcp.keepinit", "75000"),
    ("net.inet.tcp.keepintvl", "75000"),
    ("net.inet.tcp.minmss", "216"),
    ("net.inet.tcp.msl", "30000"),
    ("net.inet.tcp.mssdflt", "536"),
    ("net.inet.tcp.newcwv", "0"),
    ("net.inet.tcp.path_mtu_discovery", "1"),
    ("net.inet.tcp.persmax", "60000"),
    ("net.inet.tcp.persmin", "5000"),
    ("net.inet.tcp.pmtud_blackhole_detection", "0"),
    ("net.inet.tcp.recvbuf_auto", "1"),
    ("net.inet.tcp.recvspace", "65536"),
    ("net.inet.tcp.rexmit_initial", "1000"),
    ("net.inet.tcp.rexmit_min", "30"),
    ("net.inet.tcp.rexmit_slop", "200"),
    ("net.inet.tcp.rfc1323", "1"),
    ("net.inet.tcp.rfc3042", "1"),
    ("net.inet.tcp.rfc3390", "1"),
    ("net.inet.tcp.rfc3465", "1"),
    ("net.inet.tcp.sack.enable", "1"),
    ("net.inet.tcp.sendbuf_auto", "1"),
    ("net.inet.tcp.sendspace", "32768"),
    ("net.inet.tcp.syncache.rexmtlimit", "3"),
    ("net.inet.tcp.syncookies", "1"),
    ("net.inet.tcp.syncookies_only", "0"),
    ("net.inet.tcp.tolerate_missing_ts", "0"),
    ("net.inet.tcp.tso", "1"),
    ("security.bsd.see_other_uids", "1"),
];

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    profile: Profile,
    values: BTreeMap<String, String>,
    /// What was set, by the scripts rather than by default.
    set: BTreeMap<String, String>,
    /// What `set_sysctls.py` found and `sysctl_restore` puts back.
    saved: Vec<(String, String)>,
}

impl Settings {
    /// The defaults of a system.
    pub fn new(profile: Profile) -> Settings {
        let defaults = match profile {
            Profile::Linux => LINUX,
            Profile::FreeBsd => FREEBSD,
        };
        let values = defaults.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Settings { profile, values, set: BTreeMap::new(), saved: Vec::new() }
    }

    /// A setting, by its name with dots or its path with slashes.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(&dotted(name)).map(String::as_str)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets one; blanks between the parts of a value count as one.
    pub fn set(&mut self, name: &str, value: &str) {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        self.set.insert(dotted(name), value.clone());
        self.values.insert(dotted(name), value);
    }

    /// Remembers what a setting is, for [`Settings::restore`].
    pub fn save(&mut self, name: &str) {
        let value = self.value(name).unwrap_or("0").to_owned();
        self.saved.push((dotted(name), value));
    }

    /// Puts back what was saved.
    pub fn restore(&mut self) {
        for (name, value) in std::mem::take(&mut self.saved) {
            self.set(&name, &value);
        }
    }

    fn text(&self, linux: &str, freebsd: &str) -> Option<&str> {
        match self.profile {
            Profile::Linux => self.value(&format!("net.ipv4.{linux}")),
            Profile::FreeBsd => self.value(&format!("net.inet.tcp.{freebsd}")),
        }
    }

    /// A number, in decimal or with 0x.
    pub fn number(&self, name: &str) -> Option<u64> {
        parse(self.value(name)?)
    }

    fn linux(&self, name: &str) -> Option<u64> {
        if self.profile == Profile::Linux { self.number(&format!("net.ipv4.{name}")) } else { None }
    }

    fn freebsd(&self, name: &str) -> Option<u64> {
        if self.profile == Profile::FreeBsd { self.number(&format!("net.inet.tcp.{name}")) } else { None }
    }

    /// The bits of `tcp_fastopen`: 1 client, 2 server, 4 client without cookie, 0x200 server without cookie, 0x400 for
    /// all listeners.
    pub fn fast_open(&self) -> u64 {
        match self.profile {
            Profile::Linux => self.linux("tcp_fastopen").unwrap_or(0),
            Profile::FreeBsd => {
                self.freebsd("fastopen.client_enable").unwrap_or(0)
                    | self.freebsd("fastopen.server_enable").unwrap_or(0) << 1
            }
        }
    }

    /// The keys of fast open cookies, newest first: four words in hexadecimal each (`tcp_fastopen_key`).
    fn fast_open_keys(&self) -> [Option<FastOpenKey>; 2] {
        let mut keys = self.value("net.ipv4.tcp_fastopen_key").unwrap_or("").split(',').map(|text| {
            let mut key = [0; 16];
            let mut words = text.trim().split('-');
            for part in key.chunks_exact_mut(4) {
                let word = u32::from_str_radix(words.next()?, 16).ok()?;
                part.copy_from_slice(&word.to_le_bytes());
            }
            words.next().is_none().then_some(key.into())
        });
        [keys.next().flatten(), keys.next().flatten()]
    }

    /// One of the three numbers of `tcp_rmem` or `tcp_wmem`, if a script has set them.
    pub fn memory(&self, name: &str, which: usize) -> Option<u32> {
        let value = self.set.get(&format!("net.ipv4.{name}"))?;
        value.split(' ').nth(which)?.parse().ok()
    }

    /// FreeBSD's `sendspace` or `recvspace`, if a script has set it.
    pub fn space(&self, name: &str) -> Option<u32> {
        self.set.get(&format!("net.inet.tcp.{name}"))?.parse().ok()
    }

    /// The threshold under which a socket may be written to (`tcp_notsent_lowat`).
    pub fn notsent_lowat(&self) -> u32 {
        self.linux("tcp_notsent_lowat").and_then(|bytes| bytes.try_into().ok()).unwrap_or(u32::MAX)
    }

    /// The least group of segments that pacing leaves together (`tcp_min_tso_segs`).
    pub fn group_min(&self) -> u32 {
        self.linux("tcp_min_tso_segs").and_then(|count| count.try_into().ok()).unwrap_or(2)
    }

    /// The algorithm of sockets that do not ask for one.
    pub fn congestion(&self) -> Algorithm {
        self.text("tcp_congestion_control", "cc.algorithm").and_then(algorithm).unwrap_or_default()
    }

    /// What a socket has that sets nothing by itself.
    pub fn socket(&self) -> SocketOptions {
        let is_on = |linux: &str, freebsd: &str| {
            self.text(linux, freebsd).and_then(parse).is_none_or(|value| value != 0)
        };
        let ecn = match self.text("tcp_ecn", "ecn.enable").and_then(parse) {
            Some(0) => EcnMode::Off,
            Some(1 | 4 | 5) => EcnMode::Request,
            _ => EcnMode::Accept,
        };
        let syn_retries = self.linux("tcp_syn_retries").and_then(|retries| retries.try_into().ok());
        SocketOptions {
            congestion: self.congestion(),
            ecn,
            sack: is_on("tcp_sack", "sack.enable"),
            timestamps: is_on("tcp_timestamps", "rfc1323"),
            window_scale: is_on("tcp_window_scaling", "rfc1323"),
            mtu_probing: self.linux("tcp_mtu_probing").is_some_and(|value| value != 0)
                || self.freebsd("pmtud_blackhole_detection").is_some_and(|value| value != 0),
            syn_retries,
            quick_ack: self.freebsd("delayed_ack") == Some(0),
            // Linux tells the app of an ICMP error of its connect at once.
            abort_on_icmp: self.profile == Profile::Linux,
            keepalive: self
                .freebsd("always_keepalive")
                .is_some_and(|value| value != 0)
                .then(|| self.keepalive()),
            ..SocketOptions::DEFAULT
        }
    }

    /// How long a connect may take; Linux's SYN retries end it before that.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.freebsd("keepinit").unwrap_or(600_000).max(1))
    }

    /// The probes of a socket that asks for them and says nothing else.
    pub fn keepalive(&self) -> Keepalive {
        let (linux, freebsd) = (|name| self.linux(name), |name| self.freebsd(name));
        let milliseconds = |seconds: Option<u64>, ms: Option<u64>, default: u32| {
            let ms = seconds.map(|seconds| seconds.saturating_mul(1000)).or(ms);
            ms.and_then(|ms| ms.try_into().ok()).unwrap_or(default)
        };
        let probes = linux("tcp_keepalive_probes").or_else(|| freebsd("keepcnt"));
        Keepalive {
            idle_ms: milliseconds(linux("tcp_keepalive_time"), freebsd("keepidle"), 7_200_000),
            interval_ms: milliseconds(linux("tcp_keepalive_intvl"), freebsd("keepintvl"), 75_000),
            probes: probes.and_then(|probes| probes.try_into().ok()).unwrap_or(9),
        }
    }

    /// The stack's limits and timers.
    pub fn tcp(&self) -> TcpConfig {
        let [fast_open_key, fast_open_key_previous] = self.fast_open_keys();
        let is_only = self.freebsd("syncookies_only").is_some_and(|value| value != 0);
        let syn_cookies = match self.text("tcp_syncookies", "syncookies").and_then(parse) {
            _ if is_only => SynCookies::Always,
            Some(0) => SynCookies::Never,
            Some(2) => SynCookies::Always,
            _ => SynCookies::UnderPressure,
        };
        let option_profile = match self.profile {
            Profile::Linux => OptionProfile::Linux,
            Profile::FreeBsd => OptionProfile::FreeBsd,
        };
        let base = TcpConfig {
            connections_max: 4096,
            half_opens_max: 4096,
            fast_open_key,
            fast_open_key_previous,
            syn_cookies,
            option_profile,
            ..TcpConfig::default()
        };
        let count =
            |value: Option<u64>, default: u8| value.and_then(|n| n.try_into().ok()).unwrap_or(default);
        let ms = |value: Option<u64>, default: Duration| value.map_or(default, Duration::from_millis);
        match self.profile {
            Profile::Linux => TcpConfig {
                syn_retries: count(self.linux("tcp_syn_retries"), base.syn_retries),
                syn_ack_retries: count(self.linux("tcp_synack_retries"), base.syn_ack_retries),
                retransmits_max: count(self.linux("tcp_retries2"), base.retransmits_max),
                fin_wait_2: self.linux("tcp_fin_timeout").map_or(base.fin_wait_2, Duration::from_secs),
                tail_loss_probe: self.linux("tcp_early_retrans").is_none_or(|value| value >= 3),
                rto_max: Duration::from_secs(120),
                dsack: self.linux("tcp_dsack") != Some(0),
                minshall: true,
                interactive_acks: true,
                idle_restart: self.linux("tcp_slow_start_after_idle") != Some(0),
                syn_linear_timeouts: count(self.linux("tcp_syn_linear_timeouts"), 0),
                tolerate_missing_timestamps: true,
                ..base
            },
            Profile::FreeBsd => TcpConfig {
                rto_min: Duration::ZERO,
                rto_floor: ms(self.freebsd("rexmit_min"), Duration::from_millis(30)),
                rto_slop: ms(self.freebsd("rexmit_slop"), Duration::from_millis(200)),
                rto_initial: ms(self.freebsd("rexmit_initial"), base.rto_initial),
                rto_max: Duration::from_secs(64),
                syn_ack_retries: count(self.freebsd("syncache.rexmtlimit"), 3),
                time_wait: ms(self.freebsd("msl").map(|msl| msl.saturating_mul(2)), base.time_wait),
                fin_wait_2: match self.freebsd("fast_finwait2_recycle") {
                    None | Some(0) => {
                        let Keepalive { interval_ms, probes, .. } = self.keepalive();
                        Duration::from_millis(interval_ms.into()) * u32::from(probes)
                    }
                    Some(_) => ms(self.freebsd("finwait2_timeout"), base.fin_wait_2),
                },
                challenge_acks_per_second: count(self.freebsd("ack_war_cnt"), 5),
                ack_delay: ms(self.freebsd("delacktime"), base.ack_delay),
                quick_acks: 0,
                tail_loss_probe: false,
                tolerate_missing_timestamps: self.freebsd("tolerate_missing_ts") != Some(0),
                // 1, 1, 1, 1, 1, 2, 4, ... s until `keepinit` ends it.
                syn_retries: u8::MAX,
                syn_linear_timeouts: 4,
                persist_min: ms(self.freebsd("persmin"), Duration::from_secs(5)),
                initial_window: match self.freebsd("initcwnd_segments") {
                    Some(0) if self.freebsd("rfc3390") == Some(0) => 2,
                    segments => count(segments, 10),
                },
                limited_transmit: self.freebsd("rfc3042") != Some(0),
                prr: self.freebsd("do_prr") != Some(0),
                exact_resets: self.freebsd("insecure_rst").unwrap_or(0) == 0,
                challenge_syns: self.freebsd("insecure_syn").unwrap_or(0) == 0,
                bounded_acks: self.freebsd("insecure_ack").unwrap_or(0) == 0,
                drop_syn_fin: self.freebsd("drop_synfin").is_some_and(|value| value != 0),
                blackhole: match self.freebsd("blackhole") {
                    None | Some(0) => Blackhole::Off,
                    Some(1) => Blackhole::Syns,
                    Some(_) => Blackhole::All,
                },
                ..base
            },
        }
    }
}

/// A congestion control by the name that Linux or FreeBSD gives it.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "reno" => Some(Algorithm::NewReno),
        "bbr" | "bbr2" | "bbr3" => Some(Algorithm::Bbr),
        _ => Algorithm::from_name(name),
    }
}

/// The name that a system has for an algorithm.
pub fn algorithm_name(profile: Profile, algorithm: Algorithm) -> &'static str {
    match (profile, algorithm) {
        (Profile::Linux, Algorithm::NewReno) => "reno",
        _ => algorithm.name(),
    }
}

fn parse(value: &str) -> Option<u64> {
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

/// `/proc/sys/net/ipv4/x` and `net/ipv4/x` are `net.ipv4.x`.
fn dotted(name: &str) -> String {
    let name = name.trim();
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    name.replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_and_restored() {
        let mut settings = Settings::new(Profile::Linux);
        assert_eq!(settings.value("net.ipv4.tcp_sack"), Some("1"));
        settings.save("/proc/sys/net/ipv4/tcp_sack");
        settings.set("net/ipv4/tcp_sack", "0");
        assert!(!settings.socket().sack);
        settings.restore();
        assert!(settings.socket().sack);
        settings.set("net.ipv4.tcp_rmem", "4096\t540000   900000");
        assert_eq!((settings.memory("tcp_rmem", 1), settings.memory("tcp_wmem", 1)), (Some(540_000), None));
    }

    #[test]
    fn each_profile_has_its_names() {
        let mut linux = Settings::new(Profile::Linux);
        linux.set("net.ipv4.tcp_congestion_control", "reno");
        linux.set("net.inet.tcp.sack.enable", "0");
        let socket = linux.socket();
        assert_eq!((socket.congestion, socket.sack), (Algorithm::NewReno, true));
        let mut freebsd = Settings::new(Profile::FreeBsd);
        freebsd.set("net.inet.tcp.rfc1323", "0");
        freebsd.set("net.inet.tcp.msl", "1000");
        freebsd.set("net.inet.tcp.keepinit", "5000");
        freebsd.set("net.inet.tcp.delayed_ack", "0");
        let socket = freebsd.socket();
        assert_eq!((socket.timestamps, socket.window_scale, socket.sack), (false, false, true));
        assert_eq!((freebsd.connect_timeout(), socket.quick_ack), (Duration::from_secs(5), true));
        assert_eq!(freebsd.tcp().time_wait, Duration::from_secs(2));
        let (ms, tcp) = (Duration::from_millis, freebsd.tcp());
        assert_eq!((tcp.rto_min, tcp.rto_floor, tcp.rto_slop), (ms(0), ms(30), ms(200)));
        assert_eq!((tcp.syn_linear_timeouts, tcp.persist_min, tcp.fin_wait_2), (4, ms(5_000), ms(600_000)));
        assert!(
            tcp.exact_resets && tcp.challenge_syns && tcp.bounded_acks && tcp.limited_transmit && tcp.prr
        );
        for (name, value) in [
            ("insecure_rst", "1"),
            ("insecure_syn", "1"),
            ("insecure_ack", "1"),
            ("rfc3042", "0"),
            ("do_prr", "0"),
            ("drop_synfin", "1"),
            ("blackhole", "2"),
            ("initcwnd_segments", "3"),
            ("fast_finwait2_recycle", "1"),
            ("finwait2_timeout", "2000"),
            ("syncookies_only", "1"),
        ] {
            freebsd.set(&format!("net.inet.tcp.{name}"), value);
        }
        let tcp = freebsd.tcp();
        assert!(!tcp.exact_resets && !tcp.challenge_syns && !tcp.bounded_acks);
        assert!(!tcp.limited_transmit && !tcp.prr && tcp.drop_syn_fin);
        assert_eq!((tcp.blackhole, tcp.initial_window, tcp.fin_wait_2), (Blackhole::All, 3, ms(2_000)));
        assert_eq!(tcp.syn_cookies, SynCookies::Always);
        freebsd.set("net.inet.tcp.fastopen.server_enable", "1");
        assert_eq!(freebsd.fast_open(), 3);
    }
}
