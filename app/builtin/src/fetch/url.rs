//! URLs of the form `http://address[:port]/path` and `https://...` (RFC 3986, RFC 9110 §4.2).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use hoststack_app::Endpoint;

/// What HTTP is spoken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The transport itself (RFC 9110 §4.2.1).
    Http,
    /// TLS (RFC 9110 §4.2.2).
    Https,
}

impl Scheme {
    /// The port of a URL that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is wanted.
    pub scheme: Scheme,
    /// Where to connect to.
    pub endpoint: Endpoint,
    /// The `Host` header: the address, in brackets if IPv6, and the port unless it is the scheme's.
    pub host: String,
    /// The request target: path and query, at least `/`.
    pub path: String,
}

impl Url {
    /// The last segment of the path, for naming a file; `None` if the path ends in a slash or names a folder.
    pub fn file_name(&self) -> Option<&str> {
        let path = self.path.split('?').next()?;
        path.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))
    }
}

/// Why a URL was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It does not begin with `scheme://`.
    NoScheme,
    /// A scheme that fetch does not speak.
    NotHttp(String),
    /// A user name or password before the host.
    UserInfo,
    /// Nothing between the slashes.
    NoHost,
    /// The host is a name, and there is no resolver.
    HostIsName(String),
    /// An IPv6 address without its brackets, or brackets around something else.
    BadAddress(String),
    /// The port is not a number from 1 to 65535.
    BadPort(String),
    /// A space, a control character or one beyond ASCII.
    BadCharacter(char),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::NoScheme => f.write_str("the URL has no scheme: write http://ADDRESS[:PORT]/PATH"),
            UrlError::NotHttp(scheme) => {
                write!(f, "the scheme `{scheme}` is not spoken here: use http or https")
            }
            UrlError::UserInfo => {
                f.write_str("the URL has a user name: leave it out, no credentials are sent")
            }
            UrlError::NoHost => f.write_str("the URL has no host: write http://ADDRESS[:PORT]/PATH"),
            UrlError::HostIsName(name) => {
                write!(f, "`{name}` is a name and nothing here resolves names: write its IP address")
            }
            UrlError::BadAddress(text) => {
                write!(f, "`{text}` is no address: write IPv4 as 192.0.2.1 and IPv6 as [2001:db8::1]")
            }
            UrlError::BadPort(text) => write!(f, "`{text}` is no port: give a number from 1 to 65535"),
            UrlError::BadCharacter(bad) => write!(f, "{bad:?} cannot be in a URL: write it as %XX"),
        }
    }
}

impl std::error::Error for UrlError {}

/// Reads `http://address[:port][/path][?query][#fragment]`, or the same with `https`; the fragment is dropped.
///
/// # Errors
/// [`UrlError`]; in particular a host must be an address, since there is no resolver.
pub fn parse_url(text: &str) -> Result<Url, UrlError> {
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(UrlError::BadCharacter(bad));
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return Err(UrlError::NotHttp(scheme.to_owned())),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (addr, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let bad = || UrlError::BadAddress(authority.to_owned());
        let (addr, rest) = bracketed.split_once(']').ok_or_else(bad)?;
        let addr: Ipv6Addr = addr.parse().map_err(|_| bad())?;
        match rest.strip_prefix(':') {
            Some(port) => (IpAddr::V6(addr), port),
            None if rest.is_empty() => (IpAddr::V6(addr), ""),
            None => return Err(bad()),
        }
    } else {
        if authority.parse::<Ipv6Addr>().is_ok() {
            return Err(UrlError::BadAddress(authority.to_owned()));
        }
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        (parse_ipv4_host(host)?, port)
    };
    // RFC 3986 §3.2.3: an empty port is the scheme's.
    let port = match port {
        "" => scheme.default_port(),
        port => match port.parse() {
            Ok(number) if number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(UrlError::BadPort(port.to_owned())),
        },
    };
    let endpoint = Endpoint::new(addr, port);
    let host = match addr {
        IpAddr::V4(addr) if port == scheme.default_port() => addr.to_string(),
        IpAddr::V6(addr) if port == scheme.default_port() => format!("[{addr}]"),
        _ => endpoint.to_string(),
    };
    // RFC 9112 §3.2.1: an empty path is sent as "/".
    let path = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(Url { scheme, endpoint, host, path })
}

fn parse_ipv4_host(host: &str) -> Result<IpAddr, UrlError> {
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    match host.parse() {
        Ok(addr) => Ok(IpAddr::V4(addr)),
        Err(_) if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            Err(UrlError::BadAddress(host.to_owned()))
        }
        Err(_) => Err(UrlError::HostIsName(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (String, String, String) {
        let url = parse_url(text).unwrap();
        (url.endpoint.to_string(), url.host, url.path)
    }

    fn three(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.into(), b.into(), c.into())
    }

    #[test]
    fn what_a_url_says() {
        assert_eq!(parts("http://192.0.2.1/a/b.bin"), three("192.0.2.1:80", "192.0.2.1", "/a/b.bin"));
        assert_eq!(parts("HTTP://192.0.2.1:8080"), three("192.0.2.1:8080", "192.0.2.1:8080", "/"));
        assert_eq!(parts("http://192.0.2.1:/x"), three("192.0.2.1:80", "192.0.2.1", "/x"));
        assert_eq!(parts("http://192.0.2.1?q=/1#part"), three("192.0.2.1:80", "192.0.2.1", "/?q=/1"));
        assert_eq!(parts("http://[2001:DB8::1]/"), three("[2001:db8::1]:80", "[2001:db8::1]", "/"));
        assert_eq!(parts("http://[::1]:81/a?b=c"), three("[::1]:81", "[::1]:81", "/a?b=c"));
    }

    #[test]
    fn https_has_a_port_of_its_own() {
        let scheme = |text| parse_url(text).unwrap().scheme;
        assert_eq!(
            (scheme("http://192.0.2.1/"), scheme("HTTPS://192.0.2.1/")),
            (Scheme::Http, Scheme::Https)
        );
        assert_eq!(parts("https://192.0.2.1/a"), three("192.0.2.1:443", "192.0.2.1", "/a"));
        assert_eq!(parts("https://[::1]:443/"), three("[::1]:443", "[::1]", "/"));
        assert_eq!(parts("https://192.0.2.1:80/"), three("192.0.2.1:80", "192.0.2.1:80", "/"));
        assert_eq!(parts("http://192.0.2.1:443/"), three("192.0.2.1:443", "192.0.2.1:443", "/"));
    }

    #[test]
    fn what_is_wrong_with_a_url() {
        let error = |text| parse_url(text).unwrap_err();
        assert_eq!(error("192.0.2.1/a"), UrlError::NoScheme);
        assert_eq!(error("ftp://192.0.2.1/"), UrlError::NotHttp("ftp".into()));
        assert_eq!(error("http://me:pw@192.0.2.1/"), UrlError::UserInfo);
        assert_eq!(error("http:///a"), UrlError::NoHost);
        assert_eq!(error("http://:80/a"), UrlError::NoHost);
        assert_eq!(error("http://example.org/a"), UrlError::HostIsName("example.org".into()));
        assert_eq!(error("http://192.0.2.256/"), UrlError::BadAddress("192.0.2.256".into()));
        assert_eq!(error("http://::1/"), UrlError::BadAddress("::1".into()));
        assert_eq!(error("http://[192.0.2.1]/"), UrlError::BadAddress("[192.0.2.1]".into()));
        assert_eq!(error("http://[::1/"), UrlError::BadAddress("[::1".into()));
        assert_eq!(error("http://[fe80::1%eth0]/"), UrlError::BadAddress("[fe80::1%eth0]".into()));
        assert_eq!(error("http://[::1]80/"), UrlError::BadAddress("[::1]80".into()));
        assert_eq!(error("http://192.0.2.1:0/"), UrlError::BadPort("0".into()));
        assert_eq!(error("http://192.0.2.1:+80/"), UrlError::BadPort("+80".into()));
        assert_eq!(error("http://192.0.2.1:65536/"), UrlError::BadPort("65536".into()));
        assert_eq!(error("http://192.0.2.1/a b"), UrlError::BadCharacter(' '));
        assert_eq!(error("http://192.0.2.1/\r\nX: y"), UrlError::BadCharacter('\r'));
        assert_eq!(error("http://192.0.2.1/ä"), UrlError::BadCharacter('ä'));
    }

    #[test]
    fn the_last_segment_names_a_file() {
        let name = |text| parse_url(text).unwrap().file_name().map(str::to_owned);
        assert_eq!(name("http://192.0.2.1/a/b.bin?x=/y"), Some("b.bin".into()));
        assert_eq!(name("http://192.0.2.1/a/"), None);
        assert_eq!(name("http://192.0.2.1"), None);
        assert_eq!(name("http://192.0.2.1/a/.."), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_panics_and_no_target_can_split_a_request(text in "(http://)?[ -~\\r\\n\u{e4}\\[\\]:/?#@0-9.]{0,40}") {
            if let Ok(url) = parse_url(&text) {
                prop_assert!(url.path.starts_with('/'));
                prop_assert!(url.path.bytes().chain(url.host.bytes()).all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn every_endpoint_reads_back(addr: IpAddr, port in 1u16..) {
            let endpoint = Endpoint::new(addr, port);
            prop_assert_eq!(parse_url(&format!("http://{endpoint}/")).unwrap().endpoint, endpoint);
        }
    }
}
