//! The runner must find every sort of difference: a script that cannot fail proves nothing.

use super::{Script, run};

/// What is wrong with a script: line and words, without the log.
fn verdict(text: &str) -> Result<(), (usize, String)> {
    Script::parse(text)
        .and_then(|script| run(&script))
        .map(drop)
        .map_err(|failure| (failure.line, failure.words))
}

fn assert_fails(text: &str, line: usize, part: &str) {
    let (at, words) = verdict(text).expect_err(text);
    assert!(at == line && words.contains(part), "{at}: {words}\nin\n{text}");
}

const GOOD: &str =
    "setup passive <mss 1000>\nwrite 500\n> P. 1:501(500) ack 1 win 65535\n+40ms < . 1:1(0) ack 501";

#[test]
fn what_comes_as_written_passes() {
    assert_eq!(verdict(GOOD), Ok(()));
    assert_eq!(verdict(&GOOD.replace("> P. 1:501(500) ack 1 win 65535", "> 1:501(500)")), Ok(()));
    assert_eq!(verdict(&GOOD.replace("passive", "active")), Ok(()));
    assert_eq!(verdict(&format!("ip 6\n{GOOD}")), Ok(()));
    assert_eq!(
        verdict(&format!("peer_isn 4294967290\n{GOOD}\n< P. 1:101(100) ack 501\n> . ack 101\nread 100")),
        Ok(())
    );
}

#[test]
fn each_field_that_is_written_is_compared() {
    for (was, wrong, part) in [
        ("P. 1:501", ". 1:501", "other flags"),
        ("1:501(500) ack", "1:502(501) ack", "another range"),
        ("ack 1 win 65535\n", "ack 2 win 65535\n", "another acknowledgment"),
        ("ack 1 win 65535\n", "ack 1 win 65534\n", "another window"),
        ("ack 1 win 65535\n", "ack 1 <mss 1000>\n", "other options"),
        ("ack 1 win 65535\n", "ack 1 sack 1:2\n", "other SACK blocks"),
        ("> P.", "> [ce] P.", "another mark"),
        ("> P.", "+1ms > P.", "came > P. 1:501(500)"),
    ] {
        assert_fails(&GOOD.replace(was, wrong), 3, part);
    }
}

#[test]
fn what_does_not_come_and_what_comes_unannounced_fails() {
    assert_fails("setup passive\n+1s > . 1:1(0) ack 1", 2, "nothing came");
    assert_fails(
        "setup passive\nwrite 100\n+1ms < . 1:1(0) ack 101",
        3,
        "not announced: at 0.040000 > P. 1:101(100)",
    );
    assert_fails("setup passive\nwrite 100", 0, "not announced");
    assert_fails("setup passive\nwrite 100\n> 1:101(100)\nnothing for 1s", 4, "not announced");
    assert_fails("setup passive\n+1s closed finished", 2, "nothing came");
    assert_fails("setup passive\n< R 1:1(0)", 0, "`was_reset peer-reset` at 0.040000 was not announced");
    assert_fails("setup passive\n< R 1:1(0)\npeer_closed", 3, "came `was_reset peer-reset`");
    assert_fails("setup passive\n< R 1:1(0)\nnothing for 1s", 3, "`was_reset peer-reset` came");
}

#[test]
fn states_figures_and_amounts_are_compared() {
    assert_fails("setup passive\nstate FIN-WAIT-1", 2, "the state is ESTABLISHED");
    assert_fails("listen\nstate CLOSED", 2, "the state is LISTEN");
    assert_fails("setup passive\nstats mss 999", 2, "mss is 1000");
    assert_fails("setup passive\nstats nonsense 1", 2, "nothing is called nonsense");
    assert_fails("setup passive\ncounts passive_opens 0", 2, "passive_opens is 1");
    assert_fails("setup passive\ncounts no-flow >=1", 2, "no-flow is 0");
    assert_fails("setup passive\ncounts nonsense 0", 2, "nothing is called nonsense");
    assert_fails("setup passive\nread 1", 2, "0 bytes were read");
    assert_fails("setup passive\nreadable 1", 2, "0 bytes can be read");
    assert_fails("setup passive\nurgent_left 1", 2, "0 bytes are urgent");
    assert_fails(
        "setup passive\n< U. 1:3(2) ack 1 urg 1\n> . ack 3",
        0,
        "`urgent` at 0.040000 was not announced",
    );
    assert_fails("setup passive\nwrite_urgent 5\n> UP. 1:6(5) urg 4", 3, "another urgent pointer");
    assert_fails("tx_buffer 10\nsetup passive\nwrite 11", 3, "10 bytes were taken");
    assert_eq!(
        verdict("setup passive\nstats mss 1..1000 mss >=5 mss <=1000 congestion cubic state ESTABLISHED"),
        Ok(())
    );
}

#[test]
fn what_is_no_statement_is_said_with_its_line() {
    for line in [
        "nonsense",
        "< . 1:1(0)",
        "< S 0:1(0)",
        "+5 listen",
        "+2s..1s listen",
        "setup sideways",
        "setup passive rtt",
        "set nonsense on",
        "set nodelay",
        "stats mss",
        "< icmp nonsense seq 1",
        "> 1:10 by 3",
        "> [odd] . 1:1(0)",
        "config rto_min 5",
        "option nonsense on",
    ] {
        assert_eq!(verdict(&format!("# nothing\n{line}")).map_err(|(line, _)| line), Err(2), "{line}");
    }
    // The header comes first.
    assert_fails("listen\nmtu 1000", 2, "no statement");
    assert_fails("# nothing", 0, "nothing happens");
}

#[test]
fn a_line_may_stand_for_several_segments() {
    let text = "option nodelay on\nsetup passive\nwrite 2500\n> 1:2501(2500) by 1000 ack 1\n+40ms < . 1:1(0) ack 2501 x2\n\
                < 1:21(20) by 10 ack 2501\n> . ack 11\n> . ack 21";
    assert_eq!(verdict(text), Ok(()));
    assert_fails(&text.replace("by 1000", "by 900"), 4, "another range");
}
