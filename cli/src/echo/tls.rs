//! TLS between the two halves of an echo run: a certificate made for this run, that its client trusts and no other.

use hoststack_tls::{Client, ClientOptions, Identity, Roots, Server, ServerOptions};

use crate::error::CliError;

/// The name in the certificate.
const NAME: &str = "echo.invalid";

/// Plans for both ends that go together.
///
/// # Errors
/// No certificate can be made (no source of chance).
pub(super) fn pair() -> Result<(Client, Server), CliError> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(CliError::failed)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).map_err(CliError::failed)?;
    let client = ClientOptions { roots: Roots::Given(chain.into_bytes()), ..ClientOptions::default() };
    let server = ServerOptions { identities: vec![identity], ..ServerOptions::default() };
    Ok((
        Client::new(NAME, &client).map_err(CliError::failed)?,
        Server::new(&server).map_err(CliError::failed)?,
    ))
}
