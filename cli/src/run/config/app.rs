//! `[[app]]`: applications, where they listen, and how their connections behave. Their `tls_` keys are read in `tls`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hoststack::app::proxy::{ParseOptions, ReceiveProxy, Version, Versions};
use hoststack::app::{
    Address as Place, Algorithm, DomainId, EcnMode, Keepalive, ListenOptions, SessionOptions, SocketOptions,
    StagePlans, Uri,
};
use hoststack::net::Cidr;
use hoststack_tls::Server;
use toml::Spanned;

use super::{Config, Mistake, Text, check_free, mistake, place_uri, tls};
use crate::parse;

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
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    /// The certificate's private key, in PEM.
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    /// Ask clients for a certificate, which one of those in this file (PEM) must have issued.
    pub(super) tls_client_ca: Option<Spanned<PathBuf>>,
    /// Whether a client may do without one: `optional` or `required`. Default required.
    pub(super) tls_client_auth: Option<Spanned<tls::ClientAuthWord>>,
    /// Application protocols, most wanted first. Default: none is agreed on.
    pub(super) tls_alpn: Option<Spanned<Vec<String>>>,
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

impl Config {
    /// What an app's keys say that cannot be, each alone and together.
    pub(super) fn check_app(
        &self,
        app: &AppConfig,
        places: &mut BTreeMap<(u16, Place), ()>,
    ) -> Result<(), Mistake> {
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

    /// Whether an app of the domain (default 0) can listen there, as far as the file says.
    pub(super) fn check_place(
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
