//! `--so_flags`: what packetdrill does not tell the library by itself.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What is accepted, printed when something is not.
pub const USAGE: &str = "\
--so_flags takes words NAME=VALUE with commas or blanks between them:
  profile=linux|freebsd  timers, acknowledgment policy, buffer sizes (default linux)
  mtu=N                  of the device, 296 to 65535 (default: --mtu, 1500)
  mss=N                  instead of mtu: the MTU that gives this IPv4 MSS (mtu = N + 40)
  local=ADDRESS          our address, IPv4 or IPv6, one of each (default: --local_ip of the command line or of the
                         script, that to which the script binds, 192.168.0.1 and fd3d:fa7b:d17d::1)
  remote=ADDRESS         the peer's: taken for compatibility, all addresses are at the other end
  cap=SECONDS            how far an empty netdev_receive runs the clock before it gives up (default 300)
  rcvbuf=BYTES           receive buffer of sockets that do not set SO_RCVBUF
                         (default: what needs window scale 8 in profile linux, 6 in freebsd)
  sndbuf=BYTES           send buffer of sockets that do not set SO_SNDBUF (default 87040, 32768 in freebsd)
  seed=N                 of sequence numbers and ports (default 1)
  psh=buffers|exact      PSH of data where Linux's send buffers end (default in profile linux), or as the stack sets it
  left=ignore|report     whether packets that no script line took end a script that passed (default ignore)";

/// Whose habits the stack follows where the RFCs leave a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Linux: the first segments acknowledged at once, RTO from 200 ms, SO_SNDBUF and SO_RCVBUF doubled.
    Linux,
    /// FreeBSD: every second segment acknowledged, RTO from 230 ms.
    FreeBsd,
}

/// What a run is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Whose habits.
    pub profile: Profile,
    /// Largest IP packet that the stack sends, in bytes.
    pub mtu: usize,
    /// Our IPv4 address.
    pub local_v4: Ipv4Addr,
    /// Our IPv6 address.
    pub local_v6: Ipv6Addr,
    /// How far an empty `netdev_receive` runs the clock, in microseconds.
    pub cap_us: u64,
    /// Receive buffer of sockets that do not set it, in bytes; `None`: by profile.
    pub rcvbuf: Option<u32>,
    /// Send buffer of sockets that do not set it, in bytes; `None`: by profile.
    pub sndbuf: Option<u32>,
    /// Seed of all chance in the stack.
    pub seed: u64,
    /// Whether PSH is left as the stack sets it; `None`: by profile.
    pub exact_push: Option<bool>,
    /// Whether packets that nobody took are an error.
    pub reports_left: bool,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            profile: Profile::Linux,
            mtu: 1500,
            local_v4: Ipv4Addr::new(192, 168, 0, 1),
            local_v6: Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1),
            cap_us: 300_000_000,
            rcvbuf: None,
            sndbuf: None,
            seed: 1,
            exact_push: None,
            reports_left: false,
        }
    }
}

impl Flags {
    /// Reads the text of `--so_flags`.
    ///
    /// # Errors
    /// A sentence that names the word that is wrong.
    pub fn parse(text: &str) -> Result<Flags, String> {
        Flags::default().and(text)
    }

    /// The same over what the tool was told itself: `--local_ip=` and `--mtu=` of its command line and before that of its
    /// script, which it does not hand on.
    ///
    /// # Errors
    /// As [`Flags::parse`].
    pub fn parse_over<'a>(text: &str, options: impl IntoIterator<Item = &'a str>) -> Result<Flags, String> {
        let mut flags = Flags::default();
        for option in options {
            let Some((name, value)) = option.trim().split_once('=') else { continue };
            let name = match name {
                "--local_ip" => "local",
                "--mtu" => "mtu",
                _ => continue,
            };
            // What the tool cannot read either is its to complain about.
            let _ = flags.set(name, value);
        }
        flags.and(text)
    }

    fn and(mut self, text: &str) -> Result<Flags, String> {
        let flags = &mut self;
        for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no value"))?;
            flags.set(name, value).ok_or_else(|| format!("{word}: no such flag, or a bad value"))?;
        }
        Ok(self)
    }

    /// The receive buffer of sockets that do not set it.
    pub fn default_rcvbuf(&self) -> u32 {
        // The window scale follows from it, and scripts name that of the system that they were written on.
        let scale = match self.profile {
            Profile::Linux => 8,
            Profile::FreeBsd => 6,
        };
        self.rcvbuf.unwrap_or(u32::from(u16::MAX) << scale)
    }

    /// The receive window that is offered at first by sockets that do not set their buffer.
    pub fn first_window(&self) -> u32 {
        match self.profile {
            // 64 KiB, so that all of it can be said with the scale.
            Profile::Linux => 1 << 16,
            // 64 KiB of whole segments. Cannot cut: an MTU is at most 65535.
            Profile::FreeBsd => (1_u32 << 16).next_multiple_of(self.mtu as u32 - 40),
        }
    }

    /// The send buffer of sockets that do not set it.
    pub fn default_sndbuf(&self) -> u32 {
        // Linux's 16 KiB grow as the window does; scripts write more at once.
        let by_profile = if self.profile == Profile::Linux { 87_040 } else { 32_768 };
        self.sndbuf.unwrap_or(by_profile)
    }

    /// Whether PSH stays as the stack sets it: FreeBSD sets it as RFC 9293 says.
    pub fn keeps_push(&self) -> bool {
        self.exact_push.unwrap_or(self.profile == Profile::FreeBsd)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "profile" => {
                self.profile = match value {
                    "linux" => Profile::Linux,
                    "freebsd" => Profile::FreeBsd,
                    _ => return None,
                };
            }
            "mtu" => self.mtu = value.parse().ok().filter(|mtu| (296..=65_535).contains(mtu))?,
            // IPv4 and TCP header are 20 bytes each.
            "mss" => {
                self.mtu = value
                    .parse()
                    .ok()
                    .filter(|mss| (256..=65_495).contains(mss))
                    .map(|mss: usize| mss + 40)?;
            }
            "local" => match value.parse().ok()? {
                std::net::IpAddr::V4(addr) => self.local_v4 = addr,
                std::net::IpAddr::V6(addr) => self.local_v6 = addr,
            },
            "remote" => _ = value.parse::<std::net::IpAddr>().ok()?,
            "cap" => {
                let seconds: u64 = value.parse().ok().filter(|seconds| (1..=86_400).contains(seconds))?;
                self.cap_us = seconds * 1_000_000;
            }
            "rcvbuf" => self.rcvbuf = Some(buffer(value)?),
            "sndbuf" => self.sndbuf = Some(buffer(value)?),
            "seed" => self.seed = value.parse().ok()?,
            "psh" => self.exact_push = Some(one_of(value, ["buffers", "exact"])?),
            "left" => self.reports_left = one_of(value, ["ignore", "report"])?,
            _ => return None,
        }
        Some(())
    }
}

/// Which of two words it is: whether the second.
fn one_of(value: &str, words: [&str; 2]) -> Option<bool> {
    words.iter().position(|word| *word == value).map(|position| position == 1)
}

/// A buffer's size: what the stack's fifos can have.
fn buffer(value: &str) -> Option<u32> {
    value.parse().ok().filter(|bytes| (1..=1 << 30).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_with_commas_or_blanks() {
        let flags = Flags::parse("profile=freebsd,mss=1000 local=10.0.0.1,local=fd00::1 cap=64").unwrap();
        assert_eq!((flags.profile, flags.mtu, flags.cap_us), (Profile::FreeBsd, 1040, 64_000_000));
        assert_eq!(flags.local_v4, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(flags.local_v6, "fd00::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(Flags::parse("").unwrap(), Flags::default());
    }

    #[test]
    fn the_tools_own_options_count_less() {
        let options = ["packetdrill", "--local_ip=fd00::2", "--mtu=1520", "--local_ip=home", "x.pkt"];
        let flags = Flags::parse_over("mtu=1400", options).unwrap();
        assert_eq!((flags.mtu, flags.local_v6), (1400, "fd00::2".parse().unwrap()));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for bad in
            ["mtu=0", "mtu", "colour=red", "profile=plan9", "local=home", "cap=0", "rcvbuf=0", "psh=often"]
        {
            assert!(Flags::parse(bad).unwrap_err().starts_with(bad), "{bad}");
        }
        for name in
            ["profile", "mtu", "mss", "local", "remote", "cap", "rcvbuf", "sndbuf", "seed", "psh", "left"]
        {
            assert!(USAGE.contains(&format!("  {name}=")), "{name} is explained");
        }
    }
}
