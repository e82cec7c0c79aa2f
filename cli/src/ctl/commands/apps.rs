//! Commands about applications, their listeners and their end.

use std::time::Duration;

use hoststack::app::{
    AppId, AppWorkerId, DetachPolicy, DomainId, HalfOpenCounters, Key, ListenerId, WorkerDetachReport,
    WorkerId,
};
use hoststack::inspect::{AppInfo, AppWorkerInfo, ListenerInfo, MainInfo, Outcomes};
use hoststack::{Answer, Query};
use serde_json::{Value, json};

use super::{LIMIT, Spec};
use crate::ctl::console::{CommandError, Console, Level, Output, Show};
use crate::ctl::format;
use crate::ctl::grammar::Matched;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show app [NAME]",
        help: "applications, their app workers, listeners and how their connects ended",
        details: "A row for each app worker. `half-open` are its connects without an outcome; `requested` to `failed` count its connects \
                  since it was attached, by outcome. `d1` before a listener is its routing domain.",
        options: &[("NAME", "only this one")],
        run: |console, matched| Output::one(Apps(named(console, matched)?)),
        sample: || Box::new(Apps(vec![sample_app()])),
        ..Spec::BASE
    },
    Spec {
        pattern: "show app-worker [NAME]",
        help: "app workers: what each has on which worker, and every outcome of its connects",
        details: "`sessions` are by worker, in the order of their numbers. `cleaned` are connects whose half-open is freed, `undelivered` outcomes \
                  that found the app worker gone, `late` answers of peers that came after the outcome.",
        options: &[("NAME", "those of this application")],
        run: |console, matched| Output::one(AppWorkers(named(console, matched)?)),
        sample: || Box::new(AppWorkers(vec![sample_app()])),
        ..Spec::BASE
    },
    Spec {
        pattern: "show listener [limit N]",
        help: "where apps listen, as URIs, and what must happen before they accept; 100 unless said otherwise",
        details: "`dom` is the routing domain, `worker` the one that accepts, `starting` a listener that not every worker has yet. `before \
                  accept` are stages that a connection must pass before its app is told, and the time it has for them.",
        options: &[("limit N", "list so many of them")],
        run: |console, matched| {
            let limit = matched.count("limit").unwrap_or(LIMIT);
            Output::one(Listeners(console.ask(Query::Listeners { limit })?))
        },
        sample: || {
            let listener = ListenerInfo {
                address: "tcp://0.0.0.0:7".to_owned(),
                app_worker: "echo/0".to_owned(),
                domain: 0,
                worker: Some(0),
                is_up: true,
                stages: vec!["PROXY header to receive"],
                stage_timeout_us: 10_000_000,
                id: ListenerId(Key { slot: 0, generation: 0 }),
                app_worker_id: AppWorkerId(Key { slot: 0, generation: 0 }),
            };
            let main = MainInfo { listeners: 1, ..MainInfo::default() };
            Box::new(Listeners(Answer { listeners: vec![listener], main, ..Answer::default() }))
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "app detach NAME [app-worker N] [now | reset | linger SPAN]",
        help: "detach an application, or one app worker of it; its sessions are closed, or reset",
        details: "Connects under way end as detached, listeners go, sessions are closed and given 5 s to send what is queued. \
                  The answer comes when all of it is done.",
        options: &[
            ("app-worker N", "only its app worker of that number"),
            (
                "now | reset | linger SPAN",
                "reset sessions at once; or give them so long to close, 4m at most",
            ),
        ],
        level: Level::Operator,
        run: detach,
        sample: || {
            let report = WorkerDetachReport {
                app_worker: AppWorkerId(Key { slot: 0, generation: 0 }),
                unit: 0,
                half_opens: 2,
                sessions: 3,
                sessions_reset: 1,
                listeners: 1,
                took: Duration::from_millis(1200),
                stuck: vec![WorkerId(1)],
                unresolved: 1,
                outcomes: HalfOpenCounters {
                    requested: 3,
                    established: 1,
                    cleaned: 3,
                    ..HalfOpenCounters::default()
                },
                panicked: false,
            };
            Box::new(Detached { name: "echo".to_owned(), reports: vec![report] })
        },
    },
];

/// Longer than a client waits for an answer it may not linger.
const LINGER_MAX: Duration = Duration::from_secs(240);

fn detach(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let name = matched.text("NAME").unwrap_or_default();
    let policy = match matched.span("linger") {
        Some(linger) if linger > LINGER_MAX => {
            return Err(CommandError::failed("`linger` may be 4m at most: use `now` for what is left then"));
        }
        Some(linger) => DetachPolicy::Close { linger },
        None if matched.has("now") || matched.has("reset") => DetachPolicy::Reset,
        None => DetachPolicy::default(),
    };
    let apps = console.ask(Query::Summary)?.apps;
    let app = find(&apps, name)?;
    let stack = console.stack;
    let reports = match matched.number("app-worker") {
        None => stack.detach(app.id, policy).map_err(CommandError::failed)?.app_workers,
        Some(unit) => {
            let Some(app_worker) = app.app_workers.iter().find(|worker| u64::from(worker.unit) == unit)
            else {
                let units = app_worker_names(app);
                return Err(CommandError::failed(format!(
                    "`{name}` has no app worker {unit}: there is {units}"
                )));
            };
            vec![stack.detach_worker(app_worker.id, policy).map_err(CommandError::failed)?]
        }
    };
    Output::one(Detached { name: name.to_owned(), reports })
}

/// Applications, or the one that was named.
fn named(console: &Console<'_>, matched: &Matched) -> Result<Vec<AppInfo>, CommandError> {
    let mut apps = console.ask(Query::Status)?.apps;
    if let Some(name) = matched.text("NAME") {
        let _ = find(&apps, name)?;
        apps.retain(|app| app.name == name);
    }
    Ok(apps)
}

/// The application of that name.
pub(super) fn find<'a>(apps: &'a [AppInfo], name: &str) -> Result<&'a AppInfo, CommandError> {
    apps.iter().find(|app| app.name == name).ok_or_else(|| {
        let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        CommandError::failed(format!("no application is named `{name}`: there is {}", listed(&names)))
    })
}

/// The numbers of an application's app workers, for an error.
pub(super) fn app_worker_names(app: &AppInfo) -> String {
    let units: Vec<String> = app.app_workers.iter().map(|worker| worker.unit.to_string()).collect();
    listed(&units)
}

/// Its app workers that are not being detached.
pub(super) fn attached(app: &AppInfo) -> impl Iterator<Item = &AppWorkerInfo> {
    app.app_workers.iter().filter(|worker| worker.state == "attached")
}

/// What `domain DOMAIN` says; 0 if nothing.
pub(super) fn domain(matched: &Matched) -> DomainId {
    // Cannot lose anything because the kind of the argument has the type's limit.
    DomainId(matched.number("domain").and_then(|domain| u16::try_from(domain).ok()).unwrap_or(0))
}

/// What `worker WORKER` says.
pub(super) fn worker(matched: &Matched) -> Option<WorkerId> {
    // Cannot lose anything because the kind of the argument has the type's limit.
    matched.number("worker").and_then(|worker| u8::try_from(worker).ok()).map(WorkerId)
}

/// Names for an error: what there is.
fn listed(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "none".to_owned(),
        _ => names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", "),
    }
}

struct Apps(Vec<AppInfo>);

impl Show for Apps {
    fn text(&self) -> String {
        format::apps(&self.0)
    }

    fn json(&self) -> Value {
        json!({ "apps": self.0 })
    }
}

struct AppWorkers(Vec<AppInfo>);

impl Show for AppWorkers {
    fn text(&self) -> String {
        format::app_workers(&self.0)
    }

    fn json(&self) -> Value {
        let of = |app: &AppInfo| {
            let rows = app.app_workers.iter().map(|worker| json!({ "app": app.name, "app_worker": worker }));
            rows.collect::<Vec<Value>>()
        };
        json!({ "app_workers": self.0.iter().flat_map(of).collect::<Vec<Value>>() })
    }
}

struct Listeners(Answer);

impl Show for Listeners {
    fn text(&self) -> String {
        format::listeners(&self.0)
    }

    fn json(&self) -> Value {
        json!({ "total": self.0.main.listeners, "listeners": self.0.listeners })
    }

    fn headings(&self) -> usize {
        2
    }
}

struct Detached {
    name: String,
    reports: Vec<WorkerDetachReport>,
}

impl Show for Detached {
    fn text(&self) -> String {
        format::detached(&self.name, &self.reports)
    }

    fn json(&self) -> Value {
        format::detached_json(&self.name, &self.reports)
    }
}

/// An application with an app worker.
pub(super) fn sample_app() -> AppInfo {
    let app_worker = AppWorkerInfo {
        unit: 0,
        state: "attached".to_owned(),
        half_opens: 1,
        listeners: vec!["d0 10.9.0.2:7".to_owned()],
        sessions: vec![2, 1],
        outcomes: Outcomes(HalfOpenCounters {
            requested: 3,
            established: 2,
            cleaned: 2,
            ..HalfOpenCounters::default()
        }),
        id: AppWorkerId(Key { slot: 0, generation: 0 }),
    };
    AppInfo {
        app: "app0.0".to_owned(),
        name: "echo".to_owned(),
        detaching: false,
        app_workers: vec![app_worker],
        id: AppId(Key { slot: 0, generation: 0 }),
    }
}
