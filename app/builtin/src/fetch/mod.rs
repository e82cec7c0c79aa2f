//! Fetch: an HTTP/1.1 client that downloads many files at once, each over its own connection.
//!
//! [`app`] is the application, [`outcome`] what it tells; [`url`] reads URLs. Inside: `response` is a response as bytes
//! come in (`head`, then `body`, which may be `chunked`), `sink` is where a body goes, `transfer` joins them to a session.
//!
//! Not there: redirects (told, not followed), names (addresses only), TLS, persistent connections, compression.

pub mod app;
mod body;
mod chunked;
mod head;
pub mod outcome;
mod response;
mod sink;
mod transfer;
pub mod url;
