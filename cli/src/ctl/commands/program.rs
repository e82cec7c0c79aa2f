//! Commands about the program that runs the stack: its version, its configuration, its control sockets.

use hoststack::Query;
use hoststack::inspect::ConfigItem;
use serde_json::{Value, json};

use super::Spec;
use crate::ctl::console::{Level, Output, Setting, Show};
use crate::ctl::server::ClientCounts;
use crate::ctl::show::config::config;
use crate::table::{Column, Table, pairs, span_us};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show version",
        help: "the program's version, how long it has run, and what this client may do",
        run: |console, _| {
            let seconds = console.services.started.map_or(0.0, |started| started.seconds());
            Output::one(Version {
                // Cannot overflow because: `as` saturates, and no program runs for so long.
                uptime_us: (seconds * 1e6) as u64,
                pid: std::process::id(),
                workers: console.stack.workers(),
                level: console.level,
            })
        },
        sample: || Box::new(Version { uptime_us: 93_500_000, pid: 4711, workers: 2, level: Level::Operator }),
        ..Spec::BASE
    },
    Spec {
        pattern: "show config [all]",
        help: "the configuration in force: what the file says with the defaults of what it does not, then what came of it in the stack",
        details: "Files are shown by their paths; what is in them, keys above all, is not. Of the stack's settings, those that begin \
                  with `*` are not the defaults. In JSON all are there.",
        options: &[("all", "also the stack's settings that are the defaults")],
        run: |console, matched| {
            Output::one(Config {
                file: console.services.config.clone(),
                stack: console.ask(Query::Config)?.config,
                all: matched.has("all"),
            })
        },
        sample: || {
            let setting = |key: &str, value: &str, source| Setting {
                key: key.to_owned(),
                value: value.to_owned(),
                source,
            };
            let item = |name: &str, value: &str, is_default| ConfigItem {
                name: name.to_owned(),
                value: value.to_owned(),
                is_default,
            };
            Box::new(Config {
                file: vec![setting("workers", "2", "default"), setting("app[0].name", "\"echo\"", "file")],
                stack: vec![item("workers", "2", false), item("tcp.time_wait", "60s", true)],
                all: false,
            })
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "show cli",
        help: "the control sockets, their levels and how many clients they have",
        run: |console, _| {
            let socket = |state: &std::sync::Arc<crate::ctl::server::SocketState>| Socket {
                path: state.path.display().to_string(),
                level: state.level,
                counts: state.counts(),
            };
            Output::one(Sockets(console.sockets.iter().map(socket).collect()))
        },
        sample: || {
            let counts = ClientCounts { clients: 1, clients_max: 256, served: 12, ..ClientCounts::default() };
            let path = "/run/hoststack.sock".to_owned();
            Box::new(Sockets(vec![Socket { path, level: Level::Operator, counts }]))
        },
        ..Spec::BASE
    },
];

struct Version {
    uptime_us: u64,
    pid: u32,
    workers: usize,
    level: Level,
}

/// The oldest compiler that builds the program.
const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

impl Show for Version {
    fn text(&self) -> String {
        pairs([
            ("hoststack", env!("CARGO_PKG_VERSION").to_owned()),
            ("Rust", format!("{RUST} or newer")),
            ("profile", profile().to_owned()),
            ("runs for", span_us(self.uptime_us)),
            ("process", self.pid.to_string()),
            ("workers", self.workers.to_string()),
            ("your level", self.level.to_string()),
        ])
    }

    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "rust": RUST,
            "profile": profile(),
            "uptime_us": self.uptime_us,
            "pid": self.pid,
            "workers": self.workers,
            "level": self.level,
        })
    }

    fn headings(&self) -> usize {
        0
    }
}

const fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

struct Config {
    file: Vec<Setting>,
    stack: Vec<ConfigItem>,
    all: bool,
}

impl Show for Config {
    fn text(&self) -> String {
        let width = self.file.iter().map(|one| one.key.chars().count() + one.value.chars().count() + 3).max();
        let width = width.unwrap_or(0).min(72);
        let line = |one: &Setting| {
            let pair = format!("{} = {}", one.key, one.value);
            if one.source == "file" {
                format!("{pair}\n")
            } else {
                format!("{pair:<width$}  # {}\n", one.source)
            }
        };
        let file: String = self.file.iter().map(line).collect();
        format!("{file}\n{}", config(&self.stack, self.all))
    }

    fn json(&self) -> Value {
        json!({ "settings": self.file, "stack": self.stack })
    }

    fn headings(&self) -> usize {
        0
    }
}

#[derive(serde::Serialize)]
struct Socket {
    path: String,
    level: Level,
    #[serde(flatten)]
    counts: ClientCounts,
}

struct Sockets(Vec<Socket>);

impl Show for Sockets {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            Column::Left("socket"),
            Column::Left("level"),
            Column::Right("clients"),
            Column::Right("limit"),
            Column::Right("served"),
            Column::Right("turned away"),
            Column::Right("hung up on"),
        ]);
        for Socket { path, level, counts } in &self.0 {
            let numbers = [
                counts.clients as u64,
                counts.clients_max as u64,
                counts.served,
                counts.turned_away,
                counts.hung_up_on,
            ];
            let numbers = numbers.map(|number| number.to_string());
            table.row([path.clone(), level.to_string()].into_iter().chain(numbers));
        }
        table.to_string()
    }

    fn json(&self) -> Value {
        json!({ "sockets": self.0 })
    }
}
