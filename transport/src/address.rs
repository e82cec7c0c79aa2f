//! Where a connect goes and a listener listens: an [`Address`] names the transport and the place, as a URI does.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

use crate::flow::{Endpoint, Protocol};

/// The longest path of a Unix socket (Linux's `sun_path`, with room for its end), and of a local name.
pub const NAME_MAX: usize = 107;

/// Where to connect or to listen, and over which transport.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// This stack's TCP: `tcp://192.0.2.1:80`.
    Tcp(Endpoint),
    /// A TCP socket of the host: `kernel+tcp://192.0.2.1:80`.
    KernelTcp(Endpoint),
    /// A Unix stream socket of the host: `kernel+unix:///run/app.sock`; `kernel+unix://@name` is in Linux's abstract
    /// namespace.
    KernelUnix(Arc<str>),
    /// An app of this stack, fifo to fifo: `local://name`.
    Local(Arc<str>),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It does not begin with a scheme that is known.
    Scheme,
    /// What follows is not an IP address and a port.
    Endpoint,
    /// What follows is not a name of 1 to [`NAME_MAX`] bytes without a zero byte; a path begins with `/` or `@`.
    Name,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Scheme => f.write_str(
                "an address begins with tcp://, kernel+tcp://, kernel+unix:// or local:// (tls+ before it for TLS)",
            ),
            AddressError::Endpoint => {
                f.write_str("an IP address and a port must follow: tcp://192.0.2.1:80, tcp://[2001:db8::1]:80")
            }
            AddressError::Name => write!(
                f,
                "a name of 1 to {NAME_MAX} bytes must follow: kernel+unix:///run/app.sock, kernel+unix://@name, local://name"
            ),
        }
    }
}

impl core::error::Error for AddressError {}

impl Address {
    /// The transport.
    pub const fn protocol(&self) -> Protocol {
        match self {
            Address::Tcp(_) => Protocol::Tcp,
            Address::KernelTcp(_) => Protocol::KernelTcp,
            Address::KernelUnix(_) => Protocol::KernelUnix,
            Address::Local(_) => Protocol::Local,
        }
    }

    /// The IP endpoint, where the transport has such.
    pub const fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Address::Tcp(endpoint) | Address::KernelTcp(endpoint) => Some(*endpoint),
            Address::KernelUnix(_) | Address::Local(_) => None,
        }
    }

    /// A Unix socket of the host.
    ///
    /// # Errors
    /// [`AddressError::Name`].
    pub fn kernel_unix(path: &str) -> Result<Address, AddressError> {
        if !path.starts_with(['/', '@']) || path.len() < 2 {
            return Err(AddressError::Name);
        }
        Ok(Address::KernelUnix(name(path)?))
    }

    /// An app of this stack.
    ///
    /// # Errors
    /// [`AddressError::Name`].
    pub fn local(text: &str) -> Result<Address, AddressError> {
        Ok(Address::Local(name(text)?))
    }
}

fn name(text: &str) -> Result<Arc<str>, AddressError> {
    if text.is_empty() || text.len() > NAME_MAX || text.contains('\0') {
        return Err(AddressError::Name);
    }
    Ok(Arc::from(text))
}

impl From<Endpoint> for Address {
    /// This stack's TCP.
    fn from(from: Endpoint) -> Address {
        Address::Tcp(from)
    }
}

impl From<SocketAddr> for Address {
    /// This stack's TCP.
    fn from(from: SocketAddr) -> Address {
        Address::Tcp(from.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(endpoint) => write!(f, "tcp://{endpoint}"),
            Address::KernelTcp(endpoint) => write!(f, "kernel+tcp://{endpoint}"),
            Address::KernelUnix(path) => write!(f, "kernel+unix://{path}"),
            Address::Local(name) => write!(f, "local://{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let endpoint = || rest.parse::<SocketAddr>().map(Endpoint::from).map_err(|_| AddressError::Endpoint);
        match scheme {
            "tcp" => Ok(Address::Tcp(endpoint()?)),
            "kernel+tcp" => Ok(Address::KernelTcp(endpoint()?)),
            "kernel+unix" => Address::kernel_unix(rest),
            "local" => Address::local(rest),
            _ => Err(AddressError::Scheme),
        }
    }
}

/// A stream to connect to or to listen on, as a person writes it: an address, with `tls+` before it for TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    /// Whether TLS runs over the transport.
    pub tls: bool,
    /// Where, over which transport.
    pub address: Address,
}

impl FromStr for Uri {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Uri, AddressError> {
        let (tls, rest) = text.strip_prefix("tls+").map_or((false, text), |rest| (true, rest));
        Ok(Uri { tls, address: rest.parse()? })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "tls+" } else { "" })?;
        self.address.fmt(f)
    }
}

impl From<Uri> for String {
    fn from(from: Uri) -> String {
        alloc::format!("{from}")
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "tcp://192.0.2.1:80",
            "tcp://[2001:db8::1]:443",
            "kernel+tcp://127.0.0.1:0",
            "kernel+unix:///run/app.sock",
            "kernel+unix://@abstract",
            "local://echo",
            "tls+tcp://192.0.2.1:443",
            "tls+kernel+unix:///run/app.sock",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let cases = [
            ("192.0.2.1:80", AddressError::Scheme),
            ("udp://192.0.2.1:80", AddressError::Scheme),
            ("tls+tls+tcp://192.0.2.1:80", AddressError::Scheme),
            ("tcp://example.org:80", AddressError::Endpoint),
            ("tcp://192.0.2.1", AddressError::Endpoint),
            ("kernel+unix://run/app.sock", AddressError::Name),
            ("kernel+unix://@", AddressError::Name),
            ("local://", AddressError::Name),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
        assert_eq!(format!("local://{}", "n".repeat(NAME_MAX + 1)).parse::<Uri>(), Err(AddressError::Name));
        assert!(AddressError::Endpoint.to_string().contains("tcp://192.0.2.1:80"));
    }
}
