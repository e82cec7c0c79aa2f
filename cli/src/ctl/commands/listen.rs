//! Commands that attach applications, and give them endpoints or take those away.

use hoststack::app::{Address, AttachOptions, ListenOptions, Protocol};
use hoststack::{Attached, Query};
use hoststack_builtin::{Discard, EchoServer};
use serde_json::{Value, json};

use super::Spec;
use super::apps::{self, app_worker_names};
use crate::ctl::console::{CommandError, Console, Level, Output, Show};
use crate::ctl::grammar::Matched;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "app attach echo|discard NAME [app-workers N]",
        help: "attach an application under a name: one that sends back what it gets, or one that drops it",
        details: "It has no endpoint yet: `listen URI app NAME` gives it one, `connect URI app NAME` a connection.",
        options: &[("app-workers N", "so many app workers; 1 unless said otherwise")],
        level: Level::Operator,
        run: attach,
        sample: || Box::new(Added { name: "echo".to_owned(), kind: "echo", app_workers: 1 }),
    },
    Spec {
        pattern: "listen URI app NAME [domain DOMAIN] [worker WORKER]",
        help: "have an application listen there, by its first app worker",
        details: "TLS and PROXY headers are for endpoints of the configuration file.",
        options: &[
            ("domain DOMAIN", "in this routing domain; 0 unless said otherwise"),
            ("worker WORKER", "this worker accepts; not for this stack's TCP, whose flows choose theirs"),
        ],
        level: Level::Operator,
        run: listen,
        sample: || {
            Box::new(Endpoint { app_worker: "echo/0".to_owned(), address: sample_address(), is_up: true })
        },
    },
    Spec {
        pattern: "unlisten URI [domain DOMAIN]",
        help: "listen there no longer; sessions that were accepted stay",
        details: "`show listener` lists what there is.",
        options: &[("domain DOMAIN", "the listener of this routing domain, where several have such a one")],
        level: Level::Operator,
        run: unlisten,
        sample: || {
            Box::new(Endpoint { app_worker: "echo/0".to_owned(), address: sample_address(), is_up: false })
        },
    },
];

fn sample_address() -> String {
    "tcp://10.9.0.2:7".to_owned()
}

fn attach(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let name = matched.text("NAME").unwrap_or_default();
    let mut options = AttachOptions::named(name);
    if let Some(count) = matched.number("app-workers") {
        // Cannot fail because the grammar takes no number that large.
        options.app_workers = u32::try_from(count).unwrap_or(u32::MAX);
    }
    let kind = if matched.has("echo") { "echo" } else { "discard" };
    let attached: Result<Attached, _> = match kind {
        "echo" => console.stack.attach(EchoServer::new(Vec::new()), options),
        _ => console.stack.attach(Discard::new(Vec::new()), options),
    };
    let attached = attached.map_err(|error| CommandError::failed(format!("`{name}`: {error}")))?;
    Output::one(Added { name: name.to_owned(), kind, app_workers: attached.app_workers.len() })
}

fn listen(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    // Cannot fail because the grammar has seen to both.
    let (Some(uri), Some(name)) = (matched.uri("URI"), matched.text("NAME")) else {
        return Err(CommandError::failed("a URI or a name is missing"));
    };
    if uri.tls {
        return Err(CommandError::failed(
            "an endpoint with TLS needs a certificate: give it to an [[app]] of the configuration file, with `tls_certificate` and \
             `tls_key`",
        ));
    }
    let found = console.ask(Query::Status)?.apps;
    let app = apps::find(&found, name)?;
    let Some(worker) = apps::attached(app).next() else {
        return Err(CommandError::failed(format!(
            "`{name}` has no app worker that is attached: there is {}",
            app_worker_names(app)
        )));
    };
    let options = ListenOptions {
        domain: apps::domain(matched),
        worker: apps::worker(matched),
        ..ListenOptions::on(uri.address.clone())
    };
    let id = console.stack.listen(worker.id, options);
    let id = id.map_err(|error| CommandError::failed(format!("{uri}: {error}")))?;
    // The host may have chosen the port.
    let listeners = console.ask(Query::Listeners { limit: usize::MAX })?.listeners;
    let address = listeners.into_iter().find(|listener| listener.id == id).map(|listener| listener.address);
    Output::one(Endpoint {
        app_worker: format!("{name}/{}", worker.unit),
        address: address.unwrap_or_else(|| uri.to_string()),
        is_up: true,
    })
}

fn unlisten(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    // Cannot fail because the grammar has seen to it.
    let Some(uri) = matched.uri("URI") else { return Err(CommandError::failed("a URI is missing")) };
    let address = uri.address.to_string();
    let domain = matched.number("domain").map(|_| apps::domain(matched));
    let listeners = console.ask(Query::Listeners { limit: usize::MAX })?.listeners;
    let mut found = listeners
        .into_iter()
        .filter(|listener| listener.address == address)
        .filter(|listener| !has_domain(&uri.address) || domain.is_none_or(|it| it.0 == listener.domain));
    let Some(listener) = found.next() else {
        return Err(CommandError::failed(format!("nobody listens on {address}: `show listener` lists them")));
    };
    if found.next().is_some() {
        return Err(CommandError::failed(format!(
            "several routing domains have a listener on {address}: say which with `domain DOMAIN`"
        )));
    }
    let ended = console.stack.unlisten(listener.app_worker_id, listener.id);
    ended.map_err(|error| CommandError::failed(format!("{address}: {error}")))?;
    Output::one(Endpoint { app_worker: listener.app_worker, address, is_up: false })
}

/// Whether addresses of its kind mean different things in different routing domains.
fn has_domain(address: &Address) -> bool {
    matches!(address.protocol(), Protocol::Tcp | Protocol::Local)
}

struct Added {
    name: String,
    kind: &'static str,
    app_workers: usize,
}

impl Show for Added {
    fn text(&self) -> String {
        let Added { name, kind, app_workers } = self;
        let plural = if *app_workers == 1 { "" } else { "s" };
        format!("{name} is attached: {kind}, {app_workers} app worker{plural}\n")
    }

    fn json(&self) -> Value {
        json!({ "app": self.name, "kind": self.kind, "app_workers": self.app_workers })
    }

    fn headings(&self) -> usize {
        0
    }
}

struct Endpoint {
    app_worker: String,
    address: String,
    is_up: bool,
}

impl Show for Endpoint {
    fn text(&self) -> String {
        let Endpoint { app_worker, address, is_up } = self;
        let how = if *is_up { "listens" } else { "listens no longer" };
        format!("{app_worker} {how} on {address}\n")
    }

    fn json(&self) -> Value {
        json!({ "app_worker": self.app_worker, "address": self.address, "is_up": self.is_up })
    }

    fn headings(&self) -> usize {
        0
    }
}
