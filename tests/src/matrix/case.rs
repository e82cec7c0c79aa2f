//! One case, from attach to the last check.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use hoststack_transport::Instant;

use super::check::{self, Outcome};
use super::events::{Burst, Event, Side};
use super::world::{Broken, World};

/// Which case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Who connects.
    pub side: Side,
    /// Workers of the host.
    pub workers: usize,
    /// The first event.
    pub a: Event,
    /// Its boundary.
    pub i: usize,
    /// The second event.
    pub b: Event,
    /// Its boundary, not before the first's.
    pub j: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { side, workers, a, i, b, j } = self;
        write!(f, "{} {workers} {a}@{i} {b}@{j}", side.name())
    }
}

impl Case {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Case> {
        let mut words = text.split_whitespace();
        let side = [Side::Connect, Side::Accept]
            .into_iter()
            .find(|side| words.clone().next() == Some(side.name()))?;
        words.next();
        let workers = words.next()?.parse().ok()?;
        let mut event = || {
            let (name, at) = words.next()?.split_once('@')?;
            let event = *side.events().iter().find(|event| event.name() == name)?;
            Some((event, at.parse::<usize>().ok()?))
        };
        let ((a, i), (b, j)) = (event()?, event()?);
        Some(Case { side, workers, a, i, b, j })
    }

    /// Runs the case.
    pub fn run(&self) -> Run {
        // An assertion of the product is a finding like any other: it must not end the whole matrix.
        match catch_unwind(AssertUnwindSafe(|| self.run_in(false))) {
            Ok((run, _)) => run,
            Err(panic) => Run::Broken(format!("panicked: {}", words_of(&*panic))),
        }
    }

    /// Runs it and says what happened, line by line.
    pub fn trace(&self) -> Vec<String> {
        match catch_unwind(AssertUnwindSafe(|| self.run_in(true))) {
            Ok((run, mut trace)) => {
                trace.push(format!("{run:?}"));
                trace
            }
            Err(panic) => vec![format!("panicked: {}", words_of(&*panic))],
        }
    }

    fn run_in(&self, traced: bool) -> (Run, Vec<String>) {
        let batches = if self.has(Event::CommandsFull) || self.has(Event::ReportsFull) { 1 } else { 4 };
        let port = match self.side {
            Side::Connect => 0,
            Side::Accept => peer_port(self.workers),
        };
        let mut world = World::new(self.side, self.workers, batches, port, traced);
        world.peer.answers = !self.a.is_answer() && !self.b.is_answer();
        let run = match self.play(&mut world) {
            Ok(run) => run,
            Err(Broken(words)) => Run::Broken(words),
        };
        (run, world.peer.trace.take().unwrap_or_default())
    }

    fn has(&self, event: Event) -> bool {
        self.a == event || self.b == event
    }

    fn play(&self, world: &mut World) -> Result<Run, Broken> {
        // A SYN that comes after an answer is an old one: there was another before.
        let peer_opens = !self.a.is_syn() && (!self.b.is_syn() || self.a.is_answer());
        let mut boundary = 0;
        loop {
            if boundary == self.i && !world.fire(self.a)? {
                return Ok(Run::NoSense { first: true });
            }
            if boundary == self.j {
                if !world.fire(self.b)? {
                    return Ok(Run::NoSense { first: false });
                }
                if boundary == 0 {
                    world.begin(peer_opens)?;
                }
                break;
            }
            if boundary == 0 {
                world.begin(peer_opens)?;
            } else if !world.take_turn()? {
                return Ok(Run::Beyond { first: boundary < self.i });
            }
            boundary += 1;
        }
        check::finish(world).map(Run::Ended)
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()))
        .unwrap_or_else(|| "in other words".to_owned())
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// It ended as it should.
    Ended(Outcome),
    /// Something that must hold did not.
    Broken(String),
    /// The event makes no sense at its boundary.
    NoSense {
        /// It is a.
        first: bool,
    },
    /// There is no such boundary: everyone sleeps before.
    Beyond {
        /// It is a's.
        first: bool,
    },
}

/// A port of the peer whose connection falls to the last worker.
fn peer_port(workers: usize) -> u16 {
    static PORTS: [OnceLock<u16>; 8] = [const { OnceLock::new() }; 8];
    *PORTS[workers].get_or_init(|| {
        let falls_to_last = |&port: &u16| {
            let mut world = World::new(Side::Accept, workers, 4, port, false);
            world.peer.act(Instant::from_millis(2), Burst::Syn);
            let settled = world.settle();
            settled.is_ok() && world.peer.last_queue == Some(workers - 1)
        };
        (40_000..41_000).find(falls_to_last).expect("one port in so many falls to the last worker")
    })
}
