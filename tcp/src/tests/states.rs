//! Every state against every kind of segment: RFC 9293 §3.10.7 as one table, RFC 5961 and RFC 7323 included.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::testing::Exchange;

type Fixture = (&'static str, fn() -> Exchange, u32, u32);

/// Name, how to get there, SND.NXT and RCV.NXT relative to the initial sequence numbers.
const FIXTURES: [Fixture; 13] = [
    ("CLOSED", Exchange::closed, 0, 0),
    ("LISTEN", Exchange::listen, 0, 0),
    ("SYN-SENT", Exchange::syn_sent, 1, 0),
    ("SYN-RECEIVED", Exchange::syn_received, 1, 1),
    ("SYN-RECEIVED (crossed)", Exchange::crossed_syns, 1, 1),
    ("ESTABLISHED", Exchange::established, 1, 1),
    ("ESTABLISHED, RCV.WND = 0", closed_window, 1, 1001),
    ("FIN-WAIT-1", Exchange::fin_wait_1, 2, 1),
    ("FIN-WAIT-2", Exchange::fin_wait_2, 2, 1),
    ("CLOSE-WAIT", Exchange::close_wait, 1, 2),
    ("CLOSING", Exchange::closing, 2, 2),
    ("LAST-ACK", Exchange::last_ack, 2, 2),
    ("TIME-WAIT", Exchange::time_wait, 2, 2),
];

/// ESTABLISHED; the peer filled the window, and the app reads nothing.
pub(super) fn closed_window() -> Exchange {
    let mut x = Exchange::established().options(|options| options.rx_window = 1000);
    x.layer.rx_capacity = 1000;
    x.gets(["1:1001(1000) ack 1"]).after(40).sends([". 1:1(0) ack 1001 win 0"]);
    x
}

/// What arrives, given SND.NXT and RCV.NXT.
fn stimuli(snd: u32, rcv: u32) -> Vec<(&'static str, String)> {
    let far = rcv + 70_000;
    Vec::from([
        ("SYN", "S 0:0(0) win 65535 <mss 1000>".to_string()),
        ("SYN, newer", format!("S {}:{}(0) win 65535 <mss 1000>", far, far)),
        ("SYN, in window", format!("S {}:{}(0) win 65535 <mss 1000>", rcv + 5, rcv + 5)),
        ("SYN with data", "S 0:10(10) win 65535 <mss 1000>".to_string()),
        ("SYN with FIN", "SF 0:0(0) win 65535 <mss 1000>".to_string()),
        ("SYN with RST", "SR 0:0(0) win 65535 <mss 1000>".to_string()),
        ("SYN-ACK", format!("S. 0:0(0) ack {snd} win 65535 <mss 1000>")),
        ("SYN-ACK, bad ACK", format!("S. 0:0(0) ack {} win 65535 <mss 1000>", snd + 9)),
        ("SYN-ACK and data", format!("SP. 0:10(10) ack {snd} win 65535 <mss 1000>")),
        ("RST, exact", format!("R {rcv}:{rcv}(0)")),
        ("RST, in window", format!("R {}:{}(0)", rcv + 9, rcv + 9)),
        ("RST, outside", format!("R {far}:{far}(0)")),
        ("RST with ACK", format!("R. {rcv}:{rcv}(0) ack {snd}")),
        ("RST with bad ACK", format!("R. {far}:{far}(0) ack {}", snd + 9)),
        ("RST, exact, bad ACK", format!("R. {rcv}:{rcv}(0) ack {}", snd + 9)),
        ("RST with data", format!("R {rcv}:{}(10)", rcv + 10)),
        ("ACK of all", format!(". {rcv}:{rcv}(0) ack {snd}")),
        ("ACK, old", format!(". {rcv}:{rcv}(0) ack {}", snd.wrapping_sub(1))),
        ("ACK, too old", format!(". {rcv}:{rcv}(0) ack {}", snd.wrapping_sub(100_000))),
        ("ACK beyond", format!(". {rcv}:{rcv}(0) ack {}", snd + 1)),
        ("ACK outside", format!(". {far}:{far}(0) ack {snd}")),
        ("ACK at the edge", format!(". {edge}:{edge}(0) ack {snd}", edge = rcv + 65_535)),
        ("no flags", format!("- {rcv}:{rcv}(0)")),
        ("no ACK bit", format!("P {rcv}:{}(10)", rcv + 10)),
        ("data", format!("P. {rcv}:{}(10) ack {snd}", rcv + 10)),
        ("data with a gap", format!("P. {}:{}(10) ack {snd}", rcv + 10, rcv + 20)),
        ("data, old", format!("P. {}:{}(10) ack {snd}", rcv.wrapping_sub(10), rcv)),
        ("data, partly old", format!("P. {}:{}(10) ack {snd}", rcv.wrapping_sub(5), rcv.wrapping_add(5))),
        ("data, partly outside", format!("P. {}:{}(10) ack {snd}", rcv + 65_530, rcv + 65_540)),
        ("data, ACK beyond", format!("P. {rcv}:{}(10) ack {}", rcv + 10, snd + 1)),
        ("data with URG", format!("PU. {rcv}:{}(10) ack {snd} urg 5", rcv + 10)),
        ("data outside", format!("P. {far}:{}(10) ack {snd}", far + 10)),
        ("FIN", format!("F. {rcv}:{rcv}(0) ack {snd}")),
        ("data and FIN", format!("FP. {rcv}:{}(10) ack {snd}", rcv + 10)),
        ("FIN without ACK", format!("F {rcv}:{rcv}(0)")),
        ("FIN, old", format!("F. {old}:{old}(0) ack {snd}", old = rcv.wrapping_sub(1))),
        ("FIN, outside", format!("F. {far}:{far}(0) ack {snd}")),
        ("FIN with a gap", format!("F. {}:{}(0) ack {snd}", rcv + 10, rcv + 10)),
    ])
}

/// What the engine did: replies without windows, events, the state after, and what was dropped.
fn response(x: &mut Exchange, text: &str) -> String {
    x.events.clear();
    let before = x.engine.drop_counters().clone();
    x.gets([text]);
    let mut parts: Vec<String> = Vec::new();
    for sent in x.sent() {
        let words: Vec<&str> = sent.split(' ').collect();
        let head = words.iter().position(|&word| word == "win").unwrap_or(words.len());
        parts.push(format!("sends {}", words[..head].join(" ")));
    }
    for event in core::mem::take(&mut x.events) {
        let event = format!("{event:?}");
        let name = event.split(' ').next().unwrap_or_default();
        // What the connection counted is no part of the table.
        let reason = event.split("reason: ").nth(1).and_then(|rest| rest.split([',', ' ']).next());
        parts.push(reason.map_or(name.to_string(), |reason| format!("{name} {reason}")));
    }
    for outcome in core::mem::take(&mut x.outcomes) {
        parts.push(format!("outcome {outcome:?}"));
    }
    for ((reason, now), (_, then)) in x.engine.drop_counters().iter().zip(before.iter()) {
        if now > then {
            parts.push(format!("({reason})"));
        }
    }
    parts.push(x.state().to_string());
    parts.join("; ")
}

// covers: MUST-66, MAY-12
#[test]
fn every_state_answers_every_segment_as_the_table_says() {
    let mut table = String::new();
    for (name, fixture, snd, rcv) in FIXTURES {
        table += &format!("{name}\n");
        for (stimulus, text) in stimuli(snd, rcv) {
            table += &format!("  {stimulus:20} {}\n", response(&mut fixture(), &text));
        }
    }
    let expected = include_str!("states.txt");
    for (line, (got, want)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {} of states.txt", line + 1);
    }
    assert_eq!(table, expected);
}
