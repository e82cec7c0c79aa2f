//! The status page, figures for Prometheus and a health check over HTTP: `[status]` of the configuration file.
//!
//! A builtin app ([`HttpServer`](hoststack_builtin::HttpServer)) speaks HTTP on the stack's workers and hands every request to
//! one thread here (`server`), which asks the stack (`source`), keeps five minutes of its figures (`samples`), and answers with
//! a page (`view` says what is on it, `overview`, `sessions` and `html` make it) or with metrics (`metrics`). Read only: nothing
//! that comes in changes anything. What was asked twice within a quarter of a second is answered once.

mod html;
mod metrics;
mod overview;
mod plot;
mod samples;
mod server;
mod sessions;
mod source;
mod view;

pub(crate) use server::StatusServer;
