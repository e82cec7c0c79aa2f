//! What the status server asks the stack: all use of the stack's questions is here.

use std::time::Duration;

use hoststack::app::SessionHandle;
use hoststack::inspect::{ChannelInfo, SessionInfo, SessionQuery};
use hoststack::{Answer, Query, StackHandle, Stopped, Waiting};

use crate::ctl::{read_filter, read_handle};

/// How long the stack may take to answer for its figures: a worker that does not step for so long is not well.
const FIGURES_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take to walk its sessions.
const WALK_LIMIT: Duration = Duration::from_secs(3);
/// Sessions of a page.
const PAGE: usize = 100;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There never will be one.
    Stopped,
    /// It did not come in time.
    Late,
}

impl Trouble {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Trouble::Stopped => "the stack has stopped\n",
            Trouble::Late => {
                "the stack does not answer: one of its workers, or main, hangs or is overloaded\n"
            }
        }
    }
}

/// A page of the list of sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionPage {
    pub(super) sessions: Vec<SessionInfo>,
    /// There are more: those after the one of this number.
    pub(super) next: Option<u64>,
}

/// The stack, asked one question at a time.
#[derive(Debug)]
pub(super) struct Source {
    stack: StackHandle,
    /// A question that was not answered in time. No other is asked before it is: a stack that hangs is not sent more.
    late: Option<Waiting<Result<Answer, Stopped>>>,
}

impl Source {
    pub(super) fn new(stack: StackHandle) -> Source {
        Source { stack, late: None }
    }

    /// Figures of workers, main and apps.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn figures(&mut self) -> Result<Answer, Trouble> {
        self.ask(Query::Status, FIGURES_LIMIT)
    }

    /// The same with histograms.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn histograms(&mut self) -> Result<Answer, Trouble> {
        self.ask(Query::Histograms, FIGURES_LIMIT)
    }

    /// The same, and the `limit` slowest sessions.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn overview(&mut self, limit: usize) -> Result<Answer, Trouble> {
        let sessions = self.ask(Query::slowest(limit), WALK_LIMIT)?.sessions;
        Ok(Answer { sessions, ..self.histograms()? })
    }

    /// The same, counted since the stack began: what a console cleared is nothing to who keeps books on it.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn totals(&mut self) -> Result<Answer, Trouble> {
        self.ask(Query::Totals, FIGURES_LIMIT)
    }

    /// The channels between threads.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn channels(&mut self) -> Result<Vec<ChannelInfo>, Trouble> {
        Ok(self.ask(Query::Channels, FIGURES_LIMIT)?.channels)
    }

    /// Sessions that fit `filter`, which is what `show session` takes; those after the one of the number `after`.
    ///
    /// # Errors
    /// The stack does not answer. A filter that is none is the inner error.
    pub(super) fn sessions(
        &mut self,
        filter: &str,
        after: Option<u64>,
    ) -> Result<Result<SessionPage, String>, Trouble> {
        let filter = match read_filter(filter) {
            Ok(filter) => filter,
            Err(error) => return Ok(Err(error)),
        };
        let after = after.map(SessionHandle::from_u64);
        let query = SessionQuery { filter, after, limit: PAGE, ..SessionQuery::default() };
        let answer = self.ask(Query::Sessions(Box::new(query)), WALK_LIMIT)?;
        let next = answer.sessions_next.map(SessionHandle::as_u64);
        Ok(Ok(SessionPage { sessions: answer.sessions, next }))
    }

    /// A session with every layer, by its handle as it is written.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(super) fn session(&mut self, handle: &str) -> Result<Option<SessionInfo>, Trouble> {
        let Some(handle) = read_handle(handle) else { return Ok(None) };
        Ok(self.ask(Query::Session(handle), FIGURES_LIMIT)?.sessions.pop())
    }

    fn ask(&mut self, query: Query, limit: Duration) -> Result<Answer, Trouble> {
        if let Some(mut late) = self.late.take()
            && late.wait_for(limit).is_none()
        {
            self.late = Some(late);
            return Err(Trouble::Late);
        }
        let mut waiting = self.stack.requests().inspect(query);
        match waiting.wait_for(limit) {
            Some(answer) => answer.map_err(|Stopped| Trouble::Stopped),
            None => {
                self.late = Some(waiting);
                Err(Trouble::Late)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};
    use hoststack::Stack;
    use hoststack::app::{AppWorker, Application, AttachOptions, Context, WorkerId};

    /// Keeps its worker in a callback until the channel is closed.
    struct Hangs(Receiver<()>);

    impl Application for Hangs {
        fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
            Box::new(Hangs(self.0.clone()))
        }
    }

    impl AppWorker for Hangs {
        fn attached(&mut self, _ctx: &mut Context<'_>) {
            let _ = self.0.recv();
        }
    }

    #[test]
    fn a_worker_that_hangs_is_noticed_and_so_is_its_recovery_and_the_end() {
        let stack = Stack::builder().workers(1).start().unwrap();
        let (release, hangs) = unbounded();
        let mut source = Source::new(stack.handle());
        assert!(source.figures().is_ok() && source.late.is_none());
        let _ = stack.handle().attach(Hangs(hangs), AttachOptions::named("hangs")).unwrap();
        let brief = Duration::from_millis(20);
        // The question may overtake the object on its way to the worker once.
        while source.ask(Query::Summary, brief).is_ok() {}
        assert_eq!(source.ask(Query::Summary, brief).unwrap_err(), Trouble::Late);
        assert!(source.late.is_some(), "the question still waits, and no other is asked");
        drop(release);
        while source.figures().is_err() {}
        assert!(source.late.is_none());
        drop(stack);
        assert_eq!(source.figures().unwrap_err(), Trouble::Stopped);
    }
}
