use std::time::Duration;

use hoststack::app::WorkerId;
use hoststack::inspect::{AppName, Filter, SessionState, TcpState};

use super::*;
use crate::ctl::commands::filter::filter;
use crate::ctl::line::statements;
use crate::ctl::pattern;
use crate::ctl::pattern::Part;

fn read(text: &str) -> Result<Matched, GrammarError> {
    let mut statements = statements(text).expect("a line");
    assert!(statements.len() < 2, "{text}");
    parse(&statements.pop().unwrap_or_default().words)
}

#[track_caller]
fn means(text: &str) -> Matched {
    read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

#[test]
fn commands_are_understood_with_their_arguments() {
    let session = means(" show  session limit 7 verbose ");
    assert_eq!(pattern::key(session.spec.pattern), "show session");
    assert_eq!((session.has("verbose"), session.count("limit")), (true, Some(7)));
    assert!(!means("show session").has("verbose"));
    let detach = means("app detach echo app-worker 3 linger 2s");
    assert_eq!((detach.text("NAME"), detach.number("app-worker")), (Some("echo"), Some(3)));
    assert_eq!(detach.span("linger"), Some(Duration::from_secs(2)));
    assert!(means("app detach echo reset").has("reset"));
    assert_eq!(means("show app").text("NAME"), None);
    assert_eq!(means("show app echo").text("NAME"), Some("echo"));
    assert_eq!(means("help show session").text("COMMAND"), Some("show session"));
    // With two dashes, as a shell's user types it.
    assert!(means("show session --verbose").has("verbose"));
}

#[test]
fn a_beginning_that_fits_one_word_only_stands_for_it() {
    assert_eq!(means("sh le").spec.pattern, "show leaks");
    assert!(means("sh se v").has("verbose"));
    assert_eq!(means("a d echo app 1").number("app-worker"), Some(1));
}

#[test]
fn a_quoted_word_is_an_argument_and_no_word_of_the_grammar() {
    assert_eq!(means("app detach \"reset\"").text("NAME"), Some("reset"));
    assert!(!means("app detach \"reset\"").has("reset"));
    assert_eq!(means("app detach 'two words'").text("NAME"), Some("two words"));
    assert!(error("\"show\" app").contains("unknown command"));
}

#[test]
fn a_command_cut_short_says_what_could_follow() {
    assert_eq!(read("").unwrap_err(), GrammarError::Empty);
    let text = error("show");
    for word in ["`session`", "`leaks`", "`half-open`"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(
        error("app detach"),
        "`app detach` wants more: `app detach NAME [app-worker N] [now | reset | linger SPAN]`"
    );
    let text = error("show l");
    assert!(text.contains("`show listener [limit N]`") && text.contains("`show leaks`"), "{text}");
}

#[test]
fn a_mistyped_command_brings_its_neighbours() {
    assert!(error("show sesion").contains("did you mean `show session [HANDLE]"));
    assert!(error("shwo leaks").contains("`show leaks`"));
    assert!(error("sessions").contains("`show session [HANDLE]"));
    assert!(error("halp").contains("`help [COMMAND...]`"));
    // Of few words each is told, rather than a command that begins otherwise.
    assert_eq!(error("clear everything"), "`clear` wants more: `errors` or `counters`");
    assert_eq!(error("xyzzy quux"), "unknown command `xyzzy quux`: `help` lists what there is");
}

#[test]
fn a_mistyped_option_or_argument_is_named() {
    let told = error("show session verbsoe");
    let expected = "`verbsoe` does not belong there, did you mean `verbose`? `show session [HANDLE] [FILTER]";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(error("show errors now"), "`now` does not belong there: `show errors [nonzero]`");
    assert!(error("show session 0-77").starts_with("`0-77` is no HANDLE like `0:17.1`: `show session "));
    assert!(error("show half-open 0:77.1").starts_with("`0:77.1` is no CONNECT like `0#12`: `"));
    assert!(error("show session 0:1.1 0:2.2").starts_with("`0:2.2` does not belong there: `"));
    assert_eq!(
        error("show session limit"),
        "`limit` is missing: it wants to be a number up to 1000000 (like `10`)"
    );
    assert_eq!(
        error("show session limit x"),
        "`limit` wants to be a number up to 1000000 (like `10`), found `x`"
    );
    assert!(error("show session limit 1000001").ends_with("found `1000001`"));
    assert_eq!(error("show session limit 1 limit 2"), "`limit` is given twice: once is enough");
    assert_eq!(error("show session verbose v"), "`verbose` is given twice: once is enough");
    assert!(error("app detach echo app-worker -1").contains("`app-worker` wants to be a number"));
    assert_eq!(error("app detach echo now reset"), "`reset` is given twice: once is enough");
}

#[test]
fn every_pattern_is_sound_and_understood_when_it_is_filled() {
    for spec in commands() {
        let mut names = Vec::new();
        let mut typed: Vec<String> = Vec::new();
        let mut full = Vec::new();
        for part in pattern::parts(spec.pattern) {
            let mut argument = |argument: &Argument, name: &'static str| {
                assert!(!names.contains(&name), "{}: {name} twice", spec.pattern);
                names.push(name);
                match argument.kind() {
                    Some(kind) => kind.example.to_owned(),
                    None => {
                        assert!(
                            !argument.name.starts_with(|c: char| c.is_ascii_uppercase()),
                            "{} is no kind",
                            argument.name
                        );
                        argument.candidates().0[0].to_owned()
                    }
                }
            };
            match part {
                Part::Words(words) => {
                    typed.push(words[0].to_owned());
                    full.push(words[0].to_owned());
                }
                Part::Argument(one) => {
                    let example = argument(&one, one.name);
                    typed.push(example.clone());
                    full.push(example);
                }
                Part::Optional(all) => {
                    full.extend(all[0].word.map(str::to_owned));
                    for (index, one) in all.iter().enumerate() {
                        let Some(taken) = &one.argument else { continue };
                        let example = argument(taken, one.word.unwrap_or(taken.name));
                        if index == 0 {
                            full.push(example);
                        }
                    }
                }
            }
        }
        for line in [typed.join(" "), full.join(" ")] {
            assert_eq!(means(&line).spec.pattern, spec.pattern, "{line}");
        }
    }
}

#[test]
fn lines_that_make_no_sense_end_in_an_error_and_nothing_worse() {
    let long = "show ".repeat(800);
    for text in
        [long.as_str(), "- -- --- -1 --", "help help help", "watch watch watch", "ü ö ä", "show\tapp x y z"]
    {
        let _ = read(text);
        let words = statements(text).expect("a line").pop().unwrap_or_default().words;
        let _ = next(&words);
    }
}

#[test]
fn a_group_of_options_is_read_in_any_order_and_each_condition_has_its_value() {
    static LIST: Spec = Spec { pattern: "list [FILTER] [limit N]", ..Spec::BASE };
    let words = |text: &str| statements(text).expect("a line").remove(0).words;
    let line = "list queued 64k remote 10.0.0.0/8 limit 5 app echo port 80 older 10s stuck local ::1 worker 1 state open tcp-state close-wait";
    let walked = walk(&LIST, &words(line));
    assert!(matches!(walked.end, End::Done(_)));
    let expected = Filter {
        worker: Some(WorkerId(1)),
        app: Some(AppName::from("echo")),
        state: Some(SessionState::Open),
        tcp_state: Some(TcpState::CloseWait),
        local: "::1/128".parse().ok(),
        remote: "10.0.0.0/8".parse().ok(),
        port: Some(80),
        older_us: Some(10_000_000),
        queued: Some(65536),
        stuck: true,
        ..Filter::default()
    };
    assert_eq!(filter(&walked.matched), expected);
    assert_eq!(walked.matched.count("limit"), Some(5));
    let fails = |text: &str| match walk(&LIST, &words(text)).end {
        End::Fails(error) => error.to_string(),
        End::Done(_) | End::Wants(..) => panic!("{text} is understood"),
    };
    assert!(fails("list remote 10.0.0.0/33").contains("found `10.0.0.0/33`"));
    assert!(fails("list transport udp").contains("tcp, kernel+tcp, kernel+unix or local"));
    assert!(fails("list tcp-state TIME-WAIT").contains("`show session` counts those in TIME-WAIT"));
    assert!(fails("list port 1 port 2").contains("given twice"));
    assert!(fails("list remoet ::1").contains("did you mean `remote`"));
    // A beginning that fits two is told, not guessed.
    assert_eq!(fails("list lo 1"), "`list lo` wants more: `local` or `local-port`");
}
