//! Packet traces and captures as text.

use hoststack::inspect::{CaptureReport, TraceAnswer, TraceRecord};

use crate::table::{bytes, grouped, pairs};

/// `show trace`: the traces, then packet by packet what each stage decided.
pub(crate) fn trace(answer: &TraceAnswer) -> String {
    if answer.traces.is_empty() {
        return "No trace: `trace add [PACKETS] [count N]` begins one.\n".into();
    }
    let mut text = String::new();
    for trace in &answer.traces {
        text += &format!("trace {trace}\n");
    }
    let shown = answer.records.len();
    text += &match (answer.total, shown) {
        (0, _) => "no packet has passed yet\n".to_owned(),
        (total, shown) if total == shown => format!("{} packets\n", grouped(total as u64)),
        (total, shown) => {
            format!("the newest {} of {} packets\n", grouped(shown as u64), grouped(total as u64))
        }
    };
    for record in &answer.records {
        text.push('\n');
        text += &packet(record);
    }
    text
}

/// One packet: a line that says what it is, and a line for each stage.
fn packet(record: &TraceRecord) -> String {
    let TraceRecord { worker, number, at_us, packet, direction, summary, .. } = record;
    let mut text = format!(
        "{:>6}.{:06} w{worker} #{number} {packet} {direction:<3} {summary}",
        at_us / 1_000_000,
        at_us % 1_000_000
    );
    if let Some(session) = &record.session {
        text += &format!(" session {session}");
    }
    if record.retransmission {
        text += " (sent again)";
    }
    if let Some(reason) = record.dropped {
        text += &format!(" ! dropped: {reason}");
    }
    text.push('\n');
    let width = record.stages.iter().map(|stage| stage.stage.len()).max().unwrap_or(0);
    for stage in &record.stages {
        text += &format!("        {:<width$}  {}\n", stage.stage, stage.text);
    }
    text
}

/// `show pcap` and `pcap stop`.
pub(crate) fn capture(report: Option<&CaptureReport>) -> String {
    let Some(report) = report else {
        return "No capture: `pcap start FILE [PACKETS] [size N]` begins one.\n".into();
    };
    let CaptureReport { file, filter, state, packets, bytes: written, bytes_max, missed, error } = report;
    let mut lines = vec![
        ("file", file.clone()),
        ("filter", filter.clone()),
        ("state", state.to_string()),
        ("packets", grouped(*packets)),
        ("size", format!("{} of {}", bytes(*written), bytes(*bytes_max))),
        ("missed", grouped(*missed)),
    ];
    lines.extend(error.clone().map(|error| ("error", error)));
    pairs(lines)
}

#[cfg(test)]
mod tests {
    use hoststack::inspect::{CaptureState, TraceStage};
    use serde_json::json;

    use super::*;

    fn record() -> TraceRecord {
        let stage = |stage, text: &str| TraceStage { stage, text: text.into() };
        TraceRecord {
            worker: 1,
            number: 7,
            at_us: 12_000_345,
            packet: "00c0ffee".into(),
            direction: "in",
            interface: "tap0".into(),
            len: 54,
            summary: "tcp 10.0.0.2:4000 > 10.0.0.1:80: . 1:6(5) ack 1 win 65535".into(),
            session: Some("1:5.3".into()),
            dropped: None,
            retransmission: false,
            stages: vec![
                stage("device-input", "tap0 len 54"),
                stage("tcp-lookup", "session 1:5.3"),
                stage("tcp-input", "ESTABLISHED, rcv.nxt 1 -> 6"),
                stage("session", "1:5.3 readable"),
            ],
        }
    }

    #[test]
    fn a_packet_has_a_line_and_a_line_for_each_stage() {
        let dropped = TraceRecord {
            number: 8,
            direction: "out",
            session: None,
            dropped: Some("no-route"),
            retransmission: true,
            stages: vec![],
            ..record()
        };
        let answer = TraceAnswer {
            traces: vec!["tcp port 80 count 50".into()],
            total: 9,
            records: vec![record(), dropped],
        };
        assert_eq!(
            trace(&answer),
            "\
trace tcp port 80 count 50
the newest 2 of 9 packets

    12.000345 w1 #7 00c0ffee in  tcp 10.0.0.2:4000 > 10.0.0.1:80: . 1:6(5) ack 1 win 65535 session 1:5.3
        device-input  tap0 len 54
        tcp-lookup    session 1:5.3
        tcp-input     ESTABLISHED, rcv.nxt 1 -> 6
        session       1:5.3 readable

    12.000345 w1 #8 00c0ffee out tcp 10.0.0.2:4000 > 10.0.0.1:80: . 1:6(5) ack 1 win 65535 (sent again) ! dropped: no-route
"
        );
    }

    #[test]
    fn no_trace_and_an_empty_one_say_so() {
        assert!(trace(&TraceAnswer::default()).contains("`trace add [PACKETS] [count N]`"));
        let waiting = TraceAnswer { traces: vec!["any count 50".into()], ..TraceAnswer::default() };
        assert_eq!(trace(&waiting), "trace any count 50\nno packet has passed yet\n");
        let one = TraceAnswer { total: 1, records: vec![record()], ..waiting };
        assert!(trace(&one).starts_with("trace any count 50\n1 packets\n\n"));
    }

    #[test]
    fn json_is_the_value_with_stable_names() {
        let answer = TraceAnswer { traces: vec!["any count 50".into()], total: 1, records: vec![record()] };
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(
            value["records"][0]["stages"][1],
            json!({ "stage": "tcp-lookup", "text": "session 1:5.3" })
        );
        let keys: Vec<&String> = value["records"][0].as_object().unwrap().keys().collect();
        let mut expected = [
            "worker",
            "number",
            "at_us",
            "packet",
            "direction",
            "interface",
            "len",
            "summary",
            "session",
            "dropped",
            "retransmission",
            "stages",
        ];
        expected.sort_unstable();
        let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_capture_says_what_it_wrote_and_missed() {
        let report = CaptureReport {
            file: "/tmp/x.pcapng".into(),
            filter: "tcp port 80".into(),
            state: CaptureState::Running,
            packets: 12_345,
            bytes: 1_500_000,
            bytes_max: 64 << 20,
            missed: 0,
            error: None,
        };
        assert_eq!(
            capture(Some(&report)),
            "\
file     /tmp/x.pcapng
filter   tcp port 80
state    running
packets  12 345
size     1.5 MB of 67.1 MB
missed   0
"
        );
        let failed = CaptureReport {
            state: CaptureState::Failed,
            error: Some("No space left on device".into()),
            ..report
        };
        assert!(capture(Some(&failed)).ends_with("missed   0\nerror    No space left on device\n"));
        assert_eq!(serde_json::to_value(&failed).unwrap()["state"], json!("failed"));
        assert!(capture(None).contains("`pcap start FILE [PACKETS] [size N]`"));
    }
}
