//! The list of sessions, page by page, and the page of one.

use hoststack::inspect::SessionInfo;
use serde_json::Value;

use super::html::{escaped, percent_encoded};
use super::overview::session_table;
use super::source::SessionPage;
use super::view::{Cell, Table, View, text};
use crate::table::{grouped, span_us};

/// The list.
pub(super) fn list(page: &SessionPage) -> View {
    let count = grouped(page.sessions.len() as u64);
    let title = match page.next {
        Some(_) => format!("{count} sessions, and there are more"),
        None => format!("{count} sessions"),
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
        html.push_str(&format!("<p class=\"empty\">{}</p>", escaped(refused)));
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

/// The page of a session: each layer that the stack tells of is a table of names and values.
pub(super) fn detail(session: &SessionInfo) -> View {
    let value = serde_json::to_value(session)
        .expect("cannot fail because every key is a string and nothing in it refuses to be written");
    let mut tables = Vec::new();
    add_group(&mut tables, "session", &value);
    View { title: format!("Session {}", session.session), tables, ..View::default() }
}

/// A table of what is plain in `value`, and after it one of each group in it.
fn add_group(tables: &mut Vec<Table>, name: &str, value: &Value) {
    let Value::Object(fields) = value else { return };
    let at = tables.len();
    let mut rows = Vec::new();
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::Object(_) => add_group(tables, key, value),
            Value::String(variables) if key == "transport" && variables.contains('=') => {
                add_variables(tables, key, variables);
            }
            // The handle's number is for programs.
            Value::Number(_) if key == "handle" => {}
            value => rows.push(row(key, value)),
        }
    }
    if !rows.is_empty() {
        tables.insert(at, group(name, rows));
    }
}

/// A table of `name=value` words.
fn add_variables(tables: &mut Vec<Table>, name: &str, variables: &str) {
    let rows = variables.split_whitespace().map(|word| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        vec![Cell::text(name), Cell::text(value)]
    });
    tables.push(group(name, rows.collect()));
}

fn group(name: &str, rows: Vec<Vec<Cell>>) -> Table {
    let title = name.replace('_', " ");
    Table { id: name.to_owned(), title, columns: vec![text("name"), text("value")], rows, empty: "" }
}

fn row(key: &str, value: &Value) -> Vec<Cell> {
    let (name, value) = match (key.strip_suffix("_us"), value) {
        (Some(name), Value::Number(micros)) => (name, span_us(micros.as_u64().unwrap_or_default())),
        (_, Value::Number(number)) => (key, number.as_u64().map_or_else(|| number.to_string(), grouped)),
        (_, Value::String(text)) if text.is_empty() => (key, "-".to_owned()),
        (_, Value::String(text)) => (key, text.clone()),
        (_, Value::Array(items)) => {
            let items =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            (key, items.collect::<Vec<_>>().join(", "))
        }
        (_, other) => (key, other.to_string()),
    };
    vec![Cell::text(name.replace('_', " ")), Cell::text(value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_shown_layer_by_layer() {
        let mut session = SessionInfo::default();
        session.session = "0:5.1".to_owned();
        session.handle = 77;
        session.remote = "<b>".to_owned();
        session.age_us = 1_500_000;
        session.transport = "state=ESTABLISHED snd.una=1".to_owned();
        let view = detail(&session);
        assert_eq!(view.title, "Session 0:5.1");
        let ids: Vec<&str> = view.tables.iter().map(|table| table.id.as_str()).collect();
        assert_eq!(ids, ["session", "transport"]);
        let rows = |table: usize| -> Vec<(&str, &str)> {
            view.tables[table].rows.iter().map(|row| (row[0].text.as_str(), row[1].text.as_str())).collect()
        };
        assert!(
            rows(0).contains(&("age", "1.50 s")) && rows(0).contains(&("remote", "<b>")),
            "{:?}",
            rows(0)
        );
        assert!(!rows(0).iter().any(|(name, _)| *name == "handle"));
        assert_eq!(rows(1), [("state", "ESTABLISHED"), ("snd.una", "1")]);
    }

    #[test]
    fn groups_within_groups_are_tables_of_their_own() {
        let value = serde_json::json!({ "a": 1, "b": { "c": [ "x", "y" ], "d": { "e_us": 10 } }, "f": null });
        let mut tables = Vec::new();
        add_group(&mut tables, "top", &value);
        let ids: Vec<&str> = tables.iter().map(|table| table.id.as_str()).collect();
        assert_eq!(ids, ["top", "b", "d"]);
        assert_eq!(tables[1].rows[0][1].text, "x, y");
        assert_eq!((&*tables[2].rows[0][0].text, &*tables[2].rows[0][1].text), ("e", "10 us"));
    }

    #[test]
    fn pages_lead_on_and_back_with_their_filter() {
        let html = list_lead("a\"b c", false, Some(9));
        assert!(html.contains("value=\"a&quot;b c\""), "{html}");
        assert!(
            html.contains("/sessions?filter=a%22b%20c\">First")
                && html.contains("filter=a%22b%20c&amp;after=9\">Next")
        );
        assert!(!list_lead("", true, None).contains("<p"));
    }
}
