//! What a step says of itself.

use hoststack_transport::Instant;

/// The result of one step of main or of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Whether there was anything to do: if so, step again at once.
    pub worked: bool,
    /// Whether more is likely to follow soon, so that its thread looks for a while before it sleeps. An answer to a question is
    /// no such thing: who asks again has to come by the same core.
    pub lingers: bool,
    /// When there is something to do even if nothing arrives.
    pub next_deadline: Option<Instant>,
    /// The stack was told to stop, and has.
    pub stopped: bool,
}

impl Step {
    /// Nothing to do, now or later.
    pub(crate) const IDLE: Step = Step { worked: false, lingers: false, next_deadline: None, stopped: false };

    /// Two threads' steps as one.
    pub fn and(self, other: Step) -> Step {
        Step {
            worked: self.worked | other.worked,
            lingers: self.lingers | other.lingers,
            next_deadline: Instant::earliest([self.next_deadline, other.next_deadline]),
            stopped: self.stopped & other.stopped,
        }
    }
}
