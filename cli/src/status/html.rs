//! A view as HTML: whole without JavaScript; `page.js` fills the same places anew from the view's JSON.

use std::fmt::Write;

use super::plot::{HEIGHT, WIDTH};
use super::view::{Cell, Plot, Sort, Table, View};

/// How it looks.
pub(super) const STYLE: &str = include_str!("page.css");
/// Keeps it fresh and sorts tables.
pub(super) const SCRIPT: &str = include_str!("page.js");

/// Where a page is, and what else is on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame<'a> {
    /// Its path.
    pub(super) path: &'a str,
    /// Its query, as it came.
    pub(super) query: &'a str,
    /// Where its view is to be had as JSON, if it is worth watching.
    pub(super) json: Option<&'a str>,
    /// How its tables are sorted.
    pub(super) sort: Option<&'a Sort>,
    /// HTML between the heading and the rest, escaped by whoever made it.
    pub(super) lead: &'a str,
}

/// `text` where HTML may stand, in an attribute's quotes, too.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// `text` as a value in an address's query or as a part of its path.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte))
            }
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// The page of a view.
pub(super) fn page(view: &View, frame: &Frame<'_>) -> String {
    let mut body = String::new();
    if !view.tiles.is_empty() {
        body.push_str("<section class=\"tiles\">");
        for tile in &view.tiles {
            let _ = write!(
                body,
                "<div class=\"tile{}\"><span class=\"label\">{}</span><b>{}</b></div>",
                if tile.is_alarming { " alarm" } else { "" },
                escaped(tile.label),
                escaped(&tile.value)
            );
        }
        body.push_str("</section>");
    }
    if !view.plots.is_empty() {
        body.push_str("<section class=\"plots\">");
        view.plots.iter().for_each(|plot| body.push_str(&figure(plot)));
        body.push_str("</section>");
    }
    body.push_str("<div class=\"tables\">");
    view.tables.iter().for_each(|one| body.push_str(&table(one, frame)));
    body.push_str("</div>");
    let is_here = |path: &str| if frame.path == path { " aria-current=\"page\"" } else { "" };
    let json = frame.json.map_or(String::new(), |json| format!(" data-json=\"{}\"", escaped(json)));
    let reload =
        frame.json.map_or("", |_| "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>");
    let again = match frame.query {
        "" => frame.path.to_owned(),
        query => format!("{}?{query}", frame.path),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - hoststack</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">{reload}\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/page.css\">\
         <script src=\"/page.js\" defer></script></head>\n<body><header><strong>hoststack</strong>\
         <nav><a href=\"/\"{overview}>Overview</a><a href=\"/sessions\"{sessions}>Sessions</a>\
         <a href=\"/metrics\">Metrics</a><a href=\"/status.json\">JSON</a></nav>\
         <span id=\"freshness\"><a href=\"{again}\">Refresh</a></span></header>\n\
         <main{json}><h1>{title}</h1>{lead}{body}</main>\n\
         <footer>hoststack {version}, read only</footer></body></html>\n",
        title = escaped(&view.title),
        overview = is_here("/"),
        sessions = is_here("/sessions"),
        again = escaped(&again),
        lead = frame.lead,
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn figure(plot: &Plot) -> String {
    let mut html = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">\
         <path class=\"grid\" d=\"M0 0H{WIDTH}M0 {half}H{WIDTH}M0 {HEIGHT}H{WIDTH}\"/>",
        escaped(plot.title),
        escaped(plot.title),
        half = HEIGHT / 2,
    );
    for (index, line) in plot.lines.iter().enumerate() {
        let _ = write!(html, "<path class=\"line line{index}\" d=\"{}\"/>", escaped(&line.path));
    }
    let _ = write!(html, "</svg><span class=\"top\">{}</span><div class=\"legend\">", escaped(&plot.top));
    for (index, line) in plot.lines.iter().enumerate() {
        let _ = write!(
            html,
            "<span><i class=\"line{index}\"></i>{} <b>{}</b></span>",
            escaped(line.name),
            escaped(&line.now)
        );
    }
    html.push_str("<span class=\"span\">5 min</span></div></figure>");
    html
}

fn table(table: &Table, frame: &Frame<'_>) -> String {
    let id = escaped(&table.id);
    // Two of few columns stand side by side.
    let wide = if table.columns.len() > 3 { " wide" } else { "" };
    let mut html = format!("<section class=\"table{wide}\" id=\"{id}\"><h2>{}</h2>", escaped(&table.title));
    let hidden = if table.rows.is_empty() { " hidden" } else { "" };
    let shown = if table.rows.is_empty() { "" } else { " hidden" };
    let _ = write!(
        html,
        "<p class=\"empty\"{shown}>{}</p><div class=\"scroll\"{hidden}><table><thead><tr>",
        escaped(table.empty)
    );
    let sorted = frame.sort.filter(|sort| sort.table == table.id);
    for (index, column) in table.columns.iter().enumerate() {
        let sorted = sorted.filter(|sort| sort.column == index);
        // A number's interesting end is its largest; clicked again it turns round.
        let descending = sorted.map_or(column.is_number, |sort| !sort.descending);
        let aria = match sorted {
            Some(sort) if sort.descending => " aria-sort=\"descending\"",
            Some(_) => " aria-sort=\"ascending\"",
            None => "",
        };
        let sign = if descending { "-" } else { "" };
        let class = if column.is_number { " class=\"number\"" } else { "" };
        let _ = write!(
            html,
            "<th{class}{aria} scope=\"col\"><a href=\"{}\">{}</a></th>",
            escaped(&with_sort(frame, &format!("{sign}{}.{index}", table.id))),
            escaped(column.name)
        );
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        html.push_str("<tr>");
        for (cell, column) in row.iter().zip(&table.columns) {
            html.push_str(&td(cell, column.is_number));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></section>");
    html
}

fn td(cell: &Cell, is_number: bool) -> String {
    let class = match (is_number, cell.is_alarming) {
        (true, true) => " class=\"number alarm\"",
        (true, false) => " class=\"number\"",
        (false, true) => " class=\"alarm\"",
        (false, false) => "",
    };
    let text = escaped(&cell.text);
    let inner = match &cell.href {
        Some(href) => format!("<a href=\"{}\">{text}</a>", escaped(href)),
        None => text,
    };
    let bar = cell.bar.map_or(String::new(), |bar| {
        format!("<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{:.0}\" height=\"10\"/></svg>", bar * 100.0)
    });
    let number = cell.number.map_or(String::new(), |number| format!(" data-number=\"{number}\""));
    format!("<td{class}{number}>{bar}{inner}</td>")
}

/// The page's own address, sorted otherwise.
fn with_sort(frame: &Frame<'_>, sort: &str) -> String {
    let others = frame.query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("sort="));
    let mut pairs: Vec<&str> = others.collect();
    let sort = format!("sort={}", percent_encoded(sort));
    pairs.push(&sort);
    format!("{}?{}", frame.path, pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::super::view::{number, text};
    use super::*;

    #[test]
    fn whatever_is_shown_is_text() {
        let evil = "<script>alert('x')</script>\"&";
        let mut row = vec![Cell::text(evil).leading_to(format!("/session/{evil}")), Cell::share(0.5)];
        row.push(Cell::number(7));
        let table = Table {
            id: evil.to_owned(),
            title: evil.to_owned(),
            columns: vec![text("name"), number("share"), number("count")],
            rows: vec![row],
            empty: "none",
        };
        let view = View { title: evil.to_owned(), tables: vec![table], ..View::default() };
        let frame = Frame { path: "/sessions", query: evil, json: Some(evil), ..Frame::default() };
        let html = page(&view, &frame);
        assert!(!html.contains("<script>") && !html.contains("alert('"), "{html}");
        assert_eq!(html.matches("<script").count(), 1, "our own: {html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
    }

    #[test]
    fn a_heading_leads_to_the_page_sorted_by_it_and_then_the_other_way_round() {
        let table =
            Table { id: "t".to_owned(), columns: vec![text("name"), number("count")], ..Table::default() };
        let view = View { tables: vec![table], ..View::default() };
        let frame = Frame { path: "/sessions", query: "filter=a&sort=x", ..Frame::default() };
        let html = page(&view, &frame);
        assert!(html.contains("href=\"/sessions?filter=a&amp;sort=t.0\""), "{html}");
        assert!(html.contains("href=\"/sessions?filter=a&amp;sort=-t.1\""), "{html}");
        let sort = Sort::parse("-t.1");
        let html = page(&view, &Frame { sort: sort.as_ref(), ..frame });
        assert!(html.contains("aria-sort=\"descending\"") && html.contains("sort=t.1\""), "{html}");
    }

    #[test]
    fn addresses_keep_what_they_are_given() {
        assert_eq!(percent_encoded("0:5.1 a+b&c/é"), "0:5.1%20a%2Bb%26c%2F%C3%A9");
    }
}
