//! The list of sessions, page by page, and the page of one.

use hoststack::inspect::{FifoInfo, LayerInfo, SessionDetail, SessionInfo, Variables};

use super::html::{escaped, percent_encoded};
use super::overview::session_table;
use super::source::SessionPage;
use super::view::{Cell, Table, View, number, text};
use crate::table::{grouped, span_us};

/// What stands under a filter that was refused: nothing.
pub(super) fn refused() -> View {
    View { title: "Sessions".to_owned(), ..View::default() }
}

/// The list.
pub(super) fn list(page: &SessionPage) -> View {
    let count = grouped(page.sessions.len() as u64);
    let noun = if page.sessions.len() == 1 { "session" } else { "sessions" };
    let title = match page.next {
        Some(_) => format!("{count} {noun}, and there are more"),
        None => format!("{count} {noun}"),
    };
    let table = session_table("sessions", &title, &page.sessions);
    View { title: "Sessions".to_owned(), tables: vec![table], ..View::default() }
}

/// The form of its filter and the links between its pages, as HTML.
pub(super) fn list_lead(filter: &str, refused: Option<&str>, is_first: bool, next: Option<u64>) -> String {
    let mut html = format!(
        "<form action=\"/sessions\"><input type=\"search\" name=\"filter\" value=\"{}\" \
         placeholder=\"app echo remote 10.0.0.0/8 state open older 10s\" aria-label=\"Filter\">\
         <button>Filter</button></form>",
        escaped(filter)
    );
    if let Some(refused) = refused {
        html.push_str(&format!("<p class=\"refused\">{}</p>", escaped(refused)));
    }
    let filter = percent_encoded(filter);
    let first = (!is_first).then(|| format!("<a href=\"/sessions?filter={filter}\">First page</a>"));
    let next =
        next.map(|next| format!("<a href=\"/sessions?filter={filter}&amp;after={next}\">Next page</a>"));
    if first.is_some() || next.is_some() {
        html.push_str(&format!(
            "<p class=\"pages\">{}{}</p>",
            first.unwrap_or_default(),
            next.unwrap_or_default()
        ));
    }
    html
}

/// The page of a session: each layer is a table of names and values.
pub(super) fn detail(session: &SessionInfo) -> View {
    let age = Cell::measured(session.age_us as f64, span_us(session.age_us));
    let can_go_on = session.fault.map_or("yes".to_owned(), |fault| format!("NO: {fault}"));
    let rows = vec![
        named("app worker", &*session.app_worker),
        named("transport", format!("{} in domain {}", session.flow.protocol.name(), session.flow.domain.0)),
        named("local", session.local()),
        named("remote", session.remote()),
        named("declared", or_dash(&session.declared)),
        named("state (app/transport)", session.state()),
        vec![Cell::text("age"), age],
        vec![Cell::text("can go on"), Cell::text(can_go_on).alarming(session.fault.is_some())],
    ];
    let mut tables = vec![group("session", "Session", rows)];
    if let Some(detail) = session.detail.as_deref() {
        let rows = vec![
            named("opaque", format!("{:#x}", detail.opaque)),
            named("connect", detail.connect.as_deref().unwrap_or("-")),
            named("must be up in", detail.deadline_in_us.map_or("-".to_owned(), span_us)),
            named("stage", session.stage.unwrap_or("-")),
            named("stages left", listed(&detail.stages)),
            named("to tell the app", listed(&detail.pending)),
            named("queued", listed(&detail.queues)),
        ];
        tables.push(group("session-layer", "Session layer", rows));
        tables.push(fifos(detail));
        if let Some(LayerInfo { name, state, .. }) = &detail.layer {
            tables.push(variables("layer", &format!("Layer {name}"), state));
        }
        tables.push(variables("transport", "Transport", &detail.transport_variables()));
        tables.push(variables("measured", "Measured", &detail.measured_variables()));
    }
    View { title: format!("Session {}", session.session), tables, ..View::default() }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn named(name: &str, value: impl Into<String>) -> Vec<Cell> {
    vec![Cell::text(name), Cell::text(value)]
}

fn group(id: &str, title: &str, rows: Vec<Vec<Cell>>) -> Table {
    let columns = vec![text("name"), text("value")];
    Table { id: id.to_owned(), title: title.to_owned(), columns, rows, empty: "none: the transport is done" }
}

fn variables(id: &str, title: &str, variables: &Variables) -> Table {
    group(id, title, variables.0.iter().map(|(name, value)| variable(name, value)).collect())
}

/// A span of time with the unit that suits it; anything else as it is.
fn variable(name: &str, value: &str) -> Vec<Cell> {
    match (name.strip_suffix("_us"), value.parse()) {
        (Some(name), Ok(micros)) => named(name, span_us(micros)),
        _ => named(name, or_dash(value)),
    }
}

/// A row for each fifo: the app's, and those beneath a layer.
fn fifos(detail: &SessionDetail) -> Table {
    let columns = [
        text("fifo"),
        number("bytes"),
        number("capacity"),
        number("may grow to"),
        number("chunks"),
        number("beyond a hole"),
        number("ranges"),
        number("urgent"),
    ];
    let row = |name: &str, fifo: &FifoInfo| {
        let FifoInfo { bytes, capacity, capacity_max, chunks, ooo_ranges, ooo_bytes, urgent } = *fifo;
        let mut row = vec![Cell::text(name)];
        let counts = [bytes, capacity, capacity_max, chunks, ooo_bytes, ooo_ranges, urgent];
        row.extend(counts.map(|count| Cell::number(count as u64)));
        if capacity_max == 0 {
            row[3] = Cell::measured(0.0, "-");
        }
        row
    };
    let mut rows = vec![row("to read", &detail.rx_fifo), row("to send", &detail.tx_fifo)];
    if let Some(LayerInfo { name, wire_rx, wire_tx, .. }) = &detail.layer {
        rows.push(row(&format!("received, beneath {name}"), wire_rx));
        rows.push(row(&format!("to send, beneath {name}"), wire_tx));
    }
    Table { id: "fifos".to_owned(), title: "Fifos".to_owned(), columns: columns.into(), rows, empty: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::show::sessions::a_session;
    use hoststack::inspect::TransportState;

    fn session() -> SessionInfo {
        let mut session = a_session(5);
        session.declared = "<b>".to_owned();
        session.age_us = 1_500_000;
        let transport = "state=ESTABLISHED snd.una=1 snd.wl1= rto_us=1500000 x_us=none";
        let mut detail = SessionDetail {
            stages: vec!["TLS", "PROXY header to send"],
            transport: TransportState::Other(transport.to_owned()),
            ..SessionDetail::default()
        };
        detail.tx_fifo.bytes = 12_345;
        session.detail = Some(Box::new(detail));
        session
    }

    fn rows(view: &View, id: &str) -> Vec<Vec<String>> {
        let table = view.tables.iter().find(|table| table.id == id).unwrap();
        table.rows.iter().map(|row| row.iter().map(|cell| cell.text.clone()).collect()).collect()
    }

    #[test]
    fn a_session_is_shown_layer_by_layer() {
        let view = detail(&session());
        assert_eq!(view.title, "Session 0:5.1");
        let ids: Vec<&str> = view.tables.iter().map(|table| table.id.as_str()).collect();
        assert_eq!(ids, ["session", "session-layer", "fifos", "transport", "measured"]);
        let has = |id, name: &str, value: &str| rows(&view, id).contains(&vec![name.into(), value.into()]);
        assert!(has("session", "age", "1.50 s") && has("session", "declared", "<b>"));
        assert!(has("session", "can go on", "yes") && has("session-layer", "queued", "-"));
        assert!(has("session-layer", "stages left", "TLS, PROXY header to send"));
        let variables = [
            ["state", "ESTABLISHED"],
            ["snd.una", "1"],
            ["snd.wl1", "-"],
            ["rto", "1.50 s"],
            ["x_us", "none"],
        ];
        assert_eq!(rows(&view, "transport"), variables);
        assert_eq!(rows(&view, "fifos")[1][..4], ["to send", "12 345", "0", "-"]);
        for table in &view.tables {
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", table.id);
        }
    }

    #[test]
    fn a_layer_has_its_own_table_and_its_fifos() {
        let mut session = session();
        let state = Variables(vec![("version".to_owned(), "1.3".to_owned())]);
        let layer = LayerInfo { name: "TLS", state, ..LayerInfo::default() };
        session.detail.as_mut().unwrap().layer = Some(layer);
        let view = detail(&session);
        assert_eq!(rows(&view, "layer"), [["version", "1.3"]]);
        assert_eq!(rows(&view, "fifos")[3][0], "to send, beneath TLS");
    }

    #[test]
    fn one_that_cannot_go_on_draws_the_eye() {
        let mut session = session();
        session.fault = Some("its timer is overdue");
        let view = detail(&session);
        let alarms =
            || view.tables.iter().flat_map(|table| &table.rows).flatten().filter(|cell| cell.is_alarming);
        assert!(alarms().map(|cell| &*cell.text).eq(["NO: its timer is overdue"]));
    }

    #[test]
    fn pages_lead_on_and_back_with_their_filter() {
        let html = list_lead("a\"b c", None, false, Some(9));
        assert!(html.contains("value=\"a&quot;b c\""), "{html}");
        assert!(
            html.contains("/sessions?filter=a%22b%20c\">First")
                && html.contains("filter=a%22b%20c&amp;after=9\">Next")
        );
        assert!(!list_lead("", None, true, None).contains("<p"));
        let refused = list_lead("<", Some("`<` is no filter"), true, None);
        assert!(refused.contains("<p class=\"refused\">`&lt;` is no filter</p>"), "{refused}");
    }
}
