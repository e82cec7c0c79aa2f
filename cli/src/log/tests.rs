//! Filters, their change while the log is in use, and what becomes of lines.

use super::*;

fn setup(filter: &str, file: &Path) -> LogSetup {
    LogSetup {
        filter: filter.to_owned(),
        format: LogFormat::Json,
        file: Some(file.to_owned()),
        sessions: false,
    }
}

/// What `what` logs under `setup`, a line each, as target and message.
fn logged(setup: &LogSetup, what: impl FnOnce(&LogControl)) -> Vec<(String, String)> {
    let (layers, log) = build(setup).unwrap();
    let subscriber = tracing_subscriber::registry().with(layers.filter).with(layers.lines);
    let guard = subscriber.set_default();
    what(&log.control());
    drop(guard);
    drop(log);
    let text = std::fs::read_to_string(setup.file.as_ref().unwrap()).unwrap();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        (field("target"), field("message"))
    };
    text.lines().map(line).collect()
}

fn say_all() {
    tracing::info!("told");
    tracing::debug!("more");
    tracing::info!(target: "hoststack::session", session = 1, "ended");
}

#[test]
fn filters_are_read_and_bad_ones_say_what_to_type() {
    for good in [
        "info",
        "WARN",
        "off",
        "info,hoststack_tcp=debug",
        "hoststack::session=info",
        "hoststack",
        "a::b",
        "mio=trace",
    ] {
        assert!(filter(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("debgu", "\"debgu\" is no level"),
        ("info,debgu", "\"debgu\" is no level"),
        ("info,,debug", "beside a comma"),
        ("hoststack_tcp=loud", "error parsing level"),
    ] {
        let error = filter(bad).unwrap_err();
        assert!(error.contains(why) && error.contains("expected a level (off, error"), "{bad}: {error}");
    }
}

#[test]
fn the_filter_is_changed_while_the_log_runs_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup("warn", &dir.path().join("log"));
    let lines = logged(&setup, |control| {
        say_all();
        assert_eq!(control.filter(), "warn");
        control.set_filter("debug").unwrap();
        say_all();
        assert!(control.set_filter("loud").unwrap_err().contains("\"loud\" is no level"));
        assert_eq!(control.filter(), "debug");
        tracing::debug!("still");
        control.set_filter("off").unwrap();
        say_all();
    });
    let messages: Vec<&str> = lines.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(messages, ["told", "more", "ended", "still"]);
}

#[test]
fn sessions_are_let_through_whatever_the_filter_says_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let ends = |name: &str, filter: &str| {
        let setup = LogSetup { sessions: true, ..setup(filter, &dir.path().join(name)) };
        let lines = logged(&setup, |control| {
            say_all();
            control.set_filter("error").unwrap();
            say_all();
        });
        lines.iter().filter(|(target, _)| target == SESSIONS).count()
    };
    assert_eq!((ends("one", "off"), ends("two", "off,hoststack::session=off")), (2, 1));
}

#[test]
fn lines_are_added_to_a_file_and_one_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    for count in 1..3 {
        assert_eq!(logged(&setup("info", &file), |_| tracing::info!("told")).len(), count);
    }
    let error = build(&setup("info", &dir.path().join("no/such/dir"))).err().unwrap();
    assert!(format!("{error:?}").contains("no/such/dir"), "{error:?}");
}

/// A sink that is full for a while.
struct Full(Arc<Mutex<(u32, Vec<u8>)>>);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if state.0 > 0 {
            state.0 -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_are_lost_are_counted_and_said() {
    let state = Arc::new(Mutex::new((2, Vec::new())));
    let (lines, waiting) = bounded(3);
    let lost = Arc::new(AtomicU64::new(0));
    let to = Lines { lines: lines.clone(), lost: Arc::clone(&lost) };
    // Nobody writes yet: three wait, two find no room.
    for line in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
        to.make_writer().write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(lost.load(Ordering::Relaxed), 2);
    drop((to, lines));
    // Two more find a full disk.
    let sink = Box::new(Full(Arc::clone(&state)));
    Writer { waiting, sink, file: None, lost, format: LogFormat::Human }.run();
    let text = String::from_utf8(state.lock().unwrap().1.clone()).unwrap();
    let note = text.strip_prefix("3\n").unwrap();
    let told =
        "Z  WARN hoststack::log: lines of the log were lost: they could not be written in time lost=4\n";
    assert!(note.ends_with(told) && note.as_bytes()[4] == b'-', "with the time as all lines: {note}");
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (layers, log) = build(&setup("info", &at("log"))).unwrap();
    let subscriber = tracing_subscriber::registry().with(layers.filter).with(layers.lines);
    let guard = subscriber.set_default();
    tracing::info!("first");
    std::fs::rename(at("log"), at("log.1")).unwrap();
    tracing::info!("second");
    log.reopen();
    tracing::info!("third");
    // Written when it is answered.
    let flush = || {
        let (done, wait) = bounded(1);
        log.lines.send(Line::Flush(done)).unwrap();
        wait.recv().unwrap();
    };
    flush();
    std::fs::rename(at("log"), at("log.2")).unwrap();
    std::fs::create_dir(at("log")).unwrap();
    log.reopen();
    tracing::info!("fourth");
    drop(guard);
    drop(log);
    let messages = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(at(name)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let whole =
            |line: &serde_json::Value| line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z'));
        lines
            .inspect(|line| assert!(whole(line), "{line}"))
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(messages("log.1"), ["first", "second"]);
    assert_eq!(messages("log.2"), ["third", "the log goes on in its old file", "fourth"]);
}

#[test]
fn the_lines_of_sessions_ends_are_switched_on_and_off_and_a_new_filter_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup("warn", &dir.path().join("log"));
    let lines = logged(&setup, |control| {
        say_all();
        control.set_sessions(true).unwrap();
        say_all();
        control.set_filter("error").unwrap();
        say_all();
        control.set_sessions(false).unwrap();
        say_all();
    });
    let ended = ("hoststack::session".to_owned(), "ended".to_owned());
    assert_eq!(lines, [ended.clone(), ended]);
}
