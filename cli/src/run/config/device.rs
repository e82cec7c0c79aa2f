//! `[[device]]`: interfaces, their addresses and routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use hoststack::net::{Cidr, CidrError};
use toml::Spanned;

use super::{Config, Mistake, Text, mistake, read};
use crate::parse::{self, DeviceName};

/// `[[device]]`: an interface.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceConfig {
    /// `tap:NAME`, `wire:NAME` (two devices of one name are its ends) or `loopback`.
    pub(crate) name: Spanned<Text<DeviceName>>,
    /// Its routing domain. Default 0.
    #[serde(default)]
    pub(crate) domain: u16,
    /// Its addresses with their networks.
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    /// Routes over it besides its own networks.
    #[serde(default)]
    pub(crate) routes: Vec<Spanned<RouteConfig>>,
    /// One kernel queue per worker (`tap:` only). Default false.
    #[serde(default)]
    pub(crate) multi_queue: Option<Spanned<bool>>,
    /// A file that every packet is written to, as pcapng.
    pub(crate) pcap: Option<PathBuf>,
}

/// A route.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteConfig {
    /// Where to.
    pub(crate) to: Text<Cidr>,
    /// Through which router; without it, on the link.
    pub(crate) via: Option<Text<Address>>,
}

impl DeviceConfig {
    /// Its addresses, read.
    ///
    /// # Errors
    /// The first that is none.
    pub(crate) fn addresses(&self) -> Result<Vec<Cidr>, Mistake> {
        let cidr = |text: &str| text.parse().map_err(|error: CidrError| error.to_string());
        self.addresses.iter().map(|text| read(text, cidr)).collect()
    }
}

/// A router's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(IpAddr);

impl Address {
    /// As it is.
    pub(crate) fn ip(self) -> IpAddr {
        self.0
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        parse::address(text).map(Address)
    }
}

impl Config {
    /// Names, addresses and routes that do not fit together.
    pub(super) fn check_devices(&self) -> Result<(), Mistake> {
        let mut ends: BTreeMap<&DeviceName, Vec<&Spanned<Text<DeviceName>>>> = BTreeMap::new();
        for device in &self.device {
            device.addresses()?;
            ends.entry(device.name.get_ref()).or_default().push(&device.name);
            if let Some(multi_queue) = &device.multi_queue
                && *multi_queue.get_ref()
                && !matches!(**device.name.get_ref(), DeviceName::Tap(_))
            {
                return mistake(
                    multi_queue,
                    "only a tap: device has kernel queues: expected false, or nothing",
                );
            }
            for route in &device.routes {
                let RouteConfig { to, via } = route.get_ref();
                if via.is_some_and(|via| via.ip().is_ipv4() != to.addr().is_ipv4()) {
                    return mistake(route, "expected `to` and `via` of one family, both IPv4 or both IPv6");
                }
            }
        }
        for (name, named) in ends {
            // Cannot fail because: an entry is made with a push.
            let last = named[named.len() - 1];
            match name {
                DeviceName::Wire(_) if named.len() != 2 => {
                    let found = format!(
                        "expected two devices named \"{name}\", the wire's ends, found {}",
                        named.len()
                    );
                    return mistake(last, found);
                }
                DeviceName::Tap(_) if named.len() != 1 => {
                    return mistake(
                        last,
                        format!("two devices are named \"{name}\": expected another interface"),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }
}
