//! What each statement means.

use std::collections::BTreeMap;

use hoststack::app::{ConnectId, ConnectOptions, Duration, ListenOptions};
use hoststack::tcp::{Counters, DropReason};
use hoststack_wire::{Flags, NotedSegment};

use super::Failure;
use super::app::Event;
use super::grammar::{Act, Expected, Script, Statement, Want, What, When};
use super::settings::Setup;
use super::world::{SERVICE_PORT, Sent, World, byte_at, bytes_at};

/// Runs a script; the log of what happened.
///
/// # Errors
/// The first statement that was not met, or what was left at the end.
pub fn run(script: &Script) -> Result<Vec<String>, Failure> {
    let world = World::new(&script.setup).map_err(|words| Failure { line: 0, words, log: Vec::new() })?;
    let mut run = Run { world, setup: &script.setup, cursor_us: 0, written: 0, read: 0, connect: None };
    for statement in &script.statements {
        run.take(statement).map_err(|words| run.failure(statement.line, words))?;
    }
    run.is_quiet().map_err(|words| run.failure(0, words))?;
    if let Some((at_us, event)) = run.world.take_event() {
        return Err(run.failure(0, format!("`{event}` at {} was not announced", seconds(at_us))));
    }
    let log = run.world.log.clone();
    let end = run.world.end();
    end.map(|()| log.clone()).map_err(|left| Failure {
        line: 0,
        words: format!("the stack holds something at the end: {left}"),
        log,
    })
}

struct Run<'a> {
    world: World,
    setup: &'a Setup,
    /// When the last statement happened.
    cursor_us: u64,
    /// Bytes that the app wrote to its session.
    written: u64,
    /// Bytes that it read.
    read: u64,
    connect: Option<ConnectId>,
}

/// Cannot cut: a script lasts hours.
fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

impl Run<'_> {
    fn failure(&self, line: usize, words: String) -> Failure {
        Failure { line, words, log: self.world.log.clone() }
    }

    fn window(&self, when: When) -> (u64, u64) {
        let from = if when.is_absolute { 0 } else { self.cursor_us };
        (from + micros(when.from), from + micros(when.to))
    }

    fn take(&mut self, statement: &Statement) -> Result<(), String> {
        let (from_us, to_us) = self.window(statement.when);
        if from_us < self.world.now_us() && !statement.what.is_awaited() {
            // What was awaited may have come a little late.
            let late = self.world.now_us() - from_us;
            if late > micros(self.setup.tolerance) {
                return Err(format!("it is too late for this, by {late} us"));
            }
        }
        let result = match &statement.what {
            What::Out(expected) => self.awaits_segment(expected, from_us, to_us),
            What::Event(event) => self.awaits_event(*event, from_us, to_us),
            what => {
                self.world.run_to(from_us.max(self.world.now_us()));
                self.cursor_us = from_us;
                if !statement.is_burst && what.is_done_by_the_script() {
                    self.is_quiet()?;
                }
                self.look_or_do(what)
            }
        };
        match self.world.wrong.take() {
            Some(wrong) => Err(format!("the stack sent {wrong}")),
            None => result,
        }
    }

    fn look_or_do(&mut self, what: &What) -> Result<(), String> {
        match what {
            What::In { segment, has_options, ecn } => {
                self.world.send(segment, *has_options, *ecn);
                self.world.settle();
                Ok(())
            }
            What::InIcmp(icmp) => {
                self.world.send_icmp(icmp);
                self.world.settle();
                Ok(())
            }
            What::Act(act) => self.act(*act),
            What::Readable(bytes) => self.readable(*bytes),
            What::UrgentLeft(bytes) => self.urgent_left(*bytes),
            What::State(state) => self.state(state),
            What::Stats(wants) => self.stats(wants),
            What::Counts(wants) => self.counts(wants),
            What::Nothing(time) => {
                self.is_quiet()?;
                self.cursor_us += micros(*time);
                self.world.run_to(self.cursor_us);
                self.is_quiet()?;
                match self.world.take_event() {
                    Some((at_us, event)) => Err(format!("`{event}` came at {}", seconds(at_us))),
                    None => Ok(()),
                }
            }
            What::PeerIsn(by) => {
                self.world.move_peer_isn(*by);
                Ok(())
            }
            What::PeerPort(port) => {
                self.world.ports.1 = *port;
                Ok(())
            }
            What::Out(_) | What::Event(_) => unreachable!("what is awaited is not done"),
        }
    }

    /// That the stack has sent nothing which no statement took.
    fn is_quiet(&self) -> Result<(), String> {
        match self.world.sent.front() {
            Some(sent) => Err(format!("not announced: at {} > {}", seconds(sent.at_us), sent.noted)),
            None => Ok(()),
        }
    }

    // ---- What is awaited ----

    fn awaits_segment(&mut self, expected: &Expected, from_us: u64, to_us: u64) -> Result<(), String> {
        let tolerance_us = micros(self.setup.tolerance);
        let wanted = || format!("> {} {}", expected.text, at(from_us, to_us));
        loop {
            if let Some(sent) = self.world.sent.pop_front() {
                let came = format!("came > {} at {}", sent.noted, seconds(sent.at_us));
                if sent.at_us + tolerance_us < from_us || sent.at_us > to_us + tolerance_us {
                    return Err(format!("expected {}; {came}", wanted()));
                }
                if let Err(field) = matches(expected, &sent) {
                    return Err(format!("expected {}; {came}: {field}", wanted()));
                }
                self.cursor_us = if from_us == to_us { from_us } else { sent.at_us };
                return Ok(());
            }
            if self.world.now_us() >= to_us + tolerance_us {
                return Err(format!("expected {}; nothing came", wanted()));
            }
            self.world.hop(to_us + tolerance_us);
        }
    }

    fn awaits_event(&mut self, event: Event, from_us: u64, to_us: u64) -> Result<(), String> {
        let tolerance_us = micros(self.setup.tolerance);
        loop {
            if let Some((at_us, came)) = self.world.take_event() {
                if came != event || at_us + tolerance_us < from_us || at_us > to_us + tolerance_us {
                    return Err(format!(
                        "expected `{event}` {}; came `{came}` at {}",
                        at(from_us, to_us),
                        seconds(at_us)
                    ));
                }
                if matches!(event, Event::Accepted | Event::Connected) {
                    (self.written, self.read) = (0, 0);
                }
                self.cursor_us = if from_us == to_us { from_us } else { at_us };
                return Ok(());
            }
            if self.world.now_us() >= to_us + tolerance_us {
                return Err(format!("expected `{event}` {}; nothing came", at(from_us, to_us)));
            }
            self.world.hop(to_us + tolerance_us);
        }
    }

    // ---- What the app does ----

    fn act(&mut self, act: Act) -> Result<(), String> {
        self.world.say(&format!("  app: {act:?}"));
        match act {
            Act::Listen => {
                let options = ListenOptions {
                    backlog: self.setup.backlog,
                    fifos: self.setup.fifos,
                    socket: self.setup.socket,
                    ..ListenOptions::on(self.world.local())
                };
                self.world.within(move |ctx| ctx.listen(options)).map_err(|error| error.to_string())?;
                self.world.settle();
                match self.world.notes.0.lock().listen_error.take() {
                    Some(error) => Err(error.to_string()),
                    None => Ok(()),
                }
            }
            Act::Unlisten => {
                let listener = self.world.notes.0.lock().listener.take().ok_or("nothing listens")?;
                self.world.within(move |ctx| ctx.unlisten(listener));
                Ok(())
            }
            Act::Connect => {
                let options = ConnectOptions {
                    timeout: self.setup.connect_timeout,
                    fifos: self.setup.fifos,
                    socket: self.setup.socket,
                    ..ConnectOptions::to(self.world.peer())
                };
                self.world.ports.1 = SERVICE_PORT;
                let connect = self.world.within(move |ctx| ctx.connect(options));
                self.connect = Some(connect.map_err(|error| error.to_string())?);
                self.world.settle();
                Ok(())
            }
            Act::Cancel => {
                let connect = self.connect.take().ok_or("nothing was connected")?;
                self.world.within(move |ctx| ctx.cancel(connect));
                Ok(())
            }
            Act::Write(bytes, takes) => {
                let data = bytes_at(self.written, bytes);
                let taken = self.world.with_session(move |ctx, session| ctx.write(session, &data))?;
                self.written += taken as u64;
                if taken == takes { Ok(()) } else { Err(format!("{taken} bytes were taken")) }
            }
            Act::WriteUrgent(bytes) => {
                let data = bytes_at(self.written, bytes);
                let taken = self.world.with_session(move |ctx, session| ctx.write_urgent(session, &data))?;
                self.written += taken as u64;
                if taken == bytes { Ok(()) } else { Err(format!("{taken} bytes were taken")) }
            }
            Act::Read(bytes) => {
                let read = self.world.with_session(move |ctx, session| {
                    let mut data = vec![0; bytes.unwrap_or_else(|| ctx.rx_len(session))];
                    let count = ctx.read(session, &mut data);
                    data.truncate(count);
                    data
                })?;
                let is_right = read.iter().zip(self.read..).all(|(&byte, offset)| byte == byte_at(offset));
                self.read += read.len() as u64;
                match bytes {
                    _ if !is_right => Err("other bytes were read than were sent".into()),
                    Some(bytes) if bytes != read.len() => Err(format!("{} bytes were read", read.len())),
                    _ => Ok(()),
                }
            }
            Act::Close => self.world.with_session(|ctx, session| ctx.close(session)),
            Act::HalfClose => self.world.with_session(|ctx, session| ctx.half_close(session)),
            Act::Reset => self.world.with_session(|ctx, session| ctx.reset(session)),
            Act::Set(option) => self.world.with_session(move |ctx, session| ctx.set_option(session, option)),
        }
    }

    // ---- What is looked at ----

    fn readable(&mut self, bytes: usize) -> Result<(), String> {
        let there = self.world.with_session(|ctx, session| ctx.rx_len(session))?;
        if there == bytes { Ok(()) } else { Err(format!("{there} bytes can be read")) }
    }

    fn urgent_left(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.world.with_session(|ctx, session| ctx.urgent_left(session))?;
        if left == bytes { Ok(()) } else { Err(format!("{left} bytes are urgent")) }
    }

    fn state(&mut self, wanted: &str) -> Result<(), String> {
        let answer = self.world.ask();
        let worker = &answer.workers[0];
        let state = match answer.sessions.first() {
            Some(session) => variables(&session.variables()).remove("state").unwrap_or_default(),
            None if worker.syn_received > 0 => "SYN-RECEIVED".into(),
            None if answer.main.half_open_connections > 0 => "SYN-SENT".into(),
            None if answer.time_wait > 0 => "TIME-WAIT".into(),
            None if worker.listeners > 0 => "LISTEN".into(),
            None => "CLOSED".into(),
        };
        if state == wanted { Ok(()) } else { Err(format!("the state is {state}")) }
    }

    fn stats(&mut self, wants: &[(String, Want)]) -> Result<(), String> {
        let stats = self.world.with_session(|ctx, session| ctx.stats(session))?;
        // Every field, by its name, as its `Debug` writes it.
        let text = format!("{:?}", stats.map_err(|error| error.to_string())?);
        let fields = text.split_once('{').map_or("", |(_, fields)| fields.trim_end_matches([' ', '}']));
        let fields = fields.split(", ").filter_map(|field| field.trim().split_once(": "));
        let mut known: BTreeMap<String, String> =
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        // What the stack tells the CLI goes before: the state of recovery is a word there.
        if let Some(session) = self.world.ask().sessions.first() {
            known.extend(variables(&session.variables()));
        }
        compare(wants, |name| known.get(name).cloned())
    }

    fn counts(&mut self, wants: &[(String, Want)]) -> Result<(), String> {
        let answer = self.world.ask();
        let worker = &answer.workers[0];
        compare(wants, |name| {
            let is_known = Counters::default().iter().any(|(known, _)| known == name)
                || DropReason::ALL.iter().any(|reason| reason.name() == name);
            let counter = worker.tcp.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
            let drops = worker.drops.iter().find(|drop| drop.reason == name).map(|drop| drop.count);
            is_known.then(|| counter.or(drops).unwrap_or(0).to_string())
        })
    }
}

impl What {
    /// Whether the stack does it, so that it is waited for.
    fn is_awaited(&self) -> bool {
        matches!(self, What::Out(_) | What::Event(_))
    }

    /// Whether it makes something happen, so that nothing may be left from before.
    fn is_done_by_the_script(&self) -> bool {
        matches!(self, What::In { .. } | What::InIcmp(_) | What::Act(_))
    }
}

fn at(from_us: u64, to_us: u64) -> String {
    if from_us == to_us {
        format!("at {}", seconds(from_us))
    } else {
        format!("between {} and {}", seconds(from_us), seconds(to_us))
    }
}

/// The words `name=value` of a connection's description.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn compare(wants: &[(String, Want)], value: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (name, want) in wants {
        match value(name) {
            None => return Err(format!("nothing is called {name}")),
            Some(value) if !want.is_met_by(&value) => wrong.push(format!("{name} is {value}")),
            Some(_) => {}
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
}

/// Whether a segment is as was expected, in all that was written; else which field is not.
pub(crate) fn matches(expected: &Expected, sent: &Sent) -> Result<(), &'static str> {
    let Expected { text: _, segment: wanted, has_flags, has_range, has_options, has_sack, ecn } = expected;
    let NotedSegment { flags, seq, end, ack, win, urgent, options } = sent.noted;
    let are_right = if *has_flags {
        flags == wanted.flags
    } else {
        flags == Flags::ACK || flags == Flags::ACK | Flags::PSH
    };
    if !are_right {
        return Err("other flags");
    }
    if *has_range && (seq, end) != (wanted.seq, wanted.end) {
        return Err("another range");
    }
    if wanted.ack.is_some() && ack != wanted.ack {
        return Err("another acknowledgment");
    }
    if wanted.win.is_some() && win != wanted.win {
        return Err("another window");
    }
    if wanted.flags.has(Flags::URG) && urgent != wanted.urgent {
        return Err("another urgent pointer");
    }
    if *has_sack && options.sack != wanted.options.sack {
        return Err("other SACK blocks");
    }
    if *has_options {
        let mut options = options;
        // On a SYN all options count; later segments carry timestamps by the way.
        if wanted.options.timestamps.is_none() && !flags.has(Flags::SYN) {
            options.timestamps = None;
        }
        if options != wanted.options {
            return Err("other options");
        }
    }
    if ecn.is_some_and(|ecn| ecn != sent.ecn) {
        return Err("another mark");
    }
    Ok(())
}
