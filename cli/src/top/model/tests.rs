//! Looks and keys, and what comes of them.

use super::*;

fn look(value: Value) -> Look {
    Look { snapshot: Ok(Snapshot::read(&value)), filter_refused: None, session: None }
}

fn away() -> Look {
    Look { snapshot: Err("no stack answers".to_owned()), filter_refused: None, session: None }
}

fn status(at_us: u64) -> Value {
    json!({
        "at_us": at_us,
        "workers": [{ "worker": 0, "steps": at_us, "drops": [{ "reason": "checksum", "count": 2, "help": "bad" }] }],
        "apps": [{ "name": "echo", "app_workers": [{ "unit": 0, "state": "attached", "half_opens": 1 }] }],
        "slowest": [
            { "session": "0:1.0", "remote": "10.0.0.1:5", "tx_bytes": 10, "srtt_us": 100 },
            { "session": "0:2.0", "remote": "10.0.0.2:5", "tx_bytes": 20, "srtt_us": 200 },
        ],
    })
}

fn model(view: View) -> Model {
    let mut model = Model::new(view, 1000, "");
    model.on_look(look(status(1_000_000)), 0.0);
    model
}

fn press(model: &mut Model, keys: &str) -> Effect {
    let mut effect = Effect::Draw;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            other => KeyCode::Char(other),
        };
        effect = model.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

#[test]
fn views_are_chosen_by_number_and_in_turn() {
    let mut model = model(View::Overview);
    assert_eq!(press(&mut model, "3"), Effect::Look);
    assert_eq!(model.view, View::Apps);
    press(&mut model, "\t\t");
    assert_eq!(model.view, View::Overview);
    model.on_key(KeyEvent::new(KeyCode::BackTab, KeyModifiers::SHIFT));
    assert_eq!(model.view, View::Errors);
    assert_eq!(press(&mut model, "q"), Effect::Quit);
    assert_eq!(model.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
}

#[test]
fn the_second_look_has_rates_and_a_restart_has_none() {
    let mut model = model(View::Overview);
    assert!(model.rates.is_none());
    model.on_look(look(status(3_000_000)), 2.0);
    assert_eq!(model.rates.as_ref().unwrap().workers[0].steps, Some(1e6));
    model.on_look(look(status(5)), 3.0);
    assert!(model.rates.is_none());
    assert_eq!(model.notice(4.0), Some("the stack was started anew"));
    assert_eq!(model.notice(60.0), None);
    assert_eq!(model.history.last(0, 9), [None, None], "TCP's counters are not told, then the hole");
    assert_eq!(model.history.last(6, 9), [Some(0.0), None], "drops are");
}

#[test]
fn a_stack_that_is_away_leaves_its_last_figures_until_it_answers_again() {
    let mut model = model(View::Overview);
    model.on_look(away(), 5.0);
    model.on_look(away(), 6.0);
    assert_eq!(model.link, Link::Gone { why: "no stack answers".to_owned(), since: 5.0 });
    assert!(model.snapshot.is_some());
    assert_eq!(model.history.last(0, 9).len(), 1, "one hole");
    model.on_look(look(status(2_000_000)), 7.0);
    assert_eq!((model.link.clone(), model.notice(7.0)), (Link::Up, Some("the stack answers again")));
}

#[test]
fn typing_a_filter_narrows_as_it_is_typed_and_escape_undoes_it() {
    let mut model = model(View::Sessions);
    assert_eq!(model.session_rows()[0].handle, "0:2.0", "the slowest first");
    press(&mut model, "/0.1:x\u{8}");
    assert_eq!(model.session_rows().len(), 1);
    assert_eq!(press(&mut model, "\n"), Effect::Look);
    assert_eq!((model.over.clone(), model.sessions.filter.as_str()), (Over::Nothing, "0.1:"));
    press(&mut model, "/zzz\u{1b}");
    assert_eq!(model.sessions.filter, "0.1:");
    press(&mut model, "\u{1b}");
    assert_eq!(model.sessions.filter, "");
}

#[test]
fn control_and_a_letter_is_no_letter() {
    let mut model = model(View::Sessions);
    let control = |model: &mut Model, letter: char| {
        model.on_key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL))
    };
    assert_eq!(control(&mut model, 'q'), Effect::Draw, "only q ends it");
    control(&mut model, 'p');
    assert!(!model.is_paused);
    press(&mut model, "/one two  three ");
    control(&mut model, 'w');
    assert_eq!(model.sessions.filter, "one two  ");
    control(&mut model, 'w');
    control(&mut model, 'h');
    control(&mut model, 'x');
    model.on_key(KeyEvent::new(KeyCode::Char('b'), KeyModifiers::ALT));
    assert_eq!(model.sessions.filter, "one");
    control(&mut model, 'u');
    assert_eq!((model.sessions.filter.as_str(), &model.over), ("", &Over::Filter(String::new())));
    assert_eq!((control(&mut model, 'z'), control(&mut model, 'l')), (Effect::Stop, Effect::Redraw));
}

#[test]
fn a_filter_of_the_stacks_words_is_given_to_the_stack_once_it_is_complete() {
    let mut model = model(View::Sessions);
    press(&mut model, "/queued 15");
    assert_eq!(model.wants().sessions, Some(None));
    press(&mut model, "\n");
    assert_eq!(model.wants().sessions, Some(Some("queued 15".to_owned())));
    model.on_look(look(status(2_000_000)), 1.0);
    assert_eq!(model.session_rows().len(), 2, "the stack has filtered them");
    let refused = Look { filter_refused: Some("no".to_owned()), ..look(status(3_000_000)) };
    model.on_look(refused, 2.0);
    assert!(model.session_rows().is_empty(), "then the words are looked for here");
    assert_eq!(model.filter_refused.as_deref(), Some("no"));
    press(&mut model, "1");
    assert_eq!(model.wants().sessions, None);
}

#[test]
fn a_session_is_drilled_into_and_what_changed_is_marked() {
    let mut model = model(View::Sessions);
    assert_eq!(press(&mut model, "↓\n"), Effect::Look);
    assert_eq!(model.wants().session.as_deref(), Some("0:1.0"));
    let told = |cwnd: u64| Look {
        session: Some(Ok(json!({ "session": "0:1.0", "tcp": { "cwnd": cwnd, "mss": 1460 } }))),
        ..look(status(2_000_000))
    };
    model.on_look(told(5), 1.0);
    model.on_look(told(6), 2.0);
    let detail = model.detail.as_ref().unwrap();
    let marked = |name: &str| {
        let index = detail.pairs.iter().position(|pair| pair.name == name).unwrap();
        detail.changed[index]
    };
    assert!(marked("cwnd") && !marked("mss") && !marked("session"));
    let ended = json!({ "at_us": 4_000_000, "workers": [{ "steps": 9_000_000 }] });
    model.on_look(Look { session: Some(Err("no such session".to_owned())), ..look(ended) }, 3.0);
    let detail = model.detail.as_ref().unwrap();
    assert!(detail.note.as_ref().unwrap().contains("no such session"));
    assert_eq!(detail.pairs.iter().filter(|pair| pair.name == "cwnd").count(), 1, "what it was last");
    press(&mut model, "\u{1b}");
    assert!(model.detail.is_none() && model.view == View::Sessions);
}

#[test]
fn a_stack_that_shows_no_single_session_is_taken_from_the_list() {
    let mut model = model(View::Sessions);
    press(&mut model, "\n");
    model.on_look(Look { session: Some(Err("unknown".to_owned())), ..look(status(2_000_000)) }, 1.0);
    let detail = model.detail.as_ref().unwrap();
    assert!(detail.note.as_ref().unwrap().starts_with("as far as the list goes"));
    assert!(detail.pairs.iter().any(|pair| pair.name == "remote" && pair.value == "10.0.0.2:5"));
}

#[test]
fn apps_and_errors_are_drilled_into_as_well() {
    let mut apps = model(View::Apps);
    press(&mut apps, "\n");
    let value = |model: &Model, name: &str| {
        let pairs = &model.detail.as_ref().unwrap().pairs;
        pairs.iter().find(|pair| pair.name == name).map(|pair| pair.value.clone())
    };
    assert_eq!(value(&apps, "app").as_deref(), Some("echo"));
    assert_eq!(value(&apps, "half_opens").as_deref(), Some("1"));
    let mut errors = model(View::Errors);
    press(&mut errors, "\n");
    assert_eq!(value(&errors, "meaning").as_deref(), Some("bad"));
    assert_eq!(value(&errors, "worker 0").as_deref(), Some("2"));
}

#[test]
fn pause_interval_and_help() {
    let mut model = model(View::Overview);
    assert_eq!(press(&mut model, "p"), Effect::Draw);
    assert!(model.is_paused);
    assert_eq!(press(&mut model, "p"), Effect::Look);
    press(&mut model, "++");
    assert_eq!(model.interval_ms, 5000);
    press(&mut model, "----------");
    assert_eq!(model.interval_ms, 100);
    press(&mut model, "?");
    assert_eq!(model.over, Over::Help);
    assert_eq!(press(&mut model, "q"), Effect::Draw, "any key closes the help, and does nothing else");
    assert_eq!(model.over, Over::Nothing);
}

#[test]
fn sorting_by_keys() {
    let mut model = model(View::Sessions);
    press(&mut model, "r");
    assert_eq!(model.session_rows()[0].handle, "0:1.0");
    press(&mut model, "s<<");
    assert!(!model.sessions.reversed);
    assert_eq!(model.sessions.sort, BY_RTT - 1);
    press(&mut model, "/");
    assert!(matches!(model.over, Over::Filter(_)));
    let mut overview = super::tests::model(View::Overview);
    press(&mut overview, "sr");
    press(&mut overview, "/");
    assert_eq!(overview.view, View::Sessions, "what is filtered are sessions");
}

#[test]
fn an_interval_has_bounds() {
    use std::time::Duration;
    assert_eq!(interval_ms(Duration::from_millis(100)), Ok(100));
    for bad in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(61)] {
        assert!(interval_ms(bad).is_err());
    }
}
