//! Rows, verdicts, the table and the JSON.

use super::*;

fn figure(ours: f64, peer: f64) -> PairedFigure {
    let flat = |value| Spread { median: value, min: value * 0.9, max: value * 1.1 };
    PairedFigure { ours: flat(ours), peer: flat(peer), ratio: flat(ours / peer) }
}

fn conn(ours: f64, peer: f64) -> Row {
    Row::paired("conn", "64 in flight", Unit::PerSecond, &figure(ours, peer))
}

fn memory(ours: f64, peer: Option<f64>) -> Row {
    Row::single("memory", "idle session", Unit::Bytes, Some(ours), peer)
}

#[test]
fn more_is_better_for_rates() {
    assert_eq!(conn(1.0e6, 0.2e6).verdict(), Verdict::Met);
    assert_eq!(conn(0.9e6, 0.2e6).verdict(), Verdict::Short);
    assert_eq!(conn(0.2e6, 0.1e6).verdict(), Verdict::Short, "past the alarm but ahead of the peer");
    assert_eq!(conn(0.2e6, 0.3e6).verdict(), Verdict::Alarm);
}

#[test]
fn less_is_better_for_memory_and_the_ratio_says_so() {
    assert_eq!(memory(384.0, Some(800.0)).verdict(), Verdict::Met);
    assert_eq!(memory(385.0, Some(800.0)).verdict(), Verdict::Short);
    assert_eq!(memory(1_600.0, Some(800.0)).verdict(), Verdict::Alarm);
    assert_eq!(memory(1_600.0, None).verdict(), Verdict::Alarm, "without a peer the alarm stands alone");
    assert_eq!(memory(400.0, Some(800.0)).ratio, Some(2.0));
    let paired = Row::paired("latency", "one core", Unit::Nanoseconds, &figure(200.0, 800.0));
    assert!((paired.ratio.unwrap() - 4.0).abs() < 1e-9);
    let [min, max] = paired.ratio_spread.unwrap();
    assert!(min < 4.0 && max > 4.0);
}

#[test]
fn a_row_without_ours_or_without_a_goal_has_no_verdict() {
    let row = Row::single("conn", "64 in flight", Unit::PerSecond, None, Some(5.0));
    assert_eq!((row.verdict(), row.ratio, row.goal), (Verdict::None, None, Some(1.0e6)));
    let row = Row::single("conn", "64 in flight", Unit::PerCpuSecond, Some(5.0), None);
    assert_eq!((row.verdict(), row.goal), (Verdict::None, None), "the goal is per wall second");
}

#[test]
fn json_reads_back_as_written() {
    let mut report = Report::new(3);
    report.rows.push(conn(1.25e6, 0.25e6).with_note("a").with_note("b"));
    report.rows.push(memory(100.0, None));
    let json = report.to_json();
    assert!(json.contains("\"unit\": \"1/s\""), "{json}");
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert_eq!(report.rows[0].note, "a; b");
    assert!(!report.has_alarm());
    report.rows.push(memory(2_000.0, None));
    assert!(report.has_alarm());
}

#[test]
fn the_table_is_aligned_and_shows_goal_and_alarm() {
    let machine =
        Machine { cpu: "Test CPU".to_owned(), cores: 2, commit: "0123456789ab".to_owned(), optimized: true };
    let mut report = Report { machine, rounds: 5, rows: Vec::new() };
    report.rows.push(conn(1.25e6, 0.25e6));
    report.rows.push(memory(1_600.0, None).with_note("n"));
    let expected = "\
Test CPU, 2 cores, commit 0123456789ab, medians of 5 rounds
work    variant            ours      peer   ratio (min..max)       goal     alarm  verdict  note
conn    64 in flight  1.25 M/s   250 k/s  5.00 (4.50..5.50)  1.00 M/s   250 k/s  met
memory  idle session  1.60 kB          -                  -     384 B   1.50 kB  ALARM    n
";
    let squeeze = |text: &str| {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let text = report.to_string();
    assert_eq!(squeeze(&text), squeeze(expected));
    let verdict_at: Vec<_> =
        text.lines().skip(1).zip(["verdict", "met", "ALARM"]).map(|(line, word)| line.find(word)).collect();
    assert!(verdict_at[0].is_some() && verdict_at.iter().all(|at| *at == verdict_at[0]), "{text}");
}

#[test]
fn values_are_written_with_three_digits_and_a_prefix() {
    let cases = [
        (Unit::PerSecond, 1_234_567.0, "1.23 M/s"),
        (Unit::PerSecond, 45_678.0, "45.7 k/s"),
        (Unit::PerSecond, 0.0, "0 /s"),
        (Unit::GbitPerSecond, 35.04, "35.0 Gbit/s"),
        (Unit::Nanoseconds, 131.0, "131 ns"),
        (Unit::Nanoseconds, 2_500.0, "2.50 us"),
        (Unit::Nanoseconds, 7_000_000.0, "7.00 ms"),
        (Unit::CpuNanoseconds, 23_456.0, "23.5 us cpu"),
        (Unit::Bytes, 384.0, "384 B"),
        (Unit::Share, 0.0035, "0.350 %"),
        (Unit::Share, 0.9996, "100 %"),
    ];
    for (unit, value, text) in cases {
        assert_eq!(unit.text(value), text);
    }
}

#[test]
fn every_goal_is_better_than_its_alarm_and_named_once() {
    for (index, goal) in GOALS.iter().enumerate() {
        if let (Some(good), Some(bad)) = (goal.goal, goal.alarm) {
            assert_eq!(good < bad, goal.unit.less_is_better(), "{} {}", goal.work, goal.variant);
        }
        if let (Some(floor), Some(good)) = (goal.floor, goal.goal) {
            assert_eq!(floor < good, goal.unit.less_is_better(), "{} {}", goal.work, goal.variant);
        }
        let first = GOALS.iter().position(|other| (other.work, other.variant) == (goal.work, goal.variant));
        assert_eq!(first, Some(index), "{} {} is named twice", goal.work, goal.variant);
    }
    assert!(goal_for("conn", "no such variant").is_none());
}

#[test]
fn the_machine_is_described() {
    let machine = Machine::detect();
    assert!(machine.cores >= 1);
    assert!(!machine.cpu.is_empty() && !machine.commit.is_empty());
}
