//! The configuration file of `hoststack run`: TOML, read strictly.
//!
//! Each mistake is told in one line: file, line, key, what was expected. What concerns one value is checked while it is
//! read ([`Text`]); what concerns several (an address nobody has, two apps of one name) afterwards, by [`Config::check`].

mod app;
mod cli;
mod device;
pub(crate) mod effective;
mod log;
mod mistake;
mod status;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;

use hoststack::app::{Address as Place, Uri};
use serde::de::{Deserialize, Deserializer, Error as _};
use toml::Spanned;

pub(crate) use self::app::{AppConfig, Kind};
pub(crate) use self::cli::CliConfig;
pub(crate) use self::device::{DeviceConfig, RouteConfig};
use self::mistake::mistake;
pub(crate) use self::mistake::{ConfigError, Mistake};
pub(crate) use self::status::StatusConfig;
use self::tls::TlsConfig;
use crate::log::LogSetup;
use crate::parse;

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
            // It could not be typed: the console takes no line with such a one.
            if app.name.get_ref().contains(char::is_control) {
                return mistake(&app.name, "expected a name without control characters");
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
}

#[cfg(test)]
mod tests;
