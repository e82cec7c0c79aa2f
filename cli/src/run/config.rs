//! The configuration file of `hoststack run`: TOML, read strictly.
//!
//! Each mistake is told in one line: file, line, key, what was expected. What concerns one value is checked while it is
//! read ([`Text`]); what concerns several (an address nobody has, two apps of one name) afterwards, by [`Config::check`].

mod cli;
pub(crate) mod effective;
mod log;
mod status;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub(crate) use self::cli::CliConfig;
use hoststack::app::proxy::{ParseOptions, ReceiveProxy, Version, Versions};
use hoststack::app::{
    Address as Place, Algorithm, DomainId, EcnMode, Keepalive, ListenOptions, SessionOptions, SocketOptions,
    StagePlans, Uri,
};
use hoststack::net::{Cidr, CidrError};
use hoststack_tls::Server;
use serde::de::{Deserialize, Deserializer, Error as _};
use toml::Spanned;

pub(crate) use self::status::StatusConfig;
use self::tls::TlsConfig;
use crate::log::LogSetup;
use crate::parse::{self, DeviceName};

/// What the file says.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Worker threads. Default 1.
    #[serde(default = "one")]
    pub(crate) workers: Spanned<usize>,
    /// Limits of the stack, where they differ from its defaults.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Interfaces.
    #[serde(default)]
    pub(crate) device: Vec<DeviceConfig>,
    /// Applications.
    #[serde(default)]
    pub(crate) app: Vec<AppConfig>,
    /// The log; without this section as for other commands.
    log: Option<log::LogConfig>,
    /// Control sockets: `[cli]`, or several `[[cli]]`; none without such a section.
    #[serde(default, deserialize_with = "cli::one_or_several")]
    pub(crate) cli: Vec<CliConfig>,
    /// The status page; none without this section.
    pub(crate) status: Option<StatusConfig>,
    /// Whom connects of the console over TLS believe; without this section those that the host trusts.
    tls: Option<TlsConfig>,
}

fn one() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}

/// `[limits]`: what is left out has the stack's default.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Sessions per worker.
    pub(crate) sessions: Option<Positive>,
    /// Fifo chunks per worker, of 4 KiB each.
    pub(crate) fifo_chunks: Option<Positive>,
    /// Applications.
    pub(crate) apps: Option<Positive>,
    /// App workers, over all applications.
    pub(crate) app_workers: Option<Positive>,
    /// Listeners.
    pub(crate) listeners: Option<Positive>,
    /// Connects of the console without an outcome.
    pub(crate) pending_connects: Option<Positive>,
    /// TIME-WAIT records per worker.
    pub(crate) time_wait: Option<Positive>,
    /// Packets taken from one device queue in a step.
    pub(crate) rx_burst: Option<Positive>,
    /// Segments sent for one session in a step.
    pub(crate) tx_burst: Option<Positive>,
}

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

/// `[[app]]`: an application.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppConfig {
    /// Its name, unique.
    pub(crate) name: Spanned<String>,
    /// What it does.
    pub(crate) kind: Kind,
    /// Where it listens: `tcp://0.0.0.0:7` (every IPv4 address of its domain), `kernel+tcp://127.0.0.1:7`,
    /// `kernel+unix:///run/app.sock`, `local://name`. `0.0.0.0:7` is this stack's TCP, or a socket of the host in a file
    /// without devices. `tls+` before a URI is TLS, with the `tls_` keys below.
    pub(crate) listen: Vec<Spanned<String>>,
    /// Its routing domain. Default 0.
    #[serde(default)]
    pub(crate) domain: Option<Spanned<u16>>,
    /// Its app workers; its endpoints are dealt out to them in turn. Default 1.
    #[serde(default)]
    pub(crate) app_workers: Option<Spanned<u32>>,
    /// Most connections under way to one endpoint, per worker.
    pub(crate) backlog: Option<Spanned<u32>>,
    /// Require a PROXY header at the front of each connection, and believe it: `v1`, `v2` or `any`. Only where nobody but
    /// a proxy can connect. Default: none, and a header is the app's bytes like any other.
    pub(crate) accept_proxy: Option<Spanned<AcceptProxy>>,
    /// The certificate of its `tls+` URIs: a file with the chain in PEM, its own first.
    tls_certificate: Option<Spanned<PathBuf>>,
    /// The certificate's private key, in PEM.
    tls_key: Option<Spanned<PathBuf>>,
    /// Ask clients for a certificate, which one of those in this file (PEM) must have issued.
    tls_client_ca: Option<Spanned<PathBuf>>,
    /// Whether a client may do without one: `optional` or `required`. Default required.
    tls_client_auth: Option<Spanned<tls::ClientAuthWord>>,
    /// Application protocols, most wanted first. Default: none is agreed on.
    tls_alpn: Option<Spanned<Vec<String>>>,
    /// How long a connection may take until it is accepted (header and handshake must be done). Default 10s.
    pub(crate) stage_timeout: Option<Spanned<Text<StageTimeout>>>,
    /// Send small segments at once. Default false.
    #[serde(default)]
    pub(crate) nodelay: bool,
    /// Congestion control of its connections. Default cubic.
    pub(crate) congestion: Option<Text<Algorithm>>,
    /// Give TCP Fast Open cookies out and take data in SYNs. Default false.
    #[serde(default)]
    pub(crate) fast_open: bool,
    /// After how many seconds of silence the peer is asked whether it is there. Default: never.
    pub(crate) keepalive: Option<Spanned<u32>>,
    /// DSCP of its packets, 0 to 63. Default 0.
    pub(crate) dscp: Option<Spanned<u8>>,
    /// Explicit congestion notification: `off`, `accept` (if the peer asks for it) or `request`. Default accept.
    pub(crate) ecn: Option<Ecn>,
    /// Search for a larger path MTU by probing, and for a smaller one when large segments vanish. Default false.
    #[serde(default)]
    pub(crate) mtu_probing: bool,
    /// Bytes of a session's fifos, each way. Default 64 KiB.
    pub(crate) fifo: Option<Spanned<u32>>,
    /// The receive window to begin with, in bytes: it grows to `fifo` with what the app reads. Default: `fifo` at once.
    pub(crate) rx_window_initial: Option<Spanned<u32>>,
    /// How far the fifo for sending may grow, in bytes: to twice the congestion window. Default: it does not.
    pub(crate) tx_capacity_max: Option<Spanned<u32>>,
}

/// Explicit congestion notification, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ecn {
    /// Never.
    Off,
    /// If the peer's SYN asks for it.
    Accept,
    /// Asked for in our SYNs, too.
    Request,
}

impl From<Ecn> for EcnMode {
    fn from(ecn: Ecn) -> EcnMode {
        match ecn {
            Ecn::Off => EcnMode::Off,
            Ecn::Accept => EcnMode::Accept,
            Ecn::Request => EcnMode::Request,
        }
    }
}

/// Versions of the PROXY header, by their word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AcceptProxy {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Any,
}

impl From<AcceptProxy> for Versions {
    fn from(accept: AcceptProxy) -> Versions {
        match accept {
            AcceptProxy::V1 => Versions::Only(Version::V1),
            AcceptProxy::V2 => Versions::Only(Version::V2),
            AcceptProxy::Any => Versions::Any,
        }
    }
}

/// A span of time that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StageTimeout(Duration);

impl FromStr for StageTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<StageTimeout, String> {
        parse::timeout(text).map(StageTimeout)
    }
}

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Sends back what it gets.
    Echo,
    /// Drops what it gets.
    Discard,
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

/// Reads an item of a list. Not while the list is read: a mistake would be told to be where the list begins.
fn read<T>(text: &Spanned<String>, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Mistake> {
    parse(text.get_ref()).or_else(|error| mistake(text, format!("{error}, found {:?}", text.get_ref())))
}

/// Reads a place to listen on. An endpoint alone is one of `default`'s transport.
fn place_uri(text: &Spanned<String>, default: fn(SocketAddr) -> Place) -> Result<Uri, Mistake> {
    let place = |text: &str| {
        parse::place(text).map(|place| match place {
            parse::PlaceText::Uri(uri) => uri,
            parse::PlaceText::Endpoint(endpoint) => Uri { tls: false, address: default(endpoint) },
        })
    };
    read(text, place)
}

/// Whether nobody listens there yet; from now on somebody does.
fn check_free(
    places: &mut BTreeMap<(u16, Place), ()>,
    text: &Spanned<String>,
    domain: u16,
    at: &Place,
) -> Result<(), Mistake> {
    // Port 0 is another one each time; sockets of the host know no domain.
    let is_any = at.endpoint().is_some_and(|at| at.port == 0);
    let domain = match at {
        Place::Tcp(_) | Place::Local(_) => domain,
        Place::KernelTcp(_) | Place::KernelUnix(_) => 0,
    };
    if !is_any && places.insert((domain, at.clone()), ()).is_some() {
        let told = match at {
            Place::Tcp(at) => format!("{at} in domain {domain}"),
            at => at.to_string(),
        };
        return mistake(text, format!("an app already listens on {told}: expected another"));
    }
    Ok(())
}

impl AppConfig {
    /// Where it listens, read. An endpoint alone is one of `default`'s transport.
    ///
    /// # Errors
    /// The first that is no place to listen on.
    pub(crate) fn places(&self, default: fn(SocketAddr) -> Place) -> Result<Vec<Uri>, Mistake> {
        self.listen.iter().map(|text| place_uri(text, default)).collect()
    }

    /// Its routing domain.
    pub(crate) fn domain(&self) -> u16 {
        self.domain.as_ref().map_or(0, |domain| *domain.get_ref())
    }

    /// How its connections behave.
    pub(crate) fn socket(&self) -> SocketOptions {
        let keepalive = self.keepalive.as_ref().map(|seconds| Keepalive {
            idle_ms: seconds.get_ref().saturating_mul(1000),
            ..Keepalive::default()
        });
        SocketOptions {
            nodelay: self.nodelay,
            congestion: self.congestion.map_or(Algorithm::DEFAULT, |algorithm| *algorithm),
            fast_open: self.fast_open,
            keepalive,
            dscp: self.dscp.as_ref().map_or(0, |dscp| *dscp.get_ref()),
            ecn: self.ecn.map_or(SocketOptions::DEFAULT.ecn, EcnMode::from),
            mtu_probing: self.mtu_probing,
            rx_window_initial: self.rx_window_initial.as_ref().map_or(u32::MAX, |bytes| *bytes.get_ref()),
            ..SocketOptions::DEFAULT
        }
    }

    /// The fifos of its sessions.
    pub(crate) fn fifos(&self) -> SessionOptions {
        let mut fifos = SessionOptions::default();
        if let Some(bytes) = &self.fifo {
            fifos.rx_capacity = *bytes.get_ref();
            fifos.tx_capacity = *bytes.get_ref();
        }
        if let Some(bytes) = &self.tx_capacity_max {
            fifos.tx_capacity_max = *bytes.get_ref();
        }
        fifos
    }

    /// What must happen before it accepts. A proxy's header is outside of what the proxy forwards, so TLS comes after it.
    fn stages(&self, tls: Option<&Server>) -> StagePlans {
        let header = self.accept_proxy.as_ref().map_or(StagePlans::NONE, |accept| {
            let options = ParseOptions::DEFAULT.with_versions((*accept.get_ref()).into());
            StagePlans::one(ReceiveProxy { options })
        });
        match tls {
            Some(server) => header.then(server.clone()),
            None => header,
        }
    }

    /// How it listens on `local`; with `tls` if the URI has `tls+`.
    pub(crate) fn listens_on(&self, local: Uri, tls: Option<&Server>) -> ListenOptions {
        let mut options = ListenOptions {
            domain: DomainId(self.domain()),
            fifos: self.fifos(),
            socket: self.socket(),
            stages: self.stages(tls.filter(|_| local.tls)),
            ..ListenOptions::on(local.address)
        };
        if let Some(timeout) = &self.stage_timeout {
            options.stage_timeout = timeout.get_ref().0.0;
        }
        if let Some(backlog) = &self.backlog {
            options.backlog = *backlog.get_ref();
        }
        options
    }

    /// The number of its app workers.
    pub(crate) fn app_workers(&self) -> u32 {
        self.app_workers.as_ref().map_or(1, |count| *count.get_ref())
    }
}

/// A number that is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positive(pub(crate) usize);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Positive, D::Error> {
        match usize::deserialize(from)? {
            0 => Err(D::Error::custom("a limit of 0 lets nothing be done: expected a positive number")),
            number => Ok(Positive(number)),
        }
    }
}

/// A value that is written as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<T>(T);

impl<T> Deref for Text<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Text).map_err(|error| D::Error::custom(format!("{error}, found {text:?}")))
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

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    line: Option<usize>,
    key: Option<String>,
    what: String,
}

impl ConfigError {
    fn at(text: &str, span: Option<Range<usize>>, what: impl fmt::Display) -> ConfigError {
        let line = span.as_ref().map(|span| line_of(text, span.start));
        let key = span.and_then(|span| key_at(text, span.start).or_else(|| key_before(text, span.start)));
        ConfigError { line, key, what: what.to_string() }
    }

    /// One line: `FILE:LINE: KEY: what was expected`.
    pub(crate) fn message(&self, file: &Path) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = self.key.as_ref().map(|key| format!(" {key}:")).unwrap_or_default();
        format!("{}{line}:{key} {}", file.display(), self.what)
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// The first mistake.
pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
    let config: Config = toml::from_str(text).map_err(|error| {
        // One line: the parser sets what it expected on a line of its own.
        let mut what = error.message().trim().replace('\n', ", ");
        for (rust, words) in [
            ("expected usize", "expected a number, 0 or above"),
            ("expected u32", "expected a number from 0 to 4294967295"),
            ("expected u16", "expected a number from 0 to 65535"),
            ("expected u8", "expected a number from 0 to 255"),
        ] {
            what = what.replace(rust, words);
        }
        ConfigError::at(text, error.span(), what)
    })?;
    config.check().map_err(|Mistake { at, what }| ConfigError::at(text, Some(at), what))?;
    Ok(config)
}

/// Where a mistake is in the file's text, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    at: Range<usize>,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn mistake<T, V>(at: &Spanned<T>, what: impl Into<String>) -> Result<V, Mistake> {
    Err(Mistake { at: at.span(), what: what.into() })
}

impl Config {
    /// What an endpoint without a transport is: with a device this stack's TCP, without one, which nothing could reach,
    /// a socket of the host.
    pub(crate) fn default_transport(&self) -> fn(SocketAddr) -> Place {
        if self.device.is_empty() {
            |endpoint| Place::KernelTcp(endpoint.into())
        } else {
            |endpoint| Place::Tcp(endpoint.into())
        }
    }

    /// Certificates, in PEM, that connects of the console over TLS believe; `None`: those of the host.
    ///
    /// # Errors
    /// A file that has changed since the configuration was checked.
    pub(crate) fn trusted(&self) -> Result<Option<Vec<u8>>, Mistake> {
        self.tls.as_ref().map(TlsConfig::trusted).transpose()
    }

    /// What the log is to be.
    pub(crate) fn log(&self) -> LogSetup {
        log::setup(self.log.as_ref())
    }

    fn check(&self) -> Result<(), Mistake> {
        if let Some(log) = &self.log {
            log.check()?;
        }
        let workers = *self.workers.get_ref();
        if !(1..=hoststack::config::WORKERS_MAX).contains(&workers) {
            let expected =
                format!("expected 1 to {} workers, found {workers}", hoststack::config::WORKERS_MAX);
            return mistake(&self.workers, expected);
        }
        self.check_devices()?;
        self.check_cli()?;
        let _ = self.trusted()?;
        let mut names = BTreeMap::new();
        let mut places = BTreeMap::new();
        for app in &self.app {
            if app.name.get_ref().is_empty() || app.name.get_ref().len() > 64 {
                return mistake(&app.name, "expected a name of 1 to 64 bytes");
            }
            if names.insert(app.name.get_ref(), ()).is_some() {
                return mistake(
                    &app.name,
                    format!("two apps are named {:?}: expected another name", app.name.get_ref()),
                );
            }
            self.check_app(app, &mut places)?;
        }
        if let Some(status) = &self.status {
            status.check(self, &mut places)?;
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), Mistake> {
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

    fn check_app(&self, app: &AppConfig, places: &mut BTreeMap<(u16, Place), ()>) -> Result<(), Mistake> {
        let uris = app.places(self.default_transport())?;
        app.check_tls(&uris)?;
        if let Some(timeout) = &app.stage_timeout
            && app.accept_proxy.is_none()
            && !uris.iter().any(|uri| uri.tls)
        {
            return mistake(
                timeout,
                "nothing has to happen before it accepts: expected `accept_proxy` or a tls+ URI besides",
            );
        }
        if let Some(dscp) = app.dscp.as_ref().filter(|dscp| *dscp.get_ref() > 63) {
            return mistake(dscp, format!("a DSCP has 6 bits: expected 0 to 63, found {}", dscp.get_ref()));
        }
        if let Some(keepalive) = app.keepalive.as_ref().filter(|seconds| *seconds.get_ref() == 0) {
            return mistake(
                keepalive,
                "expected seconds of silence, 1 or more, or nothing for no keep-alive",
            );
        }
        for (text, Uri { tls: _, address: at }) in app.listen.iter().zip(uris) {
            self.check_place(app.domain.as_ref(), text, &at)?;
            check_free(places, text, app.domain(), &at)?;
        }
        let positive =
            [&app.app_workers, &app.backlog, &app.fifo, &app.rx_window_initial, &app.tx_capacity_max];
        if let Some(zero) = positive.into_iter().flatten().find(|number| *number.get_ref() == 0) {
            return mistake(zero, "expected a positive number, found 0");
        }
        let fifo_max = hoststack::app::options::FIFO_MAX;
        if let Some(fifo) = app.fifo.as_ref().filter(|fifo| *fifo.get_ref() > fifo_max) {
            return mistake(fifo, format!("expected at most {fifo_max} bytes"));
        }
        let SessionOptions { rx_capacity, tx_capacity, .. } = app.fifos();
        if let Some(initial) = app.rx_window_initial.as_ref().filter(|bytes| *bytes.get_ref() > rx_capacity) {
            let found = initial.get_ref();
            return mistake(
                initial,
                format!("a fifo holds {rx_capacity} bytes: expected at most that, found {found}"),
            );
        }
        if let Some(max) = &app.tx_capacity_max
            && !(tx_capacity..=fifo_max).contains(max.get_ref())
        {
            let found = max.get_ref();
            return mistake(
                max,
                format!("a fifo begins with {tx_capacity} bytes: expected that to {fifo_max}, found {found}"),
            );
        }
        Ok(())
    }
}

impl Config {
    /// Whether an app of the domain (default 0) can listen there, as far as the file says.
    fn check_place(
        &self,
        domain_key: Option<&Spanned<u16>>,
        text: &Spanned<String>,
        at: &Place,
    ) -> Result<(), Mistake> {
        let Place::Tcp(at) = at else { return Ok(()) };
        if at.port == 0 {
            return mistake(text, "port 0 is none: expected 1 to 65535");
        }
        let domain = domain_key.map_or(0, |domain| *domain.get_ref());
        let mut addresses = Vec::new();
        let mut has_device = false;
        for device in self.device.iter().filter(|device| device.domain == domain) {
            has_device = true;
            addresses.extend(device.addresses()?.iter().map(Cidr::addr));
        }
        if !has_device {
            let what = format!(
                "no device is in domain {domain}: expected a [[device]] with `domain = {domain}`, or kernel+tcp:// for a socket of the host"
            );
            return match domain_key {
                Some(at) => mistake(at, what),
                None => mistake(text, what),
            };
        }
        if !at.addr.is_unspecified() && !addresses.contains(&at.addr) {
            let what = format!(
                "{} is no address of domain {domain}: expected one of its devices' `addresses`, 0.0.0.0 or [::], or kernel+tcp:// for one of the host",
                at.addr
            );
            return mistake(text, what);
        }
        Ok(())
    }
}

/// The number of the line that `offset` is in, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The key whose name or value covers `offset`, as `app[1].listen[0]`. Found even when the file does not parse.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let (table, _) = toml::de::DeTable::parse_recoverable(text);
    let mut path = String::new();
    descend_table(table.get_ref(), offset, &mut path);
    (!path.is_empty()).then_some(path)
}

/// What stands before the `=` of the line, for a file that does not parse.
fn key_before(text: &str, offset: usize) -> Option<String> {
    let line = text.get(..offset)?.lines().next_back()?;
    let key = line.split_once('=').map_or(line, |(key, _)| key).trim();
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!key.is_empty() && key.bytes().all(bare)).then(|| key.to_owned())
}

fn descend_table(table: &toml::de::DeTable<'_>, offset: usize, path: &mut String) {
    let covers = |span: Range<usize>| span.contains(&offset);
    let direct = table.iter().find(|(key, value)| covers(key.span()) || covers(value.span()));
    // A [[table]]'s own span is that of its heading; what stands below it is told by the values inside.
    let found = direct.or_else(|| table.iter().find(|(_, value)| spans_below(value, offset)));
    let Some((key, value)) = found else { return };
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key.get_ref());
    if !covers(key.span()) || spans_below(value, offset) {
        descend(value.get_ref(), offset, path);
    }
}

fn descend(value: &toml::de::DeValue<'_>, offset: usize, path: &mut String) {
    match value {
        toml::de::DeValue::Table(table) => descend_table(table, offset, path),
        toml::de::DeValue::Array(items) => {
            let found = items
                .iter()
                .enumerate()
                .find(|(_, item)| item.span().contains(&offset) || spans_below(item, offset));
            if let Some((index, item)) = found {
                path.push_str(&format!("[{index}]"));
                descend(item.get_ref(), offset, path);
            }
        }
        _ => {}
    }
}

/// Whether something inside a value covers `offset`.
fn spans_below(value: &Spanned<toml::de::DeValue<'_>>, offset: usize) -> bool {
    match value.get_ref() {
        toml::de::DeValue::Table(table) => table.iter().any(|(key, value)| {
            key.span().contains(&offset) || value.span().contains(&offset) || spans_below(value, offset)
        }),
        toml::de::DeValue::Array(items) => {
            items.iter().any(|item| item.span().contains(&offset) || spans_below(item, offset))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
