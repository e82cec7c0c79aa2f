//! Text to statements. The language is described in `docs/scripts.md`.

use hoststack::app::{Duration, SocketOption};
use hoststack_wire::{Flags, NotedSegment, parse_notation};

use super::Failure;
use super::app::Event;
use super::settings::{Setup, change, duration};

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its header.
    pub setup: Setup,
    /// What happens, in order.
    pub statements: Vec<Statement>,
}

/// One thing that the script does or expects.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Line in the file, from 1.
    pub line: usize,
    /// When.
    pub when: When,
    /// What.
    pub what: What,
    /// It follows the statement before without anything in between: another segment of a burst.
    pub is_burst: bool,
}

/// When a statement happens: between two moments (mostly the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Counted from the script's beginning, not from the statement before.
    pub is_absolute: bool,
    /// At the earliest.
    pub from: Duration,
    /// At the latest; what the script itself does, it does at the earliest.
    pub to: Duration,
}

/// Marks of RFC 3168 in the IP header: the lower two bits of what was the type of service.
pub type Ecn = u8;

/// What a statement is about.
#[derive(Clone, Debug)]
pub enum What {
    /// A segment of the peer.
    In {
        /// The segment; its acknowledgment is said.
        segment: NotedSegment,
        /// Its options are just these; else timestamps are added once they were agreed on.
        has_options: bool,
        /// Its mark.
        ecn: Ecn,
    },
    /// An ICMP error of a router, or of the peer's host.
    InIcmp(Icmp),
    /// A segment of the stack.
    Out(Expected),
    /// The app does something.
    Act(Act),
    /// The app is told something.
    Event(Event),
    /// So many bytes can be read.
    Readable(usize),
    /// So many bytes are to be read until the end of what is urgent.
    UrgentLeft(usize),
    /// The connection's state, by its RFC name.
    State(String),
    /// Figures of the connection.
    Stats(Vec<(String, Want)>),
    /// Counters and drop reasons of the stack.
    Counts(Vec<(String, Want)>),
    /// No segment and no callback for so long.
    Nothing(Duration),
    /// The peer's initial sequence number moves on by this: another connection of the same ports.
    PeerIsn(u32),
    /// The peer goes on with another port.
    PeerPort(u16),
}

/// A segment that the stack must send.
#[derive(Clone, Debug)]
pub struct Expected {
    /// As it was written.
    pub text: String,
    /// What was read.
    pub segment: NotedSegment,
    /// The flags were written; else it must be an ACK, with PSH or without.
    pub has_flags: bool,
    /// The range was written.
    pub has_range: bool,
    /// Options were written in brackets: just these, timestamps apart unless they are written too.
    pub has_options: bool,
    /// SACK blocks were written outside brackets.
    pub has_sack: bool,
    /// Its mark, if it was written.
    pub ecn: Option<Ecn>,
}

/// An ICMP error about a segment that the stack sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// What is wrong.
    pub error: IcmpKind,
    /// Sequence number of the segment that it quotes, relative to the stack's initial one.
    pub seq: u32,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// No way to the network.
    NetUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// The host does not speak TCP.
    ProtocolUnreachable,
    /// Nothing has the port.
    PortUnreachable,
    /// A filter says no.
    Prohibited,
    /// Too big for the next link, which takes so much.
    TooBig(u16),
    /// Hops used up.
    TimeExceeded,
    /// A header field is wrong.
    ParameterProblem,
}

/// What the app does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Listen on port 80.
    Listen,
    /// Stop listening.
    Unlisten,
    /// Connect to port 80.
    Connect,
    /// Cancel the connect.
    Cancel,
    /// Write so many bytes, of which so many are taken.
    Write(usize, usize),
    /// Write so many bytes and call them urgent.
    WriteUrgent(usize),
    /// Read so many bytes; `None`: all.
    Read(Option<usize>),
    /// Close both ways.
    Close,
    /// Close our direction.
    HalfClose,
    /// Cut off.
    Reset,
    /// Change an option.
    Set(SocketOption),
}

/// What a figure must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Between these, inclusive.
    Number(u64, u64),
    /// This word.
    Word(String),
}

impl Want {
    fn parse(text: &str) -> Want {
        let number = |text: &str| text.parse::<u64>().ok();
        let parsed = if let Some(least) = text.strip_prefix(">=") {
            number(least).map(|least| (least, u64::MAX))
        } else if let Some(most) = text.strip_prefix("<=") {
            number(most).map(|most| (0, most))
        } else if let Some((from, to)) = text.split_once("..") {
            number(from).zip(number(to))
        } else {
            number(text).map(|number| (number, number))
        };
        parsed.map_or_else(|| Want::Word(text.to_owned()), |(from, to)| Want::Number(from, to))
    }

    /// Whether `value` is as wanted.
    pub fn is_met_by(&self, value: &str) -> bool {
        match self {
            Want::Number(from, to) => value.parse().is_ok_and(|value: u64| (*from..=*to).contains(&value)),
            Want::Word(word) => word.eq_ignore_ascii_case(value),
        }
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The line that cannot be understood.
    pub fn parse(text: &str) -> Result<Script, Failure> {
        let mut script = Script { setup: Setup::default(), statements: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if script.statements.is_empty() && script.setup.set(&words).is_some() {
                continue;
            }
            let fail = |words| Failure { line: at + 1, words, log: Vec::new() };
            statements(line, at + 1, &mut script.statements).map_err(fail)?;
        }
        if script.statements.is_empty() {
            return Err(Failure { line: 0, words: "nothing happens in it".into(), log: Vec::new() });
        }
        Ok(script)
    }
}

/// Reads a line, which may stand for several statements.
fn statements(text: &str, line: usize, into: &mut Vec<Statement>) -> Result<(), String> {
    let (when, text) = match text.split_once(char::is_whitespace) {
        Some((first, rest)) if first.starts_with(['+', '@']) => (when(first)?, rest.trim()),
        _ => (When::now(), text),
    };
    if let Some(rest) = text.strip_prefix("setup ") {
        for text in handshake(rest)? {
            statements(&text, line, into)?;
        }
        return Ok(());
    }
    for (count, text) in several(text)?.into_iter().enumerate() {
        let when = if count == 0 { when } else { When::now() };
        into.push(Statement { line, when, what: what(&text)?, is_burst: count > 0 });
    }
    Ok(())
}

impl When {
    fn now() -> When {
        When { is_absolute: false, from: Duration::ZERO, to: Duration::ZERO }
    }
}

/// `+40ms`, `+40ms..60ms`, `@1s`.
fn when(text: &str) -> Result<When, String> {
    let (sign, times) = text.split_at(1);
    let (from, to) = times.split_once("..").unwrap_or((times, times));
    let read = |text| duration(text).ok_or_else(|| format!("{text}: no time; write 10us, 40ms, 1.5s or 0"));
    let (from, to) = (read(from)?, read(to)?);
    if to < from {
        return Err(format!("{text}: ends before it begins"));
    }
    Ok(When { is_absolute: sign == "@", from, to })
}

/// What `setup passive|active [rtt TIME] [win N] [<options>]` stands for.
fn handshake(text: &str) -> Result<Vec<String>, String> {
    let (head, options) = match text.find('<') {
        Some(at) => (&text[..at], &text[at..]),
        None => (text, "<mss 1000>"),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let (mut rtt, mut win) = ("40ms", "65535");
    let (&kind, mut rest) = words.split_first().ok_or("setup what? passive or active")?;
    while let [name, value, tail @ ..] = rest {
        match *name {
            "rtt" => rtt = value,
            "win" => win = value,
            _ => return Err(format!("{name}: no part of a setup; write rtt, win or options")),
        }
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(format!("{}: without a value", rest[0]));
    }
    match kind {
        "passive" => Ok(vec![
            "listen".into(),
            format!("< S 0:0(0) win {win} {options}"),
            "> S. 0:0(0) ack 1".into(),
            format!("+{rtt} < . 1:1(0) ack 1 win {win}"),
            "accepted".into(),
        ]),
        "active" => Ok(vec![
            "connect".into(),
            "> S 0:0(0)".into(),
            format!("+{rtt} < S. 0:0(0) ack 1 win {win} {options}"),
            "> . 1:1(0) ack 1".into(),
            "connected".into(),
        ]),
        _ => Err(format!("{kind}: setup is passive or active")),
    }
}

/// Unfolds `1:3001(3000) by 1000` and a last word `x3`.
fn several(text: &str) -> Result<Vec<String>, String> {
    if !text.starts_with(['<', '>']) {
        return Ok(vec![text.to_owned()]);
    }
    if let Some((head, last)) = text.rsplit_once(" x")
        && let Ok(count) = last.parse::<usize>()
    {
        return Ok(vec![head.to_owned(); count]);
    }
    let Some((head, tail)) = text.split_once(" by ") else { return Ok(vec![text.to_owned()]) };
    let (size, tail) = tail.split_once(' ').unwrap_or((tail, ""));
    let (lead, range) = head.rsplit_once(' ').ok_or("a range stands before `by`")?;
    let bounds = range.split_once('(').and_then(|(bounds, _)| bounds.split_once(':'));
    let number = |text: &str| text.parse::<u32>().ok();
    let (from, to) = bounds
        .and_then(|(from, to)| number(from).zip(number(to)))
        .ok_or_else(|| format!("{range}: no range"))?;
    let size = number(size).filter(|&size| size > 0).ok_or_else(|| format!("{size}: no size"))?;
    let cut = |start: u32| {
        let end = to.min(start + size);
        format!("{lead} {start}:{end}({}) {tail}", end - start)
    };
    Ok((from..to).step_by(size as usize).map(cut).collect())
}

fn what(text: &str) -> Result<What, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |text: &str| text.parse().map_err(|_| format!("{text}: no number"));
    if let Some(event) = Event::parse(&words) {
        return Ok(What::Event(event));
    }
    let act = |act| Ok(What::Act(act));
    match words[..] {
        ["<", "icmp", ref rest @ ..] => icmp(rest).map(What::InIcmp),
        ["<", ..] => inbound(&text[1..]),
        [">", ..] => outbound(&text[1..]).map(What::Out),
        ["listen"] => act(Act::Listen),
        ["unlisten"] => act(Act::Unlisten),
        ["connect"] => act(Act::Connect),
        ["cancel"] => act(Act::Cancel),
        ["write", bytes] => act(Act::Write(number(bytes)?, number(bytes)?)),
        ["write", bytes, "takes", taken] => act(Act::Write(number(bytes)?, number(taken)?)),
        ["write_urgent", bytes] => act(Act::WriteUrgent(number(bytes)?)),
        ["read", "all"] => act(Act::Read(None)),
        ["read", bytes] => act(Act::Read(Some(number(bytes)?))),
        ["close"] => act(Act::Close),
        ["half_close"] => act(Act::HalfClose),
        ["reset"] => act(Act::Reset),
        ["set", ref rest @ ..] => match change(rest) {
            Some(option) => act(Act::Set(option)),
            None => Err(format!("{text}: no option that can be changed, or no value for it")),
        },
        ["readable", bytes] => Ok(What::Readable(number(bytes)?)),
        ["urgent_left", bytes] => Ok(What::UrgentLeft(number(bytes)?)),
        ["state", state] => Ok(What::State(state.to_owned())),
        ["stats", ref pairs @ ..] => wants(pairs).map(What::Stats),
        ["counts", ref pairs @ ..] => wants(pairs).map(What::Counts),
        ["nothing", "for", time] => {
            duration(time).map(What::Nothing).ok_or_else(|| format!("{time}: no time"))
        }
        ["peer_isn", by] => {
            let by = by.strip_prefix('+').and_then(|by| by.parse().ok());
            by.map(What::PeerIsn).ok_or_else(|| "write peer_isn +NUMBER".to_owned())
        }
        ["peer_port", port] => port.parse().map(What::PeerPort).map_err(|_| format!("{port}: no port")),
        _ => Err(format!("{text}: no statement")),
    }
}

fn wants(pairs: &[&str]) -> Result<Vec<(String, Want)>, String> {
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err("write names and values".into());
    }
    Ok(pairs.chunks(2).map(|pair| (pair[0].to_owned(), Want::parse(pair[1]))).collect())
}

/// Takes a leading `[ect0]`, `[ect1]`, `[ce]` or `[no-ect]`.
fn mark(text: &str) -> Result<(Option<Ecn>, &str), String> {
    let text = text.trim();
    let Some(rest) = text.strip_prefix('[') else { return Ok((None, text)) };
    let (name, rest) = rest.split_once(']').ok_or("a mark ends with ]")?;
    let mark = match name {
        "no-ect" => 0,
        "ect1" => 1,
        "ect0" => 2,
        "ce" => 3,
        _ => return Err(format!("{name}: no mark; write no-ect, ect0, ect1 or ce")),
    };
    Ok((Some(mark), rest.trim()))
}

/// Reads the notation; empty brackets are written `<nop>`.
fn segment(text: &str) -> Result<NotedSegment, String> {
    parse_notation(text).map_err(|error| format!("{text}: {error}"))
}

fn inbound(text: &str) -> Result<What, String> {
    let (ecn, text) = mark(text)?;
    let segment = segment(text)?;
    if segment.flags.has(Flags::ACK) && segment.ack.is_none() {
        return Err("say what it acknowledges".into());
    }
    Ok(What::In { segment, has_options: text.contains('<'), ecn: ecn.unwrap_or(0) })
}

fn outbound(text: &str) -> Result<Expected, String> {
    let (ecn, text) = mark(text)?;
    let segment = segment(text)?;
    let has_options = text.contains('<');
    let starts_with_range = text.starts_with(|c: char| c.is_ascii_digit());
    let second_is_range =
        text.split_whitespace().nth(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(Expected {
        text: text.to_owned(),
        segment,
        has_flags: !starts_with_range,
        has_range: starts_with_range || second_is_range,
        has_options,
        has_sack: !has_options && !segment.options.sack.is_empty(),
        ecn,
    })
}

/// `port_unreachable seq 1`, `too_big 1200 seq 1`.
fn icmp(words: &[&str]) -> Result<Icmp, String> {
    let bad = || {
        "write icmp net_unreachable|host_unreachable|protocol_unreachable|port_unreachable|prohibited|too_big MTU|\
         time_exceeded|parameter_problem seq NUMBER"
            .to_owned()
    };
    let (error, rest) = match *words {
        ["too_big", mtu, ref rest @ ..] => (IcmpKind::TooBig(mtu.parse().map_err(|_| bad())?), rest),
        [name, ref rest @ ..] => {
            let error = match name {
                "net_unreachable" => IcmpKind::NetUnreachable,
                "host_unreachable" => IcmpKind::HostUnreachable,
                "protocol_unreachable" => IcmpKind::ProtocolUnreachable,
                "port_unreachable" => IcmpKind::PortUnreachable,
                "prohibited" => IcmpKind::Prohibited,
                "time_exceeded" => IcmpKind::TimeExceeded,
                "parameter_problem" => IcmpKind::ParameterProblem,
                _ => return Err(bad()),
            };
            (error, rest)
        }
        [] => return Err(bad()),
    };
    match *rest {
        ["seq", seq] => Ok(Icmp { error, seq: seq.parse().map_err(|_| bad())? }),
        _ => Err(bad()),
    }
}
