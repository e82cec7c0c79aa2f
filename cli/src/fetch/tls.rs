//! TLS for the https URLs of a fetch: whom it trusts, and the stage.

use hoststack::app::{Address, StagePlans};
use hoststack_builtin::{Scheme, Url};
use hoststack_tls::{Client, ClientOptions, Roots};

use super::FetchArgs;
use crate::error::CliError;

/// The protocol that is offered (RFC 7301 §6); a server that knows no such names is good, too.
const ALPN: &str = "http/1.1";

/// Whether the servers' certificates are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verification {
    /// Yes, or there is no https URL.
    On,
    /// No, none.
    Off,
}

/// Adds TLS to the targets of https URLs, behind the stages that they have: what a PROXY header says is for whoever takes
/// the connection, before TLS.
///
/// # Errors
/// Roots that cannot be had.
pub(super) fn add(
    args: &FetchArgs,
    urls: &[Url],
    targets: &mut [(Address, StagePlans)],
) -> Result<Verification, CliError> {
    let mut plan: Option<Client> = None;
    for (url, (_, stages)) in urls.iter().zip(targets).filter(|(url, _)| url.scheme == Scheme::Https) {
        // Certificates can be for addresses (RFC 9110 §4.3.5), and a URL's host is one here.
        let name = url.endpoint.addr.to_string();
        let client = match &plan {
            Some(plan) => plan.to(&name).map_err(|error| CliError::usage(format!("{name}: {error}")))?,
            None => client(args, &name)?,
        };
        *stages = std::mem::take(stages).then(client.clone());
        plan = Some(client);
    }
    Ok(if args.insecure && plan.is_some() { Verification::Off } else { Verification::On })
}

/// The plan for a server.
fn client(args: &FetchArgs, name: &str) -> Result<Client, CliError> {
    let mut options = ClientOptions {
        alpn: vec![ALPN.to_owned()],
        danger_no_verification: args.insecure,
        ..ClientOptions::default()
    };
    let mut whose = name.to_owned();
    if let Some(file) = &args.cacert {
        whose = format!("--cacert {}", file.display());
        let pem = std::fs::read(file).map_err(|error| {
            CliError::usage(format!("{whose}: {error}: expected a file of certificates in PEM"))
        })?;
        options.roots = Roots::Given(pem);
    } else if args.platform_roots {
        whose = "--platform-roots".to_owned();
        options.roots = Roots::Platform;
    }
    Client::new(name, &options).map_err(|error| CliError::usage(format!("{whose}: {error}")))
}
