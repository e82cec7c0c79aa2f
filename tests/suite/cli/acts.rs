//! Commands that act: connects, listeners, applications, the log and options of a running stack.

use hoststack_tests::process::Signal;
use hoststack_tests::wait;
use serde_json::Value;

use super::run::{Desk, ends_clean};

/// Two hosts in one stack, an echo server on the other one, a black hole behind it, and few connects at a time.
const HOSTS: &str = r#"
[limits]
pending_connects = 100

[[device]]
name = "wire:cable"
addresses = ["10.0.0.1/24"]
routes = [{ to = "203.0.113.0/24", via = "10.0.0.2" }]

[[device]]
name = "wire:cable"
domain = 1
addresses = ["10.0.0.2/24"]

[[app]]
name = "echo"
kind = "echo"
domain = 1
listen = ["tcp://10.0.0.2:7"]
"#;

/// Why a command was not done.
#[track_caller]
fn refused(desk: &Desk, command: &str) -> String {
    let done = desk.ctl(&[], command).failure();
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    done.stderr
}

/// Sessions, and TIME-WAIT.
fn held(desk: &Desk) -> (u64, u64) {
    let leaks = desk.ask("show leaks");
    let sessions = desk.ask("show session")["summary"]["total"].as_u64().expect("a number");
    (sessions, leaks["time_wait"].as_u64().expect("a number"))
}

#[test]
fn connects_are_taken_up_to_the_limit_and_counted() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    let taken = desk.ask("connect tcp://203.0.113.1:80 count 60");
    assert_eq!(
        (&taken["taken"], &taken["app"], &taken["refused"]),
        (&60.into(), &"console".into(), &Value::Null)
    );
    let first = taken["first"].as_str().expect("an id");
    assert_eq!(desk.ask(&format!("show half-open {first}"))["half_opens"][0]["connect"], first);
    let done = desk.ctl(&[], "connect tcp://203.0.113.1:80 count 60").failure();
    assert!(done.stdout.starts_with("40 of 60 connects"), "{}", done.transcript());
    let workers = desk.ask("show app-worker console");
    let outcomes = &workers["app_workers"][0]["app_worker"]["outcomes"];
    assert_eq!((&outcomes["requested"], &outcomes["alive"]), (&100.into(), &100.into()), "{workers}");
    let text = desk.show("show app-worker");
    assert!(text.lines().any(|line| line.split_whitespace().take(2).eq(["console/0", "attached"])), "{text}");
    assert!(
        done.stderr.contains("20 of 60 connects were refused: too many connects are pending"),
        "{}",
        done.transcript()
    );
    let none = refused(&desk, "connect tcp://203.0.113.1:80");
    assert!(none.contains("1 of 1 connects were refused"), "{none}");
    assert_eq!(desk.ask("show half-open")["total"], 100);
    // Those that were cancelled make room again.
    assert_eq!(desk.ask("half-open cancel all")["cancelled"], 100);
    wait::until("room", wait::READY, || {
        (desk
            .ctl(&[], "connect tcp://10.0.0.2:7 domain 0 local 10.0.0.1 worker 0 timeout 5s")
            .status
            .success())
        .then_some(())
    });
    wait::until("both ends", wait::READY, || (held(&desk).0 == 2).then_some(()));
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn connects_that_cannot_be_say_why() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    for (command, why) in [
        ("connect tcp://203.0.113.1:0", "its port is 0"),
        ("connect tcp://203.0.113.1:1 count 0", "`count` is 0"),
        ("connect tcp://203.0.113.1:1 app nobody", "there is `echo`"),
        ("connect tcp://203.0.113.1:1 domain 9", "no interface is in that routing domain"),
        ("connect tcp://203.0.113.1:1 worker 9", "no worker of that number"),
        ("connect tcp://203.0.113.1:1 timeout 0s", "timeout is zero"),
        ("connect tcp://203.0.113.1:1 local ::1", "different families"),
        ("connect tcp://203.0.113.1:1 alpn h2", "put `tls+` before the URI"),
        (
            "connect tls+local://x",
            "a server that its certificate can name, and this has no address: give `server-name WORD`",
        ),
    ] {
        let said = refused(&desk, command);
        assert!(said.contains(why), "{command}: {said}");
    }
    let bad = desk.ctl(&[], "connect 203.0.113.1:80").failure();
    assert!(bad.status.code() == Some(2) && bad.stderr.contains("tcp://10.9.0.1:80"), "{}", bad.transcript());
    // An app's own connects, and an app without app workers.
    assert_eq!(desk.ask("connect tcp://203.0.113.1:1 app echo")["app"], "echo");
    let _ = desk.ask("app detach echo app-worker 0");
    let said = refused(&desk, "connect tcp://203.0.113.1:1 app echo");
    assert!(said.contains("no app worker that is attached"), "{said}");
    // The console's own is attached again.
    assert_eq!(desk.ask("connect tcp://203.0.113.1:1")["taken"], 1);
    let _ = desk.ask("app detach console app-worker 0");
    assert_eq!(desk.ask("connect tcp://203.0.113.1:1")["taken"], 1);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn an_application_is_attached_and_given_endpoints_and_they_are_taken_away() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    let attached = desk.ask("app attach discard sink app-workers 2");
    assert_eq!((&attached["kind"], &attached["app_workers"]), (&"discard".into(), &2.into()));
    assert!(refused(&desk, "app attach echo sink").contains("an application of that name is attached"));
    assert!(
        desk.show("listen tcp://10.0.0.2:9 app sink domain 1").contains("sink/0 listens on tcp://10.0.0.2:9")
    );
    for (command, why) in [
        ("listen tcp://10.0.0.2:9 app sink domain 1", "already listens"),
        ("listen tcp://10.0.0.2:9 app sink", "not one of the domain's"),
        ("listen tcp://10.0.0.2:9 app nobody", "`echo`, `sink`"),
        ("listen tls+tcp://10.0.0.2:10 app sink domain 1", "needs a certificate"),
        ("unlisten tcp://10.0.0.2:10", "nobody listens on tcp://10.0.0.2:10"),
        ("unlisten tcp://10.0.0.2:9 domain 0", "nobody listens"),
    ] {
        let said = refused(&desk, command);
        assert!(said.contains(why), "{command}: {said}");
    }
    // The port that the host chose is told.
    let host = desk.ask("listen kernel+tcp://127.0.0.1:0 app sink");
    let address = host["address"].as_str().expect("an address").to_owned();
    assert!(address.starts_with("kernel+tcp://127.0.0.1:") && !address.ends_with(":0"), "{address}");
    assert_eq!(desk.ask(&format!("connect {address} app sink"))["taken"], 1);
    let _ = desk.ask("connect tcp://10.0.0.2:9");
    wait::until("four ends", wait::READY, || (held(&desk).0 == 4).then_some(()));
    assert_eq!(desk.ask("unlisten tcp://10.0.0.2:9")["is_up"], false);
    assert_eq!(desk.ask(&format!("unlisten {address}"))["is_up"], false);
    assert_eq!(desk.ask("show listener")["total"], 1);
    // Two domains with the same endpoint.
    for domain in [0, 1] {
        let _ = desk.ask(&format!("listen tcp://0.0.0.0:9 app sink domain {domain}"));
    }
    assert!(refused(&desk, "unlisten tcp://0.0.0.0:9").contains("say which with `domain DOMAIN`"));
    let _ = desk.ask("unlisten tcp://0.0.0.0:9 domain 1");
    let left = desk.ask("show listener");
    let left =
        left["listeners"].as_array().expect("a list").iter().find(|it| it["address"] == "tcp://0.0.0.0:9");
    assert_eq!(left.expect("the other one is there")["domain"], 0);
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn sessions_are_found_and_reset_by_their_tcp_state() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    let _ = desk.ask("connect tcp://10.0.0.2:7 count 2");
    let _ = desk.ask("connect tcp://203.0.113.1:80");
    let count = |state: &str| desk.ask(&format!("show session tcp-state {state} count"))["matched"].clone();
    wait::until("both ends of both", wait::READY, || (count("established") == 4).then_some(()));
    let half_opens = desk.ask("show half-open tcp-state SYN-SENT");
    assert_eq!(half_opens["half_opens"].as_array().map(Vec::len), Some(1), "{half_opens}");
    assert_eq!((count("CLOSE-WAIT"), count("Fin-Wait-2")), (0.into(), 0.into()));
    let rows = desk.show("show session app console tcp-state ESTABLISHED verbose 2");
    assert_eq!(rows.matches("state=ESTABLISHED").count(), 2, "{rows}");
    assert_eq!(desk.ask("session reset app console tcp-state close-wait")["sessions"], 0);
    assert_eq!(desk.ask("session reset app console tcp-state established")["sessions"], 2);
    wait::until("the end of all", wait::READY, || (held(&desk).0 == 0).then_some(()));
    let wrong = desk.ctl(&[], "show session tcp-state TIME-WAIT").failure();
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.transcript());
    assert!(wrong.stderr.contains("`show session` counts those in TIME-WAIT"), "{}", wrong.transcript());
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn time_wait_lasts_as_long_as_the_option_says() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    let one = || {
        let _ = desk.ask("connect tcp://10.0.0.2:7");
        wait::until("both ends", wait::READY, || (held(&desk).0 == 2).then_some(()));
        let _ = desk.ask("session close app console");
    };
    let set = desk.ask("set option time-wait 50ms");
    let option = &set["options"][0];
    assert_eq!((&option["value"], &option["was"]), (&"50ms".into(), &"60s".into()));
    one();
    wait::until("TIME-WAIT is over", wait::READY, || (held(&desk) == (0, 0)).then_some(()));
    let _ = desk.ask("set option time-wait 10m");
    one();
    wait::until("TIME-WAIT", wait::READY, || (held(&desk) == (0, 1)).then_some(()));
    assert!(desk.show("show option").contains("*  time-wait"));
    assert!(refused(&desk, "set option time-wait 60").contains("wants 1ms to 600s"));
    let bad = desk.ctl(&[], "set option time-wiat 1s").failure();
    assert_eq!(bad.status.code(), Some(2), "{}", bad.transcript());
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn the_log_and_the_sessions_lines_are_switched_on_while_it_runs() {
    let desk = Desk::new();
    let stack = desk.start_with(HOSTS);
    let one = |port: u16| {
        let _ = desk.ask(&format!("listen tcp://10.0.0.2:{port} app echo domain 1"));
        let _ = desk.ask(&format!("connect tcp://10.0.0.2:{port}"));
        wait::until("both ends", wait::READY, || (held(&desk).0 == 2).then_some(()));
        let _ = desk.ask("session close app console");
        wait::until("the end", wait::READY, || (held(&desk).0 == 0).then_some(()));
    };
    let said = |text: &str| wait::until(text, wait::READY, || stack.stderr().contains(text).then_some(()));
    one(1001);
    let _ = desk.ask("set option session-log on");
    one(1002);
    said("10.0.0.2:1002");
    let _ = desk.show("app attach echo quiet; app detach quiet");
    assert_eq!(desk.show("show log"), "logged is warn\n");
    assert_eq!(desk.show("set log info"), "logged is info\n");
    let bad = refused(&desk, "set log infro");
    assert!(bad.contains("\"infro\" is no level"), "{bad}");
    assert_eq!(desk.ask("show log")["filter"], "info");
    let _ = desk.show("app attach echo loud; app detach loud");
    said("app=loud");
    let log = stack.stderr();
    assert!(!log.contains("10.0.0.2:1001") && !log.contains("app=quiet"), "{log}");
    let _ = desk.ask("set option session-log off");
    let _ = ends_clean(stack, Signal::TERM, &desk);
}

#[test]
fn who_may_only_read_is_told_so() {
    let desk = Desk::new();
    let reader = desk.directory().join("read.sock");
    let file = desk.directory().join("two.toml");
    let socket = |path: &std::path::Path, level: &str| {
        format!("[[cli]]\nsocket = \"{}\"\nlevel = \"{level}\"\n", path.display())
    };
    let text = format!("{HOSTS}{}{}", socket(&desk.socket(), "operator"), socket(&reader, "user"));
    std::fs::write(&file, text).unwrap();
    let path = super::run::text(&file);
    let mut stack = crate::start(&["run", "-c", path]);
    stack.wait_for_output("ready:", wait::READY);
    for command in [
        "connect tcp://10.0.0.2:7",
        "listen tcp://10.0.0.2:8 app echo",
        "unlisten tcp://10.0.0.2:7",
        "app attach echo more",
        "set log debug",
        "set option time-wait 1s",
    ] {
        let mut words = vec!["ctl", "--socket", super::run::text(&reader)];
        words.extend(command.split(' '));
        let done = crate::run(&words).failure();
        assert!(done.stderr.contains("have the level user"), "{}", done.transcript());
    }
    for command in [vec!["show", "option"], vec!["show", "log"]] {
        let mut words = vec!["ctl", "--socket", super::run::text(&reader)];
        words.extend(command);
        let _ = crate::run(&words).success();
    }
    assert_eq!(desk.ask("show app")["apps"].as_array().map(Vec::len), Some(1));
    let _ = ends_clean(stack, Signal::TERM, &desk);
}
