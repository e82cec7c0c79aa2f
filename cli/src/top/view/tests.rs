//! Screens as text. `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-cli top` writes them anew.

use std::path::PathBuf;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Position;
use serde_json::{Value, json};

use super::*;
use crate::top::as_text;
use crate::top::data::Snapshot;
use crate::top::source::Look;

/// A stack of two workers `second` seconds after its start, with everything that can be shown.
fn status(second: u64) -> Value {
    let worker = |number: u64, busy_permille: u64| {
        json!({
            "worker": number, "steps": 90_000 * second, "busy_steps": 40_000 * second,
            "pace": { "busy_us": 1000 * busy_permille * second }, "sleeps": 310 * second,
            "rx_packets": 250_000 * second, "tx_packets": 240_000 * second, "rx_vectors": 31_000 * second,
            "sessions": 610 + number, "connects": 12_000 * second + 300 * (second % 7) * (second % 7), "accepts": 40 * second,
            "ends": 510 * second, "bytes_in": 62_500_000 * second, "bytes_out": 1_250_000 * second * second,
            "tcp": [["retransmitted_segments", 3 * second]],
            "drops": [
                { "reason": "checksum", "count": 17, "help": "The checksum is not that of the packet." },
                { "reason": "handover-parked-full", "count": 2 * second, "help": "The waiting room was full." },
            ],
        })
    };
    let session = |slot: u64, state: &str, queued: u64| {
        json!({
            "session": format!("{}:{slot}.3", slot % 2), "app_worker": format!("echo/{}", slot % 2), "protocol": "tcp",
            "local": "10.9.0.2:7", "remote": format!("192.0.2.{slot}:4{slot:04}"), "state": state,
            "rx_bytes": 0, "tx_bytes": queued, "srtt_us": 150 * slot, "age_us": 1_000_000 * second + 7777 * slot,
        })
    };
    let mut slowest: Vec<Value> =
        (1..=30).map(|slot| session(slot, "open/open", slot * slot * 700)).collect();
    slowest[3]["fault"] = json!("data and no timer");
    json!({
        "version": "0.1.0", "at_us": 1_000_000 * second,
        "workers": [worker(0, 620), worker(1, 945)],
        "main": {
            "half_open_sessions": 24, "listeners": 3, "steps": 12_000 * second, "sleeps": 40 * second,
            "pace": { "busy_us": 150_000 * second },
        },
        "apps": [
            { "name": "echo", "app_workers": [
                { "unit": 0, "state": "attached", "half_opens": 24, "sessions": [610, 0], "listeners": ["tcp://0.0.0.0:7", "tcp://[::]:7"],
                  "outcomes": { "requested": 60 * second, "established": 50 * second, "refused": 7, "timed_out": 2 } },
                { "unit": 1, "state": "attached", "half_opens": 0, "sessions": [0, 611], "listeners": [],
                  "outcomes": { "requested": 0, "established": 0, "refused": 0, "timed_out": 0 } },
            ] },
            { "name": "sink", "detaching": true, "app_workers": [] },
        ],
        "sessions": { "total": 1221, "open": 1200, "peer_closed": 11, "half_closed": 0, "closing": 10, "ended": 0 },
        "time_wait": 48_211,
        "histograms": [
            { "name": "connect-latency", "worker": null, "unit": "us", "count": 9000, "max": 81_000,
              "p50": 210, "p90": 480, "p99": 1900, "p999": 12_800 },
            { "name": "rtt", "worker": null, "unit": "us", "count": 5, "max": 90, "p50": 64, "p99": 88 },
            { "name": "step", "worker": 0, "unit": "us", "count": 0, "p99": 0 },
        ],
        "slowest": slowest,
    })
}

fn look(status: &Value) -> Look {
    Look { snapshot: Ok(Snapshot::read(status)), filter_refused: None, session: None }
}

/// After forty looks.
fn model(view: View) -> Model {
    let mut model = Model::new(view, 1000, "");
    for second in 1..=40 {
        model.on_look(look(&status(second)), 0.0);
    }
    model
}

fn press(model: &mut Model, keys: &[KeyCode]) {
    for key in keys {
        model.on_key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
}

/// The screen with its last line, which `as_text` leaves out.
fn screen(model: &Model, width: u16, height: u16, now: f64) -> String {
    let mut terminal =
        ratatui::Terminal::new(ratatui::backend::TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| draw(frame, model, now)).expect("memory");
    let buffer = terminal.backend().buffer();
    let line = |row| (0..width).map(|x| buffer[Position::new(x, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn assert_snapshot(name: &str, screen: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/top/view/snapshots/{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, screen).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == screen, "{} is\n{stored}\nand the screen\n{screen}", path.display());
}

#[test]
fn overview_on_a_small_and_on_a_large_screen() {
    assert_snapshot("overview-80x24", &screen(&model(View::Overview), 80, 24, 0.0));
    assert_snapshot("overview-132x50", &screen(&model(View::Overview), 132, 50, 0.0));
}

#[test]
fn in_ascii_everything_stands_where_it_stood() {
    for (view, keys) in [
        (View::Overview, &[][..]),
        (View::Overview, &[KeyCode::Char('?')]),
        (View::Sessions, &[]),
        (View::Apps, &[KeyCode::Enter]),
    ] {
        let mut model = model(view);
        press(&mut model, keys);
        let drawn = screen(&model, 80, 24, 0.0);
        model.is_ascii = true;
        let ascii = screen(&model, 80, 24, 0.0);
        assert!(!drawn.is_ascii() && ascii.is_ascii(), "{ascii}");
        assert_eq!(drawn.matches('?').count(), ascii.matches('?').count(), "each has its like\n{ascii}");
        for (drawn, ascii) in drawn.lines().zip(ascii.lines()) {
            assert_eq!(drawn.chars().count(), ascii.chars().count());
            let mut pairs = drawn.chars().zip(ascii.chars());
            assert!(pairs.all(|(one, other)| one == other || !one.is_ascii()), "{drawn}\n{ascii}");
        }
    }
}

#[test]
fn scrolling_beyond_the_end_is_not_remembered() {
    let mut model = model(View::Sessions);
    press(&mut model, &[KeyCode::Enter]);
    let pairs = (0..60).map(|n| (format!("name{n:02}"), json!(n))).collect::<serde_json::Map<_, _>>();
    model.on_look(Look { session: Some(Ok(Value::Object(pairs))), ..look(&status(41)) }, 0.0);
    let first = screen(&model, 80, 24, 0.0);
    assert!(first.contains("name00") && !first.contains("name59"), "{first}");
    for _ in 0..20 {
        press(&mut model, &[KeyCode::PageDown]);
    }
    let last = screen(&model, 80, 24, 0.0);
    assert!(last.contains("name59"), "{last}");
    press(&mut model, &[KeyCode::Up]);
    assert!(!screen(&model, 80, 24, 0.0).contains("name59"), "one line up");
}

#[test]
fn lists_on_a_small_and_on_a_large_screen() {
    for (view, name) in [(View::Sessions, "sessions"), (View::Apps, "apps"), (View::Errors, "errors")] {
        assert_snapshot(&format!("{name}-80x24"), &screen(&model(view), 80, 24, 0.0));
        assert_snapshot(&format!("{name}-132x40"), &screen(&model(view), 132, 40, 0.0));
    }
}

#[test]
fn a_session_with_its_layers() {
    let mut model = model(View::Sessions);
    press(&mut model, &[KeyCode::Down, KeyCode::Enter]);
    let variables: serde_json::Map<String, Value> =
        (0..30).map(|index| (format!("variable_{index:02}"), json!(index * 1000))).collect();
    let told = |cwnd: u64| Look {
        session: Some(Ok(json!({
            "session": "1:29.3", "remote": "192.0.2.29:40029", "age_us": 41_000_000, "tx_bytes": 588_700,
            "stages": [], "transport": { "cwnd": cwnd, "state": "Established" }, "variables": variables,
        }))),
        ..look(&status(41))
    };
    model.on_look(told(14_600), 0.0);
    model.on_look(told(29_200), 0.0);
    assert_snapshot("detail-80x24", &screen(&model, 80, 24, 0.0));
    assert_snapshot("detail-132x40", &screen(&model, 132, 40, 0.0));
}

#[test]
fn help_stands_over_the_view_and_fits() {
    let mut model = model(View::Overview);
    press(&mut model, &[KeyCode::Char('?')]);
    assert_snapshot("help-80x24", &screen(&model, 80, 24, 0.0));
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let model = model(View::Overview);
    for (width, height) in [(79, 24), (80, 23), (20, 5), (1, 1)] {
        let text = screen(&model, width, height, 0.0);
        assert!(!text.contains("overview"), "{text}");
        assert!(width < 24 || text.contains("hoststack top wants 80x24"), "{text}");
    }
}

#[test]
fn the_last_line_says_what_is_wrong() {
    let mut model = model(View::Sessions);
    let last = |model: &Model, now| screen(model, 100, 24, now).lines().last().unwrap().to_owned();
    assert!(last(&model, 0.0).contains("q quit"));
    model.filter_refused = Some("`colour` does not belong there".to_owned());
    assert!(last(&model, 0.0).contains("the stack says: `colour` does not belong there"));
    model.on_look(Look { snapshot: Err("no stack answers at /x".to_owned()), ..look(&Value::Null) }, 10.0);
    let gone = last(&model, 22.0);
    assert!(gone.contains("away since 12.00 s, trying again: no stack answers at /x"), "{gone}");
    press(&mut model, &[KeyCode::Char('/'), KeyCode::Char('x')]);
    assert!(last(&model, 22.0).starts_with(" filter: x"));
    assert!(screen(&model, 80, 24, 0.0).contains("none that the filter lets through"));
}

#[test]
fn before_the_first_look_and_with_an_answer_of_nothing_there_are_dashes() {
    for model in [Model::new(View::Overview, 1000, ""), {
        let mut model = Model::new(View::Overview, 1000, "");
        model.on_look(look(&Value::Null), 0.0);
        model
    }] {
        let text = screen(&model, 80, 24, 0.0);
        assert!(text.contains("connects/s") && text.contains("p99.9            -"), "{text}");
    }
    for view in View::ALL {
        assert!(!as_text(&Model::new(view, 1000, ""), 80, 24).contains("quit"));
    }
}

#[test]
fn more_workers_than_lines_are_scrolled_through() {
    let many = |second: u64| {
        let workers: Vec<Value> =
            (0..64).map(|number| json!({ "worker": number, "steps": second * number })).collect();
        json!({ "at_us": second * 1_000_000, "workers": workers })
    };
    let mut model = Model::new(View::Overview, 1000, "");
    model.on_look(look(&many(1)), 0.0);
    model.on_look(look(&many(2)), 0.0);
    assert!(screen(&model, 80, 24, 0.0).contains("0-2 of 64"));
    press(&mut model, &[KeyCode::End]);
    let text = screen(&model, 80, 24, 0.0);
    assert!(
        text.contains("61-63 of 64") && text.lines().any(|line| line.trim_start().starts_with("63 ")),
        "{text}"
    );
    press(&mut model, &[KeyCode::Up]);
    assert!(screen(&model, 80, 24, 0.0).contains("60-62 of 64"), "one line up");
}

#[test]
fn no_screen_size_and_no_view_panics() {
    for view in View::ALL {
        let mut model = model(view);
        for (width, height) in [(80, 24), (81, 25), (100, 30), (120, 33), (200, 60), (500, 200)] {
            screen(&model, width, height, 0.0);
        }
        press(&mut model, &[KeyCode::Enter]);
        for (width, height) in [(80, 24), (93, 27), (300, 100)] {
            screen(&model, width, height, 0.0);
        }
    }
}
