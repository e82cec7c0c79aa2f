//! Values on the command line and in configuration files, each with an error that says what was expected.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hoststack::app::Uri;
use hoststack::net::{Cidr, CidrError};

/// What carries an interface's packets, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeviceName {
    /// `tap:NAME`: a TAP of the Linux kernel; created if there is none of that name.
    Tap(String),
    /// `wire:NAME`: one of the two ends of a wire in memory.
    Wire(String),
    /// `loopback`: what is sent comes back.
    Loopback,
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceName, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name.is_empty()) {
            ("tap", false) if name.len() > 15 => {
                Err("the interface's name is longer than the 15 bytes that Linux allows".to_owned())
            }
            ("tap", false) => Ok(DeviceName::Tap(name.to_owned())),
            ("wire", false) => Ok(DeviceName::Wire(name.to_owned())),
            ("loopback", true) => Ok(DeviceName::Loopback),
            _ => Err("expected tap:NAME, wire:NAME or loopback".to_owned()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Tap(name) => write!(f, "tap:{name}"),
            DeviceName::Wire(name) => write!(f, "wire:{name}"),
            DeviceName::Loopback => f.write_str("loopback"),
        }
    }
}

/// `tap:NAME`, the only device that reaches another machine.
pub(crate) fn tap_name(text: &str) -> Result<String, String> {
    match text.parse()? {
        DeviceName::Tap(name) => Ok(name),
        other => Err(format!("{other} reaches no other machine: expected tap:NAME")),
    }
}

/// A route on the command line: `CIDR=GATEWAY`, or `CIDR` alone for one on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Where to.
    pub(crate) to: Cidr,
    /// Through which router; `None`: on the link.
    pub(crate) via: Option<IpAddr>,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Route, String> {
        let (to, via) = match text.split_once('=') {
            Some((to, via)) => (to, Some(via)),
            None => (text, None),
        };
        let to: Cidr = to.parse().map_err(|error: CidrError| error.to_string())?;
        let via = via.map(address).transpose()?;
        if via.is_some_and(|via| via.is_ipv4() != to.addr().is_ipv4()) {
            return Err("the network and its gateway are of different families".to_owned());
        }
        Ok(Route { to, via })
    }
}

/// An IP address.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IPv4 or IPv6 address".to_owned())
}

/// An address and a port.
pub(crate) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, like 10.9.0.2:7 or [fd09::2]:7".to_owned())
}

/// Where to listen: a URI that names the transport, or an address and a port, whose transport is chosen by what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlaceText {
    /// An address with its transport, and whether TLS runs over it.
    Uri(Uri),
    /// An endpoint.
    Endpoint(SocketAddr),
}

/// See [`PlaceText`].
pub(crate) fn place(text: &str) -> Result<PlaceText, String> {
    if !text.contains("://") {
        return endpoint(text).map(PlaceText::Endpoint).map_err(|error| format!("{error}, or a URI"));
    }
    text.parse().map(PlaceText::Uri).map_err(|error: hoststack::app::AddressError| error.to_string())
}

/// A span of time with its unit: `250us`, `20ms`, `5s`, `1.5s`, `2m`; or with several, the larger first, as spans are shown:
/// `3m05s`, `2h07m`, `12d03h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    read_duration(text)
        .ok_or_else(|| "expected a span of time like 500ms or 5s (us, ms, s, m, h, d)".to_owned())
}

fn read_duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut larger = f64::INFINITY;
    loop {
        let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let rest = rest.trim_start();
        let (unit, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len()));
        let scale = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        if scale >= larger {
            return None;
        }
        larger = scale;
        let span = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()?;
        total = total.checked_add(span)?;
        if rest.is_empty() {
            return Some(total);
        }
        text = rest;
    }
}

/// A span of time, where a bare number means milliseconds.
pub(crate) fn duration_or_millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => duration(text),
    }
}

/// A span of time that is not zero.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("a timeout of zero lets nothing succeed: give a positive span, like 5s".to_owned())
        }
        span => Ok(span),
    }
}

/// A share in per cent, 0 to 100, as a fraction; a `%` may follow.
pub(crate) fn per_cent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share / 100.0),
        _ => Err("expected a number of per cent from 0 to 100".to_owned()),
    }
}

/// A number of bytes, with an optional suffix of powers of 1024: `4096`, `64k`, `1M`, `2G`.
pub(crate) fn byte_count(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes like 4096, 64k or 1M".to_owned();
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written_the_same_way() {
        for text in ["tap:hs0", "wire:a", "loopback"] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), text);
        }
        for text in ["", "tap", "tap:", "eth0", "loopback:x", "tap:a-name-of-sixteen"] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
        assert_eq!(tap_name("tap:hs0"), Ok("hs0".to_owned()));
        assert!(tap_name("loopback").unwrap_err().contains("tap:NAME"));
    }

    #[test]
    fn routes_have_a_network_and_perhaps_a_gateway_of_its_family() {
        let route: Route = "0.0.0.0/0=10.9.0.1".parse().unwrap();
        assert_eq!((route.to.prefix_len(), route.via), (0, Some("10.9.0.1".parse().unwrap())));
        assert_eq!("10.2.0.0/16".parse::<Route>().unwrap().via, None);
        for text in ["10.0.0.0=10.9.0.1", "10.0.0.0/8=", "::/0=10.9.0.1", "x"] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_of_time_want_a_unit_where_none_is_implied() {
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration_or_millis("20"), Ok(Duration::from_millis(20)));
        assert_eq!(duration_or_millis("3ms"), Ok(Duration::from_millis(3)));
        assert_eq!(duration("3m05s"), Ok(Duration::from_secs(185)));
        assert_eq!(duration("12d03h"), Ok(Duration::from_secs(1_047_600)));
        assert_eq!(
            duration("1s 500ms"),
            Err("expected a span of time like 500ms or 5s (us, ms, s, m, h, d)".into())
        );
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1w",
            "1.2.3s",
            "1e9s",
            "5s5s",
            "5s3m",
            "3m05",
            "3m5",
            "99999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(timeout("0s").is_err());
    }

    #[test]
    fn per_cent_and_bytes_are_bounded() {
        assert_eq!(per_cent("2"), Ok(0.02));
        assert_eq!(per_cent("0.5%"), Ok(0.005));
        assert!(["-1", "100.1", "x", "", "NaN"].iter().all(|text| per_cent(text).is_err()));
        assert_eq!(byte_count("64k"), Ok(65536));
        assert_eq!(byte_count("2G"), Ok(2 << 30));
        assert!(["", "k", "-1", "+1", "1T", "99999999999G"].iter().all(|text| byte_count(text).is_err()));
    }
}
