//! Answers of the stack as aligned text and as JSON.

use hoststack::app::WorkerDetachReport;
use hoststack::inspect::{AppInfo, ListenerInfo, Outcomes, WorkerInfo};
use hoststack::{Answer, Leaks};
use serde::Serialize;
use serde_json::{Value, json};

use crate::plain;
use crate::table::{Column, Table, grouped, pairs, span_us};

/// Any value as indented JSON, with a line feed at its end.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    let text = text.expect("cannot fail because every key is a string and no write can fail");
    format!("{}\n", plain::json(&text))
}

/// Any value as JSON on a line of its own.
pub(crate) fn to_json_line(value: &Value) -> String {
    format!("{}\n", plain::json(&value.to_string()))
}

/// Says so when a list was asked for and is shorter than what there is.
fn cut_short(text: &mut String, limit: usize, listed: usize, total: usize) {
    if limit > 0 && listed < total {
        text.push_str(&format!("({listed} of {total}: `limit N` lists more)\n"));
    }
}

/// `show listener`.
pub(crate) fn listeners(answer: &Answer) -> String {
    let total = answer.main.listeners;
    let mut text = format!("{} listeners\n", grouped(total as u64));
    let mut table = Table::new(&[
        Column::Left("listener"),
        Column::Left("app worker"),
        Column::Left("dom"),
        Column::Left("worker"),
        Column::Left("state"),
        Column::Left("before accept"),
    ]);
    let cells = |listener: &ListenerInfo| {
        [
            listener.address.clone(),
            listener.app_worker.clone(),
            listener.domain.to_string(),
            listener.worker.map_or("all".to_owned(), |worker| worker.to_string()),
            if listener.is_up { "up" } else { "starting" }.to_owned(),
            match &listener.stages[..] {
                [] => "-".to_owned(),
                stages => format!("{} (within {})", stages.join(", "), span_us(listener.stage_timeout_us)),
            },
        ]
    };
    answer.listeners.iter().for_each(|listener| table.row(cells(listener)));
    if !table.is_empty() {
        text.push_str(&table.to_string());
    }
    cut_short(&mut text, 1, answer.listeners.len(), total);
    text
}

/// Columns of how connects ended: heading and count. What connects ended as comes first, [`ENDS`] of them.
#[allow(clippy::type_complexity, reason = "a list of headings and how to get their figures")]
const OUTCOMES: [(&str, fn(&Outcomes) -> u64); 11] = [
    ("requested", |out| out.requested),
    ("established", |out| out.established),
    ("refused", |out| out.refused),
    ("timed out", |out| out.timed_out),
    ("unreachable", |out| out.unreachable),
    ("cancelled", |out| out.cancelled),
    ("detached", |out| out.detached),
    ("failed", |out| out.failed),
    ("undelivered", |out| out.undelivered),
    ("cleaned", |out| out.cleaned),
    ("late", |out| out.late_segments),
];

/// How many of [`OUTCOMES`] are requests and how they ended.
const ENDS: usize = 8;

/// `show app`.
pub(crate) fn apps(apps: &[AppInfo]) -> String {
    let outcomes = &OUTCOMES[..ENDS];
    let mut columns = vec![
        Column::Left("app"),
        Column::Left("name"),
        Column::Right("app worker"),
        Column::Left("state"),
        Column::Right("half-open"),
    ];
    columns.extend(outcomes.iter().map(|(heading, _)| Column::Right(heading)));
    columns.push(Column::Left("listeners"));
    let mut table = Table::new(&columns);
    for app in apps {
        let name = if app.detaching { format!("{} (detaching)", app.name) } else { app.name.clone() };
        if app.app_workers.is_empty() {
            table.row([app.app.clone(), name.clone()]);
        }
        for worker in &app.app_workers {
            let head = [
                app.app.clone(),
                name.clone(),
                worker.unit.to_string(),
                worker.state.clone(),
                worker.half_opens.to_string(),
            ];
            let figures = outcomes.iter().map(|(_, count)| count(&worker.outcomes).to_string());
            let listeners =
                if worker.listeners.is_empty() { "-".to_owned() } else { worker.listeners.join(", ") };
            table.row(head.into_iter().chain(figures).chain([listeners]));
        }
    }
    if table.is_empty() { "no application is attached\n".to_owned() } else { table.to_string() }
}

/// `show app-worker`.
pub(crate) fn app_workers(apps: &[AppInfo]) -> String {
    let mut columns = vec![
        Column::Left("app worker"),
        Column::Left("state"),
        Column::Left("sessions"),
        Column::Right("listeners"),
        Column::Right("half-open"),
    ];
    columns.extend(OUTCOMES.map(|(heading, _)| Column::Right(heading)));
    let mut table = Table::new(&columns);
    for (app, worker) in apps.iter().flat_map(|app| app.app_workers.iter().map(move |worker| (app, worker))) {
        let sessions: Vec<String> = worker.sessions.iter().map(ToString::to_string).collect();
        let head = [
            format!("{}/{}", app.name, worker.unit),
            worker.state.clone(),
            sessions.join(" "),
            worker.listeners.len().to_string(),
            worker.half_opens.to_string(),
        ];
        table.row(head.into_iter().chain(OUTCOMES.map(|(_, count)| count(&worker.outcomes).to_string())));
    }
    if table.is_empty() { "no application is attached\n".to_owned() } else { table.to_string() }
}

/// A TCP counter of a worker by name; 0 when it is not listed.
pub(crate) fn counter(worker: &WorkerInfo, name: &str) -> u64 {
    worker.tcp.iter().find(|(other, _)| other == name).map_or(0, |(_, count)| *count)
}

/// `show leaks`: what is held now, TIME-WAIT apart.
pub(crate) fn leaks(leaks: &Leaks, time_wait: usize) -> String {
    let Leaks { sessions, half_opens, timers, fifo_chunks, flows, messages, parked, listeners } = *leaks;
    let held = pairs([
        ("sessions", sessions.to_string()),
        ("half-opens", half_opens.to_string()),
        ("timers", timers.to_string()),
        ("fifo chunks", fifo_chunks.to_string()),
        ("flows", flows.to_string()),
        ("messages", messages.to_string()),
        ("parked segments", parked.to_string()),
        ("listeners", listeners.to_string()),
        ("TIME-WAIT", format!("{time_wait} (owed to the peers for 2 MSL, no leak)")),
    ]);
    let verdict =
        if leaks.is_clean() { "nothing is held\n" } else { "held, or leaked if no app is attached:\n" };
    format!("{verdict}{held}")
}

/// How the detach of an application, or of some of its app workers, ended.
pub(crate) fn detached(name: &str, reports: &[WorkerDetachReport]) -> String {
    let mut table = Table::new(&[
        Column::Left("detached"),
        Column::Right("app worker"),
        Column::Right("sessions"),
        Column::Right("reset"),
        Column::Right("half-opens"),
        Column::Right("listeners"),
        Column::Right("took"),
        Column::Left("remark"),
    ]);
    for report in reports {
        let took_us = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX);
        table.row([
            name.to_owned(),
            report.unit.to_string(),
            report.sessions.to_string(),
            report.sessions_reset.to_string(),
            report.half_opens.to_string(),
            report.listeners.to_string(),
            span_us(took_us),
            remark(report),
        ]);
    }
    table.to_string()
}

/// The same for programs.
pub(crate) fn detached_json(name: &str, reports: &[WorkerDetachReport]) -> Value {
    json!({ "app": name, "detached": reports.iter().map(detached_value).collect::<Vec<Value>>() })
}

fn remark(report: &WorkerDetachReport) -> String {
    let mut remarks = Vec::new();
    if report.panicked {
        remarks.push("a callback panicked".to_owned());
    }
    if !report.stuck.is_empty() {
        let workers: Vec<String> = report.stuck.iter().map(ToString::to_string).collect();
        remarks.push(format!("late: {}", workers.join(" ")));
    }
    remarks.join("; ")
}

fn detached_value(report: &WorkerDetachReport) -> Value {
    json!({
        "app_worker": report.unit,
        "half_opens": report.half_opens,
        "sessions": report.sessions,
        "sessions_reset": report.sessions_reset,
        "listeners": report.listeners,
        "seconds": report.took.as_secs_f64(),
        "stuck": report.stuck.iter().map(|worker| worker.0).collect::<Vec<u8>>(),
        "outcomes": Outcomes::from(&report.outcomes),
        "panicked": report.panicked,
    })
}

#[cfg(test)]
mod tests;
