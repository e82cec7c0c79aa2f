//! Answers of the stack as aligned text and as JSON.

use hoststack::app::WorkerDetachReport;
use hoststack::inspect::{AppInfo, DropInfo, ListenerInfo, MainInfo, Outcomes, WorkerInfo};
use hoststack::{Answer, Leaks};
use serde::Serialize;
use serde_json::{Value, json};

use crate::table::{Column, Table, grouped, pairs, span_us};

/// Any value as indented JSON, with a line feed at its end.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("cannot fail because every key is a string and no write can fail") + "\n"
}

/// `show errors` for programs.
pub(crate) fn errors_json(workers: &[WorkerInfo]) -> Value {
    let errors: Vec<Value> = drops(workers)
        .map(|(worker, drop)| {
            json!({ "worker": worker, "reason": drop.reason, "count": drop.count, "help": drop.help })
        })
        .collect();
    json!({ "errors": errors })
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

/// `show app`.
pub(crate) fn apps(apps: &[AppInfo]) -> String {
    let mut table = Table::new(&[
        Column::Left("app"),
        Column::Left("name"),
        Column::Right("app worker"),
        Column::Left("state"),
        Column::Right("half-open"),
        Column::Right("requested"),
        Column::Right("established"),
        Column::Right("refused"),
        Column::Right("timed out"),
        Column::Right("unreachable"),
        Column::Right("cancelled"),
        Column::Right("failed"),
        Column::Left("listeners"),
    ]);
    for app in apps {
        let name = if app.detaching { format!("{} (detaching)", app.name) } else { app.name.clone() };
        if app.app_workers.is_empty() {
            table.row([app.app.clone(), name.clone()]);
        }
        for worker in &app.app_workers {
            let out = worker.outcomes;
            let figures = [
                out.requested,
                out.established,
                out.refused,
                out.timed_out,
                out.unreachable,
                out.cancelled,
                out.failed,
            ];
            let head = [
                app.app.clone(),
                name.clone(),
                worker.unit.to_string(),
                worker.state.clone(),
                worker.half_opens.to_string(),
            ];
            let listeners =
                if worker.listeners.is_empty() { "-".to_owned() } else { worker.listeners.join(", ") };
            table.row(head.into_iter().chain(figures.map(|figure| figure.to_string())).chain([listeners]));
        }
    }
    if table.is_empty() { "no application is attached\n".to_owned() } else { table.to_string() }
}

/// `show worker`.
pub(crate) fn workers(workers: &[WorkerInfo], main: &MainInfo) -> String {
    let mut columns = vec![Column::Left("")];
    // The headings are static: a worker's number stands in the first row instead.
    columns.extend(workers.iter().map(|_| Column::Right("worker")));
    let mut table = Table::new(&columns);
    let mut row = |name: &str, figure: &dyn Fn(&WorkerInfo) -> u64| {
        let figures = workers.iter().map(|worker| grouped(figure(worker)));
        table.row([name.to_owned()].into_iter().chain(figures));
    };
    row("number", &|worker| worker.worker.into());
    row("steps", &|worker| worker.steps);
    row("busy steps", &|worker| worker.busy_steps);
    row("sleeps", &|worker| worker.sleeps);
    row("packets received", &|worker| worker.rx_packets);
    row("packets sent", &|worker| worker.tx_packets);
    row("packets handed over", &|worker| worker.handed_over);
    row("callbacks", &|worker| worker.callbacks);
    row("sessions", &|worker| worker.sessions as u64);
    row("establishing", &|worker| worker.establishing as u64);
    row("fifo chunks", &|worker| worker.fifo_chunks as u64);
    row("connections", &|worker| worker.connections as u64);
    row("half-open entries", &|worker| worker.half_open_entries as u64);
    row("SYN-RECEIVED", &|worker| worker.syn_received as u64);
    row("TIME-WAIT", &|worker| worker.time_wait as u64);
    row("timers", &|worker| worker.timers as u64);
    row("flows", &|worker| worker.flows as u64);
    let mut counters: Vec<&str> =
        workers.iter().flat_map(|worker| worker.tcp.iter().map(|(name, _)| name.as_str())).collect();
    counters.sort_unstable();
    counters.dedup();
    for name in counters {
        row(&format!("tcp {name}"), &|worker| counter(worker, name));
    }
    let main = pairs([
        ("steps", grouped(main.steps)),
        ("half-open sessions", grouped(main.half_open_sessions as u64)),
        ("half-open connections", grouped(main.half_open_connections as u64)),
        ("4-tuples", grouped(main.tuples as u64)),
        ("listeners", grouped(main.listeners as u64)),
        ("messages waiting", grouped(main.messages)),
        ("tickets dropped", grouped(main.tickets_dropped)),
        ("connects orphaned", grouped(main.connects_orphaned)),
    ]);
    format!("{table}main\n{main}")
}

/// A TCP counter of a worker by name; 0 when it is not listed.
pub(crate) fn counter(worker: &WorkerInfo, name: &str) -> u64 {
    worker.tcp.iter().find(|(other, _)| other == name).map_or(0, |(_, count)| *count)
}

fn drops(workers: &[WorkerInfo]) -> impl Iterator<Item = (u8, &DropInfo)> {
    workers.iter().flat_map(|worker| worker.drops.iter().map(|drop| (worker.worker, drop)))
}

/// `show errors`: what was dropped, by reason.
pub(crate) fn errors(workers: &[WorkerInfo]) -> String {
    let mut table = Table::new(&[
        Column::Right("worker"),
        Column::Right("count"),
        Column::Left("reason"),
        Column::Left("meaning"),
    ]);
    for (worker, drop) in drops(workers) {
        table.row([worker.to_string(), grouped(drop.count), drop.reason.clone(), drop.help.clone()]);
    }
    if table.is_empty() { "nothing was dropped\n".to_owned() } else { table.to_string() }
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
