//! What a stack answers, read leniently: a figure that is missing is missing on the screen (`-`), a new one is no error.

use std::collections::BTreeMap;

use serde_json::Value;

/// The numbers of a JSON object by name; those of an object within it are named `outer.inner`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// All numbers in `value`.
    pub(super) fn read(value: &Value) -> Figures {
        let mut figures = Figures::default();
        figures.add("", value);
        figures
    }

    /// Counters as `[[name, count], ...]` or `{name: count}`.
    fn read_counters(value: &Value) -> Option<Figures> {
        match value {
            Value::Object(_) => Some(Figures::read(value)),
            Value::Array(pairs) => {
                let named = pairs.iter().filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_f64()?)));
                Some(Figures(named.map(|(name, count)| (name.to_owned(), count)).collect()))
            }
            _ => None,
        }
    }

    fn add(&mut self, prefix: &str, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::Object(_) => self.add(&format!("{prefix}{name}."), value),
                other => {
                    if let Some(number) = other.as_f64() {
                        self.0.insert(format!("{prefix}{name}"), number);
                    }
                }
            }
        }
    }

    /// The number of this name.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// One look at a stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The stack's version.
    pub(super) version: Option<String>,
    /// The stack's time in microseconds since its start.
    pub(super) at_us: Option<f64>,
    /// Our own time of the look in microseconds: for a stack that does not tell its time.
    pub(super) looked_us: f64,
    /// Workers, in order.
    pub(super) workers: Vec<Worker>,
    /// Main's figures.
    pub(super) main: Figures,
    /// App workers of all applications.
    pub(super) apps: Vec<AppWorker>,
    /// Sessions by state.
    pub(super) summary: Figures,
    /// TIME-WAIT records.
    pub(super) time_wait: Option<f64>,
    /// Distributions.
    pub(super) histograms: Vec<Histogram>,
    /// Sessions listed, each once.
    pub(super) sessions: Vec<Session>,
}

/// A worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    /// Its number.
    pub(super) number: u64,
    /// Its figures.
    pub(super) figures: Figures,
    /// TCP's counters; `None`: they are not told.
    tcp: Option<Figures>,
    /// Why packets were dropped.
    pub(super) drops: Vec<DropCount>,
}

/// A reason for drops, on one worker.
#[derive(Clone, Debug)]
pub(super) struct DropCount {
    /// Stable name.
    pub(super) reason: String,
    /// How often.
    pub(super) count: f64,
    /// What it means.
    pub(super) help: String,
}

/// An app worker.
#[derive(Clone, Debug, Default)]
pub(super) struct AppWorker {
    /// The application's name.
    pub(super) app: String,
    /// Its number in the application; `None`: the application has no app worker.
    pub(super) unit: Option<u64>,
    /// `attached`, `detaching`.
    pub(super) state: String,
    /// Its figures, how its connects ended among them (`outcomes.refused`).
    pub(super) figures: Figures,
    /// Its sessions on all workers.
    pub(super) sessions: Option<f64>,
    /// Where it listens.
    pub(super) listeners: Vec<String>,
    /// All that was said of it.
    pub(super) all: Value,
}

/// A distribution.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// Its name: `connect-latency`.
    pub(super) name: String,
    /// The worker; `None`: all of them.
    pub(super) worker: Option<u64>,
    /// Count, sum, percentiles.
    pub(super) figures: Figures,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// Its handle, `worker:slot.generation`.
    pub(super) handle: String,
    /// Its app worker.
    pub(super) app_worker: String,
    /// The transport's scheme.
    pub(super) transport: String,
    /// Our end.
    pub(super) local: String,
    /// The peer's end.
    pub(super) remote: String,
    /// What the app and the transport did; before it, why the session cannot go on.
    pub(super) state: String,
    /// Whether it cannot go on by itself: a fault of the stack.
    pub(super) is_stuck: bool,
    /// Bytes the app may read.
    pub(super) rx: Option<f64>,
    /// Bytes not acknowledged or not sent.
    pub(super) tx: Option<f64>,
    /// Smoothed round-trip time.
    pub(super) srtt_us: Option<f64>,
    /// Since it was allocated.
    pub(super) age_us: Option<f64>,
    /// All that was said of it.
    pub(super) all: Value,
}

impl Snapshot {
    /// Reads the answer to `show status`.
    pub(super) fn read(value: &Value) -> Snapshot {
        Snapshot {
            version: value["version"].as_str().map(str::to_owned),
            at_us: value["at_us"].as_f64(),
            looked_us: 0.0,
            workers: items(&value["workers"]).map(Worker::read).collect(),
            main: Figures::read(&value["main"]),
            apps: items(&value["apps"]).flat_map(AppWorker::read_app).collect(),
            summary: Figures::read(&value["sessions"]),
            time_wait: value["time_wait"].as_f64(),
            histograms: items(&value["histograms"]).map(Histogram::read).collect(),
            sessions: items(&value["slowest"]).map(Session::read).collect(),
        }
    }

    /// Adds the sessions of an answer to `show session`, those that are there already left out.
    pub(super) fn add_sessions(&mut self, answer: &Value) {
        let documents = match answer {
            Value::Array(documents) => documents.as_slice(),
            one => std::slice::from_ref(one),
        };
        for document in documents {
            let one = document["session"].is_string().then_some(document);
            for session in items(&document["sessions"]).chain(one).map(Session::read) {
                if !self.sessions.iter().any(|known| known.handle == session.handle) {
                    self.sessions.push(session);
                }
            }
        }
    }

    /// The distribution of this name over all workers, or the first worker's.
    pub(super) fn histogram(&self, name: &str) -> Option<&Histogram> {
        let named = || self.histograms.iter().filter(|histogram| histogram.name == name);
        named().find(|histogram| histogram.worker.is_none()).or_else(|| named().next())
    }
}

impl Worker {
    /// Reads a worker's figures.
    pub(super) fn read(value: &Value) -> Worker {
        Worker {
            number: value["worker"].as_u64().unwrap_or(0),
            figures: Figures::read(value),
            tcp: Figures::read_counters(&value["tcp"]),
            drops: items(&value["drops"]).filter_map(DropCount::read).collect(),
        }
    }

    /// A figure, or else the TCP counter that counts most of the same: TCP's zero ones are not told.
    pub(super) fn figure_or_tcp(&self, name: &str, counter: &str) -> Option<f64> {
        self.figures.get(name).or_else(|| self.tcp(counter))
    }

    /// A TCP counter.
    pub(super) fn tcp(&self, counter: &str) -> Option<f64> {
        self.tcp.as_ref().map(|tcp| tcp.get(counter).unwrap_or(0.0))
    }
}

impl DropCount {
    fn read(value: &Value) -> Option<DropCount> {
        let reason = value["reason"].as_str()?.to_owned();
        Some(DropCount { reason, count: value["count"].as_f64()?, help: text(&value["help"]) })
    }
}

impl AppWorker {
    fn read_app(app: &Value) -> Vec<AppWorker> {
        let name = text(&app["name"]);
        let state = if app["detaching"] == true { "detaching" } else { "attached" };
        let of_app =
            AppWorker { app: name, state: state.to_owned(), all: app.clone(), ..AppWorker::default() };
        let workers: Vec<AppWorker> = items(&app["app_workers"])
            .map(|worker| AppWorker {
                app: of_app.app.clone(),
                unit: worker["unit"].as_u64(),
                state: worker["state"].as_str().unwrap_or(state).to_owned(),
                figures: Figures::read(worker),
                sessions: worker["sessions"]
                    .as_array()
                    .map(|workers| workers.iter().filter_map(Value::as_f64).sum())
                    .or(worker["sessions"].as_f64()),
                listeners: items(&worker["listeners"]).map(text).collect(),
                all: worker.clone(),
            })
            .collect();
        if workers.is_empty() { vec![of_app] } else { workers }
    }

    /// `echo/1`, as a session names its app worker.
    pub(super) fn name(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}/{unit}", self.app),
            None => self.app.clone(),
        }
    }
}

impl Histogram {
    fn read(value: &Value) -> Histogram {
        Histogram {
            name: text(&value["name"]),
            worker: value["worker"].as_u64(),
            figures: Figures::read(value),
        }
    }
}

impl Session {
    /// Reads a session of a list.
    pub(super) fn read(value: &Value) -> Session {
        let mut state = text(&value["state"]);
        if let Some(stage) = value["stage"].as_str() {
            state = format!("{state} ({stage})");
        }
        let fault = value["fault"].as_str().map(str::to_owned);
        if let Some(fault) = &fault {
            state = format!("! {fault}, {state}");
        }
        Session {
            handle: text(&value["session"]),
            app_worker: text(&value["app_worker"]),
            transport: text(&value["protocol"]),
            local: text(&value["local"]),
            remote: text(&value["remote"]),
            state,
            is_stuck: fault.is_some(),
            rx: value["rx_bytes"].as_f64(),
            tx: value["tx_bytes"].as_f64(),
            srtt_us: value["srtt_us"].as_f64(),
            age_us: value["age_us"].as_f64(),
            all: value.clone(),
        }
    }

    /// Bytes that wait in it, both ways.
    pub(super) fn queued(&self) -> f64 {
        self.rx.unwrap_or(0.0) + self.tx.unwrap_or(0.0)
    }
}

/// Names and values of any answer, objects within it indented.
pub(super) fn pairs(value: &Value) -> Vec<Pair> {
    let mut pairs = Vec::new();
    add_pairs(&mut pairs, 0, value);
    pairs
}

/// A name and its value, of a detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// How deep it stands: 0 is outermost.
    pub(super) depth: usize,
    /// Its name.
    pub(super) name: String,
    /// Its value; empty for the heading of those within it.
    pub(super) value: String,
}

fn add_pairs(pairs: &mut Vec<Pair>, depth: usize, value: &Value) {
    let holds_others = |value: &Value| {
        value.is_object() || value.as_array().is_some_and(|values| values.iter().any(Value::is_object))
    };
    let mut members: Vec<(&String, &Value)> = value.as_object().into_iter().flatten().collect();
    // What stands by itself goes before what has more within it, or it would seem to be a part of that.
    members.sort_by_key(|(name, value)| (holds_others(value), rank(name)));
    for (name, value) in members {
        let mut push = |name: &str, value: String| {
            pairs.push(Pair { depth, name: name.to_owned(), value });
        };
        match value {
            Value::Object(_) => {
                push(name, String::new());
                add_pairs(pairs, depth + 1, value);
            }
            Value::Array(values) if holds_others(value) => {
                for (index, value) in values.iter().enumerate() {
                    pairs.push(Pair { depth, name: format!("{name} {index}"), value: String::new() });
                    add_pairs(pairs, depth + 1, value);
                }
            }
            Value::Array(values) if values.is_empty() => push(name, "-".to_owned()),
            Value::Array(values) => push(name, values.iter().map(scalar).collect::<Vec<_>>().join(", ")),
            other => push(name, readable(name, other)),
        }
    }
}

/// JSON has names in the order of their letters: these are looked for first, and the long lists go last.
fn rank(name: &str) -> usize {
    const FIRST: [&str; 7] = ["session", "fault", "state", "stage", "app_worker", "local", "remote"];
    const LAST: [&str; 2] = ["transport", "measured"];
    let last = LAST.iter().position(|other| *other == name).map(|place| FIRST.len() + 1 + place);
    FIRST.iter().position(|other| *other == name).or(last).unwrap_or(FIRST.len())
}

/// A value with what a person makes of it: spans of time and bytes have their units in their names.
fn readable(name: &str, value: &Value) -> String {
    let plain = scalar(value);
    match value.as_u64() {
        Some(micros) if name.ends_with("_us") && micros >= 1000 => {
            format!("{plain} ({})", crate::table::span_us(micros))
        }
        Some(count) if name.ends_with("bytes") && count >= 1000 => {
            format!("{plain} ({})", crate::table::bytes(count))
        }
        _ => plain,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_missing_and_nothing_else_is() {
        let snapshot = Snapshot::read(&json!({ "workers": [{ "worker": 3, "steps": 7 }], "sessions": "?" }));
        assert_eq!(snapshot.version, None);
        assert_eq!(snapshot.workers[0].number, 3);
        assert_eq!(snapshot.workers[0].figures.get("steps"), Some(7.0));
        assert_eq!(snapshot.workers[0].tcp("bytes_in"), None, "the counters were not told");
        assert_eq!(snapshot.summary, Figures::default());
        assert!(Snapshot::read(&Value::Null).workers.is_empty());
    }

    #[test]
    fn counters_come_as_pairs_or_by_name_and_those_left_out_are_zero() {
        for tcp in [json!([["bytes_in", 5]]), json!({ "bytes_in": 5 })] {
            let worker = Worker::read(&json!({ "tcp": tcp }));
            assert_eq!(worker.tcp("bytes_in"), Some(5.0));
            assert_eq!(worker.tcp("rtos"), Some(0.0));
            assert_eq!(worker.figure_or_tcp("in", "bytes_in"), Some(5.0));
        }
    }

    #[test]
    fn sessions_of_several_answers_are_listed_once() {
        let mut snapshot = Snapshot::read(&json!({ "slowest": [{ "session": "0:1.0" }] }));
        snapshot.add_sessions(&json!({ "sessions": [{ "session": "0:1.0" }, { "session": "0:2.0" }] }));
        snapshot
            .add_sessions(&json!([{ "session": "1:1.0", "stage": "tls", "state": "waits" }, { "total": 9 }]));
        let handles: Vec<&str> = snapshot.sessions.iter().map(|session| session.handle.as_str()).collect();
        assert_eq!(handles, ["0:1.0", "0:2.0", "1:1.0"]);
        assert_eq!(snapshot.sessions[2].state, "waits (tls)");
        let stuck = Session::read(&json!({ "session": "0:1.0", "state": "open", "fault": "no timer" }));
        assert_eq!((stuck.is_stuck, stuck.state.as_str()), (true, "! no timer, open"));
    }

    #[test]
    fn an_application_without_app_workers_is_listed_all_the_same() {
        let apps = json!([
            { "name": "echo", "detaching": false, "app_workers": [
                { "unit": 0, "state": "attached", "outcomes": { "refused": 2 }, "sessions": [3, 4],
                  "listeners": ["a", "b"] }] },
            { "name": "gone", "detaching": true, "app_workers": [] },
        ]);
        let apps = Snapshot::read(&json!({ "apps": apps })).apps;
        assert_eq!(apps[0].name(), "echo/0");
        assert_eq!(apps[0].figures.get("outcomes.refused"), Some(2.0));
        assert_eq!((apps[0].sessions, apps[0].listeners.len()), (Some(7.0), 2));
        assert_eq!((apps[1].name().as_str(), apps[1].state.as_str()), ("gone", "detaching"));
    }

    #[test]
    fn a_histogram_of_all_workers_goes_before_a_workers() {
        let histogram = |worker: Value, p50: u64| json!({ "name": "rtt", "worker": worker, "p50": p50 });
        let read = |list: Value| Snapshot::read(&json!({ "histograms": list }));
        let both = read(json!([histogram(json!(0), 1), histogram(Value::Null, 2)]));
        assert_eq!(both.histogram("rtt").unwrap().figures.get("p50"), Some(2.0));
        let one = read(json!([histogram(json!(0), 1)]));
        assert_eq!(one.histogram("rtt").unwrap().figures.get("p50"), Some(1.0));
        assert!(one.histogram("step").is_none());
    }

    #[test]
    fn a_session_begins_with_its_name_and_ends_with_what_was_measured() {
        let detail = json!({ "measured": { "srtt": 1 }, "rx_fifo": { "bytes": 1 }, "transport": { "state": 1 }, "opaque": 7 });
        let value = json!({ "age_us": 1, "fault": "no timer", "session": "0:1.0", "detail": detail });
        let names: Vec<String> = pairs(&value).into_iter().map(|pair| pair.name).collect();
        let expected = [
            "session",
            "fault",
            "age_us",
            "detail",
            "opaque",
            "rx_fifo",
            "bytes",
            "transport",
            "state",
            "measured",
            "srtt",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_detail_is_names_and_values_with_what_they_mean() {
        let value = json!({
            "session": "0:1.0", "age_us": 1_500_000, "rx_bytes": 12,
            "tcp": { "cwnd_bytes": 14_600, "state": null },
            "timers": [{ "kind": "rto" }], "stages": ["tls", "proxy"], "none": [],
        });
        let lines: Vec<String> = pairs(&value)
            .iter()
            .map(|pair| format!("{}{}={}", " ".repeat(pair.depth), pair.name, pair.value))
            .collect();
        for line in [
            "session=0:1.0",
            "age_us=1500000 (1.50 s)",
            "rx_bytes=12",
            "tcp=",
            " cwnd_bytes=14600 (14.6 kB)",
            " state=-",
            "timers 0=",
            " kind=rto",
            "stages=tls, proxy",
            "none=-",
        ] {
            assert!(lines.iter().any(|other| other == line), "no {line:?} in {lines:?}");
        }
    }
}
