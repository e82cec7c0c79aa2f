//! The apps that ship: [`EchoServer`] and [`EchoClient`], [`Discard`], [`Fetch`], [`HttpServer`].
//!
//! Each is an [`Application`](hoststack_app::Application) to attach, and a handle or statistics to keep: `Arc`s of
//! atomics that any thread may read while the app runs. Read [`echo`] first: it shows what a pair of apps looks like.
//!
//! What they share: [`server`] (a server's listeners and counters), `plan` (how many objects on many workers divide
//! one list of connects), [`histogram`], `counters`.
#![forbid(unsafe_code)]

mod counters;
pub mod discard;
pub mod echo;
pub mod fetch;
pub mod histogram;
pub mod http;
mod plan;
pub mod server;

pub use discard::Discard;
pub use echo::client::{EchoClient, EchoClientEvent, EchoClientHandle, Release};
pub use echo::client_options::{EchoClientError, EchoClientOptions};
pub use echo::client_stats::{EchoClientStats, EchoClientTotals};
pub use echo::server::EchoServer;
pub use echo::stream::Pattern;
pub use fetch::app::{Fetch, FetchHandle, FetchOptions, FetchRequest, FetchSink};
pub use fetch::outcome::{FetchError, FetchOutcome, FetchState, FetchStats, FetchTotals, Fetched, HeadError};
pub use fetch::url::{Scheme, Url, UrlError, parse_url};
pub use histogram::{Histogram, HistogramSummary};
pub use http::{HttpOptions, HttpServer};
pub use server::{Listening, ServerStats, ServerTotals};
