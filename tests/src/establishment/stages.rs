//! Two stages of the test's own: one that greets as TLS does, one that asks and is answered as SOCKS does.
//!
//! Both write a request, wait for an answer of three bytes, and write a closing word. What they write is the same
//! however the answer comes, so that the wire of all ways to be done is the same.

use hoststack::app::{Answer, Stage, StageCause, StageIo, StagePlan, Want};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Two flights, as a TLS handshake.
    Hello,
    /// A request and its answer, as to a SOCKS server.
    Socks,
}

impl Kind {
    /// What errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Socks => "socks",
        }
    }

    /// What it writes first.
    pub const fn request(self) -> &'static [u8] {
        match self {
            Kind::Hello => b"<hello>",
            Kind::Socks => b"<ask>",
        }
    }

    /// The answer that it wants.
    pub const fn answer(self) -> &'static [u8] {
        match self {
            Kind::Hello => b"<H>",
            Kind::Socks => b"<S>",
        }
    }

    /// What it writes when it has its answer.
    pub const fn last(self) -> &'static [u8] {
        match self {
            Kind::Hello => b"<fin>",
            Kind::Socks => b"",
        }
    }

    /// What the failure of a wrong answer says.
    pub const MALFORMED: StageCause = StageCause::Malformed("not the answer");
}

/// What makes them.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which.
    pub kind: Kind,
    /// Whether it waits for an answer at all.
    pub waits: bool,
}

impl StagePlan for Plan {
    fn stage(&self) -> Box<dyn Stage> {
        Box::new(Running { plan: *self, has_asked: false, has_answer: !self.waits })
    }
}

#[derive(Debug)]
struct Running {
    plan: Plan,
    has_asked: bool,
    has_answer: bool,
}

impl Stage for Running {
    fn name(&self) -> &'static str {
        self.plan.kind.name()
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        let kind = self.plan.kind;
        if !self.has_asked {
            if !io.write_all(kind.request()) {
                return Answer::Wants(Want::Write);
            }
            self.has_asked = true;
        }
        if !self.has_answer {
            let mut answer = [0; 3];
            let count = io.copy(&mut answer);
            if !kind.answer().starts_with(&answer[..count]) {
                return Answer::Failed(Kind::MALFORMED);
            }
            if count < answer.len() {
                return Answer::Wants(Want::Read);
            }
            io.consume(count);
            self.has_answer = true;
        }
        if io.write_all(kind.last()) { Answer::Done } else { Answer::Wants(Want::Write) }
    }
}
