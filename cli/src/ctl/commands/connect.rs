//! `connect`: connections opened from the console.

use hoststack::app::{
    Address, AppWorkerId, AttachError, AttachOptions, ConnectError, ConnectId, ConnectOptions, StagePlans,
    Uri,
};
use hoststack::inspect::AppInfo;
use hoststack::{Query, StackHandle};
use hoststack_builtin::Discard;
use hoststack_tls::{Client, ClientOptions, Roots};
use serde_json::{Value, json};

use super::Spec;
use super::apps::{self, app_worker_names};
use crate::ctl::console::{CommandError, Console, Level, Output, Show};
use crate::ctl::grammar::Matched;

pub(super) const COMMANDS: &[Spec] = &[Spec {
    pattern: "connect URI [count N] [app NAME] [domain DOMAIN] [timeout SPAN] [local ADDRESS] [worker WORKER] [server-name WORD] \
              [alpn WORD]",
    help: "open connections, for an application that is attached, or for the console itself",
    details: "Nobody waits for the outcomes: `show half-open` lists the connects that have none, `show session` those that came up, and \
              `show app` counts how they ended. Without `app` an application `console` opens them, which is attached when it is first \
              needed: it drops what it gets, and closes when the peer does. Servers behind `tls+` URIs must show a certificate for \
              their address, or for `server-name`, from somebody whom the configuration's `[tls]` table names, or else whom this host \
              trusts. Why a handshake failed: `show events`, `show errors nonzero`.",
    options: &[
        ("count N", "so many; 1 unless said otherwise"),
        ("app NAME", "by this application, its app workers in turn"),
        ("domain DOMAIN", "in this routing domain; 0 unless said otherwise"),
        ("timeout SPAN", "each has so long until its outcome is known; 30s unless said otherwise"),
        ("local ADDRESS", "from this address; that of the route's interface unless said otherwise"),
        ("worker WORKER", "sessions belong to this worker; to the least loaded unless said otherwise"),
        (
            "server-name WORD",
            "with `tls+`: the server's certificate is to be for this name, and it is told the name",
        ),
        ("alpn WORD", "with `tls+`: this application protocol is offered"),
    ],
    level: Level::Operator,
    run: connect,
    sample: || {
        Box::new(Requested {
            app: CONSOLE.to_owned(),
            uri: "tcp://10.9.0.1:80".to_owned(),
            asked: 1000,
            first: Some(ConnectId::new(257, 1)),
            last: Some(ConnectId::new(257, 1000)),
            taken: 1000,
            refused: Some(ConnectError::TooManyPending.to_string()),
        })
    },
}];

/// The application that opens connections for the console.
const CONSOLE: &str = "console";

/// Requests that main has at most before it is asked whether it has handled them: others' wait behind them for
/// milliseconds.
const BATCH: usize = 4096;

fn connect(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let count = matched.count("count").unwrap_or(1);
    if count == 0 {
        return Err(CommandError::failed("`count` is 0: nothing would be opened; give at least 1"));
    }
    // Cannot fail because the grammar has seen to it.
    let Some(uri) = matched.uri("URI") else { return Err(CommandError::failed("a URI is missing")) };
    let mut options =
        ConnectOptions { stages: stages(console, matched, uri)?, ..ConnectOptions::to(uri.address.clone()) };
    options.domain = apps::domain(matched);
    options.local_addr = matched.address("local");
    options.worker = apps::worker(matched);
    if let Some(timeout) = matched.span("timeout") {
        options.timeout = timeout;
    }
    // What is wrong with it is told before anything is attached.
    options.validate().map_err(CommandError::failed)?;
    let app = matched.text("app").unwrap_or(CONSOLE);
    let app_workers = match matched.text("app") {
        Some(name) => {
            let found = console.ask(Query::Status)?.apps;
            app_workers(apps::find(&found, name)?)?
        }
        None => own_app_worker(console)?,
    };
    let mut requested = Requested {
        app: app.to_owned(),
        uri: uri.to_string(),
        asked: count,
        first: None,
        last: None,
        taken: 0,
        refused: None,
    };
    for (index, &app_worker) in app_workers.iter().cycle().take(count).enumerate() {
        if index > 0 && index.is_multiple_of(BATCH) {
            // Answered behind the requests that were sent before.
            console.ask(Query::Listeners { limit: 0 })?;
            // Somebody who has left wants no more of them.
            console.sink.part("").map_err(CommandError::Gone)?;
        }
        match console.stack.connect(app_worker, options.clone()) {
            Ok(id) => {
                requested.first.get_or_insert(id);
                requested.last = Some(id);
                requested.taken += 1;
            }
            Err(error) => {
                requested.refused = Some(error.to_string());
                break;
            }
        }
    }
    let Some(refused) = requested.refused.clone() else { return Output::one(requested) };
    if requested.taken > 0 {
        console.part(&requested)?;
    }
    let left = count - requested.taken;
    Err(CommandError::failed(format!("{left} of {count} connects were refused: {refused}")))
}

/// The stages that the URI asks for.
fn stages(console: &Console<'_>, matched: &Matched, uri: &Uri) -> Result<StagePlans, CommandError> {
    let (name, alpn) = (matched.text("server-name"), matched.text("alpn"));
    if !uri.tls {
        return match (name, alpn) {
            (None, None) => Ok(StagePlans::NONE),
            _ => Err(CommandError::failed("`server-name` and `alpn` are for TLS: put `tls+` before the URI")),
        };
    }
    let name = match (name, &uri.address) {
        (Some(name), _) => name.to_owned(),
        // Certificates can be for addresses (RFC 9110 §4.3.5).
        (None, Address::Tcp(at) | Address::KernelTcp(at)) => at.addr.to_string(),
        (None, Address::KernelUnix(_) | Address::Local(_)) => {
            return Err(CommandError::failed(
                "`tls+` wants a server that its certificate can name, and this has no address: give `server-name WORD`",
            ));
        }
    };
    let roots = console.services.trusted.clone().map_or(Roots::Platform, Roots::Given);
    let alpn = alpn.map(str::to_owned).into_iter().collect();
    let options = ClientOptions { roots, alpn, ..ClientOptions::default() };
    let client = Client::new(&name, &options);
    client.map(StagePlans::one).map_err(|error| CommandError::failed(format!("{uri}: {error}")))
}

/// An application's app workers that take connects.
fn app_workers(app: &AppInfo) -> Result<Vec<AppWorkerId>, CommandError> {
    let attached: Vec<AppWorkerId> = apps::attached(app).map(|worker| worker.id).collect();
    if attached.is_empty() {
        let name = &app.name;
        return Err(CommandError::failed(format!(
            "`{name}` has no app worker that is attached: there is {}",
            app_worker_names(app)
        )));
    }
    Ok(attached)
}

/// The app worker of the console's own application, which is attached if there is none.
fn own_app_worker(console: &Console<'_>) -> Result<Vec<AppWorkerId>, CommandError> {
    let attach = |stack: &StackHandle| {
        stack.attach(Discard::new(Vec::new()), AttachOptions::named(CONSOLE)).map(|it| it.app_workers)
    };
    let find = || {
        let all = console.ask(Query::Status)?.apps;
        Ok(all.into_iter().find(|app| app.name == CONSOLE))
    };
    let app = match find()? {
        Some(app) => app,
        None => match attach(console.stack) {
            Ok(app_workers) => return Ok(app_workers),
            // Another client was faster.
            Err(AttachError::NameInUse) => match find()? {
                Some(app) => app,
                None => return Err(CommandError::failed("`console` was detached meanwhile: try again")),
            },
            Err(error) => return Err(CommandError::failed(error)),
        },
    };
    if app.detaching {
        return Err(CommandError::failed("`console` is being detached: try again when it is gone"));
    }
    if apps::attached(&app).next().is_some() {
        return app_workers(&app);
    }
    // Its app worker was detached.
    console.stack.attach_worker(app.id).map(|id| vec![id]).map_err(CommandError::failed)
}

/// How a command's connects began.
struct Requested {
    app: String,
    uri: String,
    asked: usize,
    first: Option<ConnectId>,
    last: Option<ConnectId>,
    taken: usize,
    refused: Option<String>,
}

impl Show for Requested {
    fn text(&self) -> String {
        let Requested { app, uri, asked, first, last, taken, .. } = self;
        let ids = match (first, last) {
            (Some(first), Some(last)) if first == last => format!(": {first}"),
            (Some(first), Some(last)) => format!(": {first} to {last}"),
            _ => String::new(),
        };
        let of = if taken == asked { taken.to_string() } else { format!("{taken} of {asked}") };
        let (noun, verb) = if *taken == 1 { ("connect", "is") } else { ("connects", "are") };
        format!("{of} {noun} to {uri} {verb} under way for {app}{ids}\n")
    }

    fn json(&self) -> Value {
        let Requested { app, uri, asked, first, last, taken, refused } = self;
        let text = |id: &Option<ConnectId>| id.map(|id| id.to_string());
        json!({
            "app": app,
            "uri": uri,
            "asked": asked,
            "taken": taken,
            "first": text(first),
            "last": text(last),
            "refused": refused,
        })
    }

    fn headings(&self) -> usize {
        0
    }
}
