//! Sessions and half-opens: rows, and one with everything.

use hoststack::app::{AppWorkerId, DomainId, Endpoint, FlowKey, Key, Protocol, SessionHandle};
use hoststack::inspect::{
    AppSide, FifoInfo, HalfOpenInfo, LayerInfo, SessionDetail, SessionInfo, SessionSummary, TransportSide,
    TransportState, Variables,
};

use crate::table::{Column, Table, grouped, pairs, span_us};

/// A session of slot `slot` that nothing is the matter with: for the page of commands, and for tests.
pub(crate) fn a_session(slot: u32) -> SessionInfo {
    let end = |addr: [u8; 4], port| Endpoint { addr: addr.into(), port };
    let (local, remote) = (end([10, 9, 0, 2], 7), end([10, 9, 0, 1], 40_312));
    SessionInfo {
        session: SessionHandle::from_u64(u64::from(slot) << 28 | 1),
        app_worker_id: AppWorkerId(Key { slot: 0, generation: 1 }),
        app_worker: "echo/0".into(),
        flow: FlowKey { local, remote, domain: DomainId(0), protocol: Protocol::Tcp },
        declared: String::new(),
        stage: None,
        app_side: AppSide::Open,
        transport_side: TransportSide::Open,
        rx_bytes: 0,
        tx_bytes: 0,
        age_us: 0,
        srtt_us: None,
        fault: None,
        transport: TransportState::None,
        layer: String::new(),
        detail: None,
    }
}

/// Sessions by state, in a line.
pub(crate) fn summary(summary: &SessionSummary, time_wait: usize) -> String {
    let SessionSummary { total, unannounced, open, peer_closed, half_closed, closing, ended } = *summary;
    format!(
        "{} session{}: {open} open, {peer_closed} peer closed, {half_closed} half closed, {closing} closing, {ended} ended, \
         {unannounced} not announced; {time_wait} in TIME-WAIT\n",
        grouped(total as u64),
        plural(total),
    )
}

/// What makes one of them several.
pub(crate) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A mark at the beginning of a row: it cannot go on by itself.
fn mark(fault: Option<&'static str>) -> String {
    fault.map_or(String::new(), |_| "!".to_owned())
}

/// Rows of sessions; what each waits for, its fault and the transport's variables stand under it.
pub(crate) fn rows(sessions: &[SessionInfo]) -> String {
    let mut table = Table::new(&[
        Column::Left(""),
        Column::Left("session"),
        Column::Left("app worker"),
        Column::Left("transport"),
        Column::Left("dom"),
        Column::Left("local"),
        Column::Left("remote"),
        Column::Left("declared"),
        Column::Left("state"),
        Column::Right("rx"),
        Column::Right("tx"),
        Column::Right("rtt"),
        Column::Right("age"),
    ]);
    for session in sessions {
        table.row([
            mark(session.fault),
            session.session.to_string(),
            session.app_worker.to_string(),
            session.flow.protocol.name().to_owned(),
            session.flow.domain.0.to_string(),
            session.local(),
            session.remote(),
            if session.declared.is_empty() { "-".to_owned() } else { session.declared.clone() },
            session.state(),
            session.rx_bytes.to_string(),
            session.tx_bytes.to_string(),
            session.srtt_us.map_or("-".to_owned(), |srtt_us| span_us(u64::from(srtt_us))),
            span_us(session.age_us),
        ]);
    }
    let mut text = String::new();
    if table.is_empty() {
        return text;
    }
    for (index, line) in table.to_string().lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        let Some(session) = index.checked_sub(1).and_then(|index| sessions.get(index)) else { continue };
        if let Some(fault) = session.fault {
            text.push_str(&format!("    ! {fault}\n"));
        }
        if let Some(stage) = session.stage {
            text.push_str(&format!("    not announced: waits in the stage \"{stage}\"\n"));
        }
        let variables = session.variables();
        if !variables.is_empty() {
            text.push_str(&format!("    {variables}\n"));
        }
        if let Some(detail) = &session.detail {
            for line in layers(detail).lines() {
                text.push_str(&format!("    {line}\n"));
            }
        }
    }
    text
}

/// One session with every layer.
pub(crate) fn one(session: &SessionInfo) -> String {
    let head = [
        ("session", format!("{} ({})", session.session, session.session.as_u64())),
        ("app worker", session.app_worker.to_string()),
        ("transport", format!("{} in domain {}", session.flow.protocol.name(), session.flow.domain.0)),
        ("local", session.local()),
        ("remote", session.remote()),
        ("declared", if session.declared.is_empty() { "-".into() } else { session.declared.clone() }),
        ("state (app/transport)", session.state()),
        ("age", span_us(session.age_us)),
        ("can go on", session.fault.map_or("yes".into(), |fault| format!("NO: {fault}"))),
    ];
    let mut text = pairs(head);
    if let Some(detail) = &session.detail {
        text.push_str(&layers(detail));
    }
    text
}

fn layers(detail: &SessionDetail) -> String {
    let list = |words: &[&str]| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    let SessionDetail { rx_fifo, tx_fifo, layer, .. } = detail;
    let mut session = vec![
        ("opaque", format!("{:#x}", detail.opaque)),
        ("stages left", list(&detail.stages)),
        ("to tell the app", list(&detail.pending)),
        ("queued", list(&detail.queues)),
        ("rx fifo", fifo(rx_fifo)),
        ("tx fifo", fifo(tx_fifo)),
    ];
    if let Some(connect) = &detail.connect {
        session.push(("connect", connect.clone()));
    }
    if let Some(deadline_us) = detail.deadline_in_us {
        session.push(("must be up in", span_us(deadline_us)));
    }
    let mut text = section("session layer", &pairs(session));
    if let Some(LayerInfo { name, state, wire_rx, wire_tx }) = layer {
        let mut rows = variables(state);
        rows.push_str(&pairs([("wire rx fifo", fifo(wire_rx)), ("wire tx fifo", fifo(wire_tx))]));
        text.push_str(&section(&format!("layer {name}"), &rows));
    }
    let (transport, measured) = (detail.transport_variables(), detail.measured_variables());
    text.push_str(&section("transport", &variables(&transport)));
    let rows = match (measured.0.is_empty(), transport.0.is_empty()) {
        (true, false) => "nothing: this transport has no figures of single connections\n".to_owned(),
        _ => variables(&measured),
    };
    text.push_str(&section("measured", &rows));
    text
}

fn section(name: &str, lines: &str) -> String {
    let mut text = format!("{name}\n");
    for line in lines.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Names and values, three in a line.
fn variables(variables: &Variables) -> String {
    const COLUMNS: usize = 3;
    if variables.0.is_empty() {
        return "none: the transport is done\n".to_owned();
    }
    let words: Vec<String> = variables.0.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let width = words.iter().map(|word| word.chars().count()).max().unwrap_or(0);
    let line = |row: &[String]| {
        let cells: Vec<String> = row.iter().map(|word| format!("{word:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    words.chunks(COLUMNS).map(line).collect()
}

fn fifo(fifo: &FifoInfo) -> String {
    let FifoInfo { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent } = *fifo;
    let mut text = format!("{bytes} of {capacity} bytes, {chunks} chunks");
    if capacity_max > 0 {
        text.push_str(&format!(", may grow to {capacity_max}"));
    }
    if ooo_ranges > 0 {
        text.push_str(&format!(", {ooo_bytes} bytes beyond a hole in {ooo_ranges} ranges"));
    }
    if urgent > 0 {
        text.push_str(&format!(", {urgent} urgent"));
    }
    text
}

/// How many half-opens there are, in a line.
pub(crate) fn half_open_summary(sessions: usize, connections: usize) -> String {
    format!(
        "{} half-open sessions, {} half-open connections\n",
        grouped(sessions as u64),
        grouped(connections as u64)
    )
}

/// Rows of half-opens.
pub(crate) fn half_open_rows(half_opens: &[HalfOpenInfo]) -> String {
    let mut table = Table::new(&[
        Column::Left(""),
        Column::Left("connect"),
        Column::Left("app worker"),
        Column::Left("transport"),
        Column::Left("dom"),
        Column::Left("local"),
        Column::Left("remote"),
        Column::Left("state"),
        Column::Left("ticket"),
        Column::Right("tries"),
        Column::Right("sent"),
        Column::Right("next in"),
        Column::Right("age"),
        Column::Right("deadline in"),
    ]);
    for half_open in half_opens {
        table.row([
            mark(half_open.fault),
            half_open.connect.clone(),
            half_open.app_worker.clone(),
            half_open.protocol.to_owned(),
            half_open.domain.to_string(),
            half_open.local.clone(),
            half_open.remote.clone(),
            if half_open.is_waiting { "waiting".to_owned() } else { half_open.state.clone() },
            half_open.holder.clone(),
            half_open.tries.to_string(),
            half_open.attempts.to_string(),
            half_open.next_retransmission_in_us.map_or("-".to_owned(), span_us),
            span_us(half_open.age_us),
            span_us(half_open.deadline_in_us),
        ]);
    }
    if table.is_empty() { String::new() } else { table.to_string() }
}

/// One half-open.
pub(crate) fn one_half_open(half_open: &HalfOpenInfo) -> String {
    let stages = if half_open.stages.is_empty() { "-".to_owned() } else { half_open.stages.join(", ") };
    pairs([
        ("connect", format!("{} ({})", half_open.connect, half_open.connect_id)),
        ("app worker", half_open.app_worker.clone()),
        ("transport", format!("{} in domain {}", half_open.protocol, half_open.domain)),
        ("local", half_open.local.clone()),
        ("remote", half_open.remote.clone()),
        (
            "state",
            if half_open.is_waiting {
                format!("{}, waiting", half_open.state)
            } else {
                half_open.state.clone()
            },
        ),
        ("ticket held by", half_open.holder.clone()),
        ("worker of the flow", half_open.worker.to_string()),
        ("attempts", half_open.tries.to_string()),
        ("SYNs sent, or connects asked for", half_open.attempts.to_string()),
        ("next one in", half_open.next_retransmission_in_us.map_or("-".to_owned(), span_us)),
        ("addresses left", half_open.alternatives_left.to_string()),
        ("rounds left", half_open.rounds_left.to_string()),
        ("last soft error", half_open.soft_error.clone().unwrap_or_else(|| "-".to_owned())),
        ("stages to come", stages),
        ("early data", format!("{} bytes", half_open.early_bytes)),
        ("opaque", format!("{:#x}", half_open.opaque)),
        ("age", span_us(half_open.age_us)),
        ("deadline in", span_us(half_open.deadline_in_us)),
        ("can go on", half_open.fault.map_or("yes".into(), |fault| format!("NO: {fault}"))),
    ])
}

/// What to type for the rest of a list.
pub(crate) fn more(listed: usize, matched: Option<u64>, next: Option<&str>) -> String {
    match (matched, next) {
        (Some(matched), _) => format!("({listed} of {} that fit)\n", grouped(matched)),
        (None, Some(next)) => format!(
            "({listed} listed, and there are more: `{next}` goes on, `all` lists all, `count` counts)\n"
        ),
        (None, None) if listed == 0 => "none fits\n".to_owned(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_summed_up_in_a_line() {
        let states = SessionSummary { total: 2, open: 1, closing: 1, ..SessionSummary::default() };
        assert_eq!(
            summary(&states, 7),
            "2 sessions: 1 open, 0 peer closed, 0 half closed, 1 closing, 0 ended, 0 not announced; 7 in TIME-WAIT\n"
        );
        assert_eq!(half_open_summary(0, 1_000), "0 half-open sessions, 1 000 half-open connections\n");
    }

    #[test]
    fn what_a_session_waits_for_and_its_transport_stand_under_its_row() {
        let mut session = a_session(1);
        session.declared = "192.0.2.1:5->192.0.2.2:6".into();
        session.stage = Some("PROXY header to receive");
        session.transport = TransportState::Other("fd 5".to_owned());
        let text = rows(std::slice::from_ref(&session));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].contains("192.0.2.1:5->192.0.2.2:6"));
        assert_eq!(lines[2], "    not announced: waits in the stage \"PROXY header to receive\"");
        assert_eq!(lines[3], "    fd 5");
        assert_eq!(rows(&[]), "");
    }

    #[test]
    fn variables_stand_three_in_a_line() {
        let pairs = ["a", "bb", "c", "d"].map(|name| (name.to_owned(), "1".to_owned()));
        assert_eq!(variables(&Variables(pairs.into())), "a 1   bb 1  c 1\nd 1\n");
    }
}
