//! Answers without what differs from run to run: times, rates, ports that the stack chose, and figures that grow.

use regex::Regex;

/// Which numbers without a unit stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// All: they are what the state of the stack says.
    Kept,
    /// Those of lines that begin so; others are counts of steps, packets and the like.
    KeptIn(&'static [&'static str]),
}

/// What is done with an answer besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub(super) numbers: Numbers,
    /// Only lines with one of these words in them are kept, if there are any: what others tell of may have happened or not.
    pub(super) only: &'static [&'static str],
    /// The column by which lines are sorted, those of one cell in the order that they came in: threads' lines mix in any way.
    pub(super) sorted_by: Option<usize>,
}

impl Norm {
    pub(super) const PLAIN: Norm = Norm { numbers: Numbers::Kept, only: &[], sorted_by: None };
}

/// What stands in the place of what, in this order; the units tell the kinds apart.
const KINDS: [(&str, &str); 11] = [
    (r"\b((?:10\.0\.\d\.\d|127\.0\.0\.1|\[?fd00::\d\]?):)\d{4,5}\b", "$1<port>"),
    // What was configured stays; how often a SYN was sent depends on when one looks; so do a packet's worker and number.
    (r"\(within (\d+)", "(within _$1"),
    (r"(connecting +main +\d+ +)\d+\b", "$1<n>"),
    (r"(SYNs sent, or connects asked for +)\d+\b", "$1<n>"),
    (r" w\d #\d+ [0-9a-f]{8} ", " w<n> #<n> <packet> "),
    (r"\b(?:\d+ us|\d+\.\d ms|\d+\.\d\d s|\d+m\d\ds)\b", "<time>"),
    (r"\b\d+\.\d{6}\b", "<seconds>"),
    (r"\b(?:\d+ B|\d+\.\d kB|\d+\.\d MB|\d+\.\d\d GB)\b", "<bytes>"),
    (r"\b\d+(?:\.\d+)?%", "<%>"),
    (r"\(within _", "(within "),
    (r"(?m) +#+$", ""),
];

/// The answer with names for what they stand for, placeholders, and runs of blanks cut to two.
///
/// Where numbers are not kept, neither are the blanks that a line begins with (the first column's width follows from
/// numbers), and equal lines that follow each other are one.
pub(super) fn normal(text: &str, names: &[(String, String)], norm: Norm) -> String {
    let mut text = text.to_owned();
    for (from, to) in names {
        text = text.replace(from, to);
    }
    for (pattern, kind) in KINDS {
        text = Regex::new(pattern).expect(pattern).replace_all(&text, kind).into_owned();
    }
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let begins = |with: &&str| line.trim_start().starts_with(with);
        if !norm.only.is_empty() && !norm.only.iter().any(|word| line.contains(word)) {
            continue;
        }
        let line = match norm.numbers {
            Numbers::Kept => blanks(line),
            Numbers::KeptIn(kept) if kept.iter().any(begins) => blanks(line.trim_start()),
            Numbers::KeptIn(_) => blanks(&numbers(line.trim_start())),
        };
        let is_again = norm.numbers != Numbers::Kept && lines.last() == Some(&line) && !line.is_empty();
        if !is_again {
            lines.push(line);
        }
    }
    if let Some(column) = norm.sorted_by {
        let cell = |line: &String| line.split("  ").nth(column).map(str::to_owned).unwrap_or_default();
        // The heading stays above.
        lines.get_mut(1..).unwrap_or_default().sort_by_key(cell);
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Numbers as `<n>`, also those with blanks between their thousands.
fn numbers(line: &str) -> String {
    let is_number = |word: &str| {
        let word = word.trim_start_matches('(').trim_end_matches([',', ';', ')', ':']);
        word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let of_rfc = words.last().is_some_and(|last| last.ends_with("RFC"));
        if of_rfc || !is_number(word) || word.matches('.').count() > 1 {
            words.push(match word.split_once('=') {
                Some((name, value)) if is_number(value) => format!("{name}=<n>"),
                _ => word.to_owned(),
            });
            continue;
        }
        let bare = word.trim_start_matches('(').trim_end_matches([',', ';', ')', ':']);
        let of_thousands = bare.len() == 3 && words.last().is_some_and(|last| last.ends_with("<n>"));
        if of_thousands {
            words.pop();
        }
        words.push(word.replace(bare, "<n>"));
    }
    words.join(" ")
}

/// Runs of blanks as two.
fn blanks(line: &str) -> String {
    Regex::new(" {3,}").expect("it is one").replace_all(line.trim_end(), "  ").into_owned()
}

#[test]
fn what_differs_from_run_to_run_has_a_placeholder_of_its_kind() {
    let names = [("/tmp/x1".to_owned(), "DIR".to_owned())];
    let plain = |text: &str| normal(text, &names, Norm::PLAIN);
    assert_eq!(plain("age      12.5 ms    x\n"), "age  <time>  x\n");
    assert_eq!(
        plain("a 850 us, 1m03s, 2.50 s, 1.5 kB/s 12.5%\n"),
        "a <time>, <time>, <time>, <bytes>/s <%>\n"
    );
    assert_eq!(plain("10.0.0.1:40312 10.0.0.2:443 /tmp/x1/a\n"), "10.0.0.1:<port> 10.0.0.2:443 DIR/a\n");
    assert_eq!(plain("(within 10.00 s)  7  ####\n"), "(within 10.00 s)  7\n");
    assert_eq!(
        plain("within 10.00 s\n 1.000001 w1 #3 0123abcd out x"),
        "within <time>\n <seconds> w<n> #<n> <packet> out x\n"
    );
    assert_eq!(plain("connecting  main        1     2  1.50 s\n"), "connecting  main  1  <n>  <time>\n");
    let figures = Norm { numbers: Numbers::KeptIn(&["kept"]), ..Norm::PLAIN };
    let text = "   steps  1 234 567  12\nkept  7\nx (10, 0):\n  1\n 12\n0:1.1 w0 10.0.0.1 a=7\n";
    assert_eq!(
        normal(text, &names, figures),
        "steps  <n>  <n>\nkept  7\nx (<n>, <n>):\n<n>\n0:1.1 w0 10.0.0.1 a=<n>\n"
    );
    let only = Norm { only: &["b "], ..Norm::PLAIN };
    assert_eq!(normal("a 1\nb 2\n", &[], only), "b 2\n");
}

#[test]
fn lines_of_threads_are_sorted_by_thread_and_stay_in_order_for_one() {
    let norm = Norm { sorted_by: Some(1), ..Norm::PLAIN };
    assert_eq!(
        normal("t  on  x\n1  w1  b\n2  main  z\n3  w1  a\n", &[], norm),
        "t  on  x\n2  main  z\n1  w1  b\n3  w1  a\n"
    );
}
