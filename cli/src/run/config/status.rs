//! `[status]`: where the status page, metrics and health check are to be had over HTTP.

use std::collections::BTreeMap;

use hoststack::app::{DomainId, ListenOptions, Uri};
use toml::Spanned;

use super::{Config, Mistake, Place, mistake, place_uri};

/// What the section says.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusConfig {
    /// Where it listens, as an app's `listen`, without TLS.
    listen: Spanned<Vec<Spanned<String>>>,
    /// Its routing domain. Default 0.
    #[serde(default)]
    domain: Option<Spanned<u16>>,
    /// Listen where others than this host's users can connect, and answer whatever name it is called by. Default false.
    #[serde(default)]
    pub(crate) public: bool,
}

/// The name of the application that serves it.
const NAME: &str = "status";

impl StatusConfig {
    fn domain(&self) -> u16 {
        self.domain.as_ref().map_or(0, |domain| *domain.get_ref())
    }

    fn uris(&self, config: &Config) -> Result<Vec<Uri>, Mistake> {
        self.listen.get_ref().iter().map(|text| place_uri(text, config.default_transport())).collect()
    }

    /// How it listens.
    ///
    /// # Errors
    /// The first that is no place to listen on.
    pub(crate) fn places(&self, config: &Config) -> Result<Vec<ListenOptions>, Mistake> {
        let domain = DomainId(self.domain());
        let options = |uri: Uri| ListenOptions { domain, ..ListenOptions::on(uri.address) };
        Ok(self.uris(config)?.into_iter().map(options).collect())
    }

    /// Whether it can listen there, and nobody gets to see it who should not.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(super) fn check(
        &self,
        config: &Config,
        places: &mut BTreeMap<(u16, Place), ()>,
    ) -> Result<(), Mistake> {
        if let Some(app) = config.app.iter().find(|app| app.name.get_ref() == NAME) {
            return mistake(&app.name, "[status] is an app of that name: expected another name");
        }
        if self.listen.get_ref().is_empty() {
            let what =
                "nobody could get there: expected a place to listen on, like \"kernel+tcp://127.0.0.1:9900\"";
            return mistake(&self.listen, what);
        }
        for (text, uri) in self.listen.get_ref().iter().zip(self.uris(config)?) {
            if uri.tls {
                return mistake(text, "the status page speaks no TLS: expected a URI without tls+");
            }
            config.check_place(self.domain.as_ref(), text, &uri.address)?;
            let is_private = match &uri.address {
                Place::Tcp(at) | Place::KernelTcp(at) => at.addr.is_loopback(),
                Place::KernelUnix(_) | Place::Local(_) => true,
            };
            if !is_private && !self.public {
                return mistake(
                    text,
                    format!(
                        "whoever can connect to {} could look into the stack: expected a loopback address, kernel+unix:// or local://, or `public = true` in [status]",
                        uri.address
                    ),
                );
            }
            super::check_free(places, text, self.domain(), &uri.address)?;
        }
        Ok(())
    }
}
