//! A stack over the machine's sockets on a time that the test moves, and what runs one cell in it.
//!
//! As long as anybody has anything to do the time stands still. When nobody has, it may be moved a little, for whoever
//! waits on purpose; to the connect's deadline it is moved only after the machine has been silent for `World::quiet` of
//! real time. What comes after that comes by the deadline alone.

use std::sync::Arc;

use hoststack::app::{
    Address, AttachError, AttachOptions, Duration, Instant, ListenError, ListenOptions, WorkerId,
};
use hoststack::{Attached, BuildError, Query, SingleThreaded, StackConfig};

use super::apps::{Actor, Book, FREE, Part, Places, Told};
use super::cell::{ATTEMPT, Cell, Consumer, STAGE, Stack, Verdict, Via};
use super::host::{Injecting, Strikes};
use crate::wait::Stopwatch;

/// Steps that a cell may take: more are a loop.
const STEPS_MAX: u32 = 100_000;
/// Looks at what is left when a cell is over.
const LOOKS_MAX: u32 = 2_000;
/// A slice of waiting for the machine.
const SLICE: Duration = Duration::from_millis(5);

/// Why a world cannot be made.
#[derive(Debug)]
pub struct Unmade(String);

impl std::fmt::Display for Unmade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unmade {}

macro_rules! unmade_by {
    ($($error:ty),*) => {
        $(impl From<$error> for Unmade {
            fn from(error: $error) -> Unmade {
                Unmade(error.to_string())
            }
        })*
    };
}
unmade_by!(BuildError, AttachError, ListenError, std::io::Error);

/// How a run of a cell came out.
#[derive(Clone, Debug)]
pub struct Run {
    /// The word.
    pub verdict: Verdict,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// How often the meddler struck.
    pub strikes: Strikes,
}

/// A stack with a server, a proxy and whoever asks, for cells of one transport.
pub struct World {
    stack: SingleThreaded,
    host: Injecting,
    book: Book,
    asker: Attached,
    proxy: Attached,
    /// Where the server listens: without stages, with the ones that receive a header.
    backs: [Address; Stack::LISTENERS.len()],
    front: Address,
    /// Sockets that listen.
    sockets: usize,
    quiet: std::time::Duration,
    _dir: tempfile::TempDir,
}

/// The opaque value of the proxy's listener.
const FRONT: u64 = 100;

impl World {
    /// One for cells over `via`. `quiet` is how long the machine must have nothing to say before a deadline is let pass.
    ///
    /// # Errors
    /// The machine would not, or the stack.
    pub fn new(via: Via, quiet: std::time::Duration) -> Result<World, Unmade> {
        let host = Injecting::default();
        let config = StackConfig { workers: 2, seed: Some(7), ..StackConfig::default() };
        let builder = hoststack::Stack::builder().config(config).host(Arc::new(host.clone()));
        let mut stack = hoststack::Stack::single_threaded(builder)?;
        stack.use_virtual_time_from(Instant::ZERO);
        let dir = tempfile::tempdir()?;
        let (book, places) = (Book::default(), Places::default());
        let mut attach = |part: Part| {
            let actor = Actor { part, book: book.clone(), places: places.clone() };
            stack.attach(actor, AttachOptions::named(part.name()))
        };
        let (server, proxy, asker) = (attach(Part::Server)?, attach(Part::Proxy)?, attach(Part::Asker)?);
        let at = |name: &str| match via {
            Via::Tcp4 => "kernel+tcp://127.0.0.1:0".to_owned(),
            Via::Tcp6 => "kernel+tcp://[::1]:0".to_owned(),
            Via::Unix => format!("kernel+unix://{}", dir.path().join(name).display()),
        };
        let address = |text: String| text.parse::<Address>().map_err(|error| Unmade(error.to_string()));
        for (opaque, stages) in Stack::LISTENERS.into_iter().enumerate() {
            let options = ListenOptions {
                stages: stages.receiving(),
                stage_timeout: STAGE,
                opaque: opaque as u64, // widens
                ..ListenOptions::on(address(at(stages.name()))?)
            };
            stack.listen(server.app_workers[0], options)?;
        }
        let front = address("local://front".to_owned())?;
        stack.listen(
            proxy.app_workers[0],
            ListenOptions { opaque: FRONT, ..ListenOptions::on(front.clone()) },
        )?;
        let place = |opaque| {
            places
                .lock()
                .get(&opaque)
                .cloned()
                .ok_or_else(|| Unmade("nobody said where it listens".to_owned()))
        };
        let backs = [place(0)?, place(1)?, place(2)?, place(3)?];
        let sockets = host.open_sockets();
        Ok(World { stack, host, book, asker, proxy, backs, front, sockets, quiet, _dir: dir })
    }

    /// Runs a cell. After anything but [`Verdict::Ok`] the world is of no more use.
    pub fn run(&mut self, cell: Cell) -> Run {
        self.host.set(cell.script);
        let back = self.backs[cell.stack.listener()].clone();
        *self.book.lock() = Some(Told::new(cell, back, self.front.clone()));
        let start = self.stack.now();
        for app_worker in [self.proxy.app_workers[0], self.asker.app_workers[0]] {
            if self.stack.notify(app_worker, WorkerId(0), Box::new(())).is_err() {
                return self.end(start, Some("the stack has stopped".to_owned()));
            }
        }
        let trouble = self.drive(start);
        self.end(start, trouble)
    }

    /// Steps until the cell is over, or nothing can come any more. Says what must not be.
    fn drive(&mut self, start: Instant) -> Option<String> {
        let end = start + STAGE.saturating_mul(2);
        let mut silence = Stopwatch::start();
        for _ in 0..STEPS_MAX {
            let step = self.stack.step();
            if self.book.lock().as_ref().is_some_and(Told::is_over) {
                return None;
            }
            if step.worked {
                silence = Stopwatch::start();
                continue;
            }
            match step.next_deadline.filter(|deadline| *deadline <= start + FREE) {
                Some(near) => {
                    self.stack.advance_to_deadline(near);
                }
                None if silence.elapsed() < self.quiet => self.stack.idle_wait(SLICE),
                None if self.stack.now() >= end => return None,
                None => {
                    self.stack.advance_to_deadline(end);
                    silence = Stopwatch::start();
                }
            }
        }
        Some(format!("busy for {STEPS_MAX} steps"))
    }

    /// What is still held; nothing, if all is as it was before.
    fn left(&mut self) -> Option<String> {
        let mut words = String::new();
        for _ in 0..LOOKS_MAX {
            let Ok(answer) = self.stack.inspect(Query::Summary) else {
                return Some("the stack has stopped".to_owned());
            };
            let sockets = self.host.open_sockets();
            if answer.leaks.is_clean() && sockets == self.sockets {
                self.stack.check_consistency();
                return None;
            }
            words = format!("{:?}, {} sockets more", answer.leaks, sockets as i64 - self.sockets as i64);
            self.stack.idle_wait(Duration::from_millis(1));
        }
        Some(format!("left: {words}"))
    }

    fn end(&mut self, start: Instant, trouble: Option<String>) -> Run {
        let strikes = self.host.strikes();
        let is_over = self.book.lock().as_ref().is_some_and(Told::is_over);
        let left = if is_over { self.left() } else { None };
        let Some(told) = self.book.lock().take() else {
            return Run { verdict: Verdict::Hang, trace: Vec::new(), strikes };
        };
        let verdict = match trouble {
            Some(words) => Verdict::Wrong(words),
            None => judge(&told, start, is_over, left),
        };
        Run { verdict, trace: told.trace, strikes }
    }
}

/// The word for what was told.
fn judge(told: &Told, start: Instant, is_over: bool, left: Option<String>) -> Verdict {
    let workload = told.cell.workload;
    let wrong = |words: String| Verdict::Wrong(words);
    if told.outcomes.len() > 1 {
        return wrong(format!("{} outcomes", told.outcomes.len()));
    }
    if !workload.asked().starts_with(&told.asked) || !workload.answered().starts_with(&told.answered) {
        return wrong("other bytes came than were sent".to_owned());
    }
    if told.accepted.contains(&false) {
        return wrong("the header does not say what was sent".to_owned());
    }
    let is_check = told.cell.consumer == Consumer::Check;
    let success = if is_check { told.check.filter(|check| check.1).map(|(at, _)| at) } else { told.got_at };
    let in_time = success.map(|at| at < start + ATTEMPT);
    match in_time {
        None if is_check => return Verdict::TimedOut,
        None => return Verdict::Hang,
        Some(false) if is_check => return Verdict::FalseOk,
        Some(false) => return Verdict::Late,
        Some(true) => {}
    }
    if let Some(words) = left {
        return wrong(words);
    }
    let is_whole = told.asked == workload.asked() && told.answered == workload.answered();
    let is_once = told.outcomes.len() == 1 && told.cleaned == 1 && told.accepted.len() == 1;
    if !is_over || !is_once || !told.not_accepted.is_empty() {
        return wrong(format!(
            "{} outcomes, {} cleaned, {} accepted, {} not accepted, {} sessions open",
            told.outcomes.len(),
            told.cleaned,
            told.accepted.len(),
            told.not_accepted.len(),
            told.open
        ));
    }
    if is_whole { Verdict::Ok } else { wrong("bytes are missing".to_owned()) }
}

#[cfg(test)]
mod tests {
    use hoststack::app::{ConnectFailure, SessionHandle};

    use super::*;
    use crate::injection::cell::{ANSWER, REQUEST};

    fn told(name: &str) -> Told {
        let cell = Cell::parse(name).expect("a cell");
        let nowhere: Address = "local://nowhere".parse().expect("an address");
        Told::new(cell, nowhere.clone(), nowhere)
    }

    fn right(name: &str, at: Instant) -> Told {
        let mut told = told(name);
        told.outcomes.push((at, Ok(SessionHandle::from_u64(1))));
        told.got_at = Some(at);
        told.cleaned = 1;
        told.accepted.push(true);
        told.asked = REQUEST.to_vec();
        told.answered = ANSWER.to_vec();
        told
    }

    /// Each word of the table, from what is told alone.
    #[test]
    fn every_word_can_come_out() {
        let (start, soon) = (Instant::from_micros(5), Instant::from_micros(9));
        let late = start + ATTEMPT;
        let word = |told: &Told| judge(told, start, told.is_over(), None).name();
        let (script, check) =
            ("tcp now eagain-2 proxy-v1 app script", "tcp now eagain-2 proxy-v1 check script");
        assert_eq!(word(&right(script, soon)), "ok");
        assert_eq!(word(&right(script, late)), "LATE");
        assert_eq!(word(&told(script)), "HANG");
        assert_eq!(word(&told(check)), "TOUT");
        for (at, is_up, expected) in [(soon, true, "ok"), (late, true, "FALSE-OK"), (late, false, "TOUT")] {
            assert_eq!(word(&Told { check: Some((at, is_up)), ..right(check, at) }), expected);
        }
        let wrong: [fn(&mut Told); 8] = [
            |told| told.outcomes.push((Instant::ZERO, Err(ConnectFailure::Refused))),
            |told| told.cleaned = 2,
            |told| told.accepted[0] = false,
            |told| told.accepted.push(true),
            |told| told.not_accepted.push(ConnectFailure::TimedOut),
            |told| told.asked[3] ^= 1,
            |told| told.open = 1,
            |told| {
                told.asked.pop();
            },
        ];
        for (number, spoil) in wrong.into_iter().enumerate() {
            let mut told = right(script, soon);
            spoil(&mut told);
            assert_eq!(word(&told), "WRONG", "number {number}");
        }
        let left = judge(&right(script, soon), start, true, Some("a socket".to_owned()));
        assert_eq!(left, Verdict::Wrong("a socket".to_owned()));
    }
}
