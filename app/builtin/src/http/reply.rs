//! Who answers, and how an answer finds its way back.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use hoststack_app::{AppWorkerId, SessionHandle, WorkerId};

use super::request::Request;
use super::response::Response;

/// What knows the answers.
pub trait Responder: Send + Sync {
    /// Answers `request` through `reply`, now or later, on this thread or another. Called on the worker that owns the
    /// session: it must not wait.
    fn respond(&self, request: Request, reply: Reply);
}

/// Brings a message to an app worker's object on a worker, as `StackHandle::notify` does. Any closure of that form is one. It
/// must not wait, and it need not succeed: an app worker that is gone has no session to answer on.
pub trait Post: Send + Sync {
    /// Sends `message`.
    fn post(&self, app_worker: AppWorkerId, worker: WorkerId, message: Box<dyn Any + Send>);
}

impl<F: Fn(AppWorkerId, WorkerId, Box<dyn Any + Send>) + Send + Sync> Post for F {
    fn post(&self, app_worker: AppWorkerId, worker: WorkerId, message: Box<dyn Any + Send>) {
        self(app_worker, worker, message);
    }
}

/// An answer on its way to its session.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) session: SessionHandle,
    pub(super) response: Response,
}

/// The right to answer one request, once. Dropped without an answer it sends a 500: no client waits for nothing.
#[must_use = "dropped, it answers with a 500"]
pub struct Reply {
    session: SessionHandle,
    app_worker: AppWorkerId,
    worker: WorkerId,
    /// Taken by the answer.
    post: Option<Arc<dyn Post>>,
}

impl Reply {
    pub(super) fn new(
        session: SessionHandle,
        app_worker: AppWorkerId,
        worker: WorkerId,
        post: Arc<dyn Post>,
    ) -> Reply {
        Reply { session, app_worker, worker, post: Some(post) }
    }

    /// Answers. A client that has left meanwhile does not hear it.
    pub fn send(mut self, response: Response) {
        self.answer(response);
    }

    fn answer(&mut self, response: Response) {
        if let Some(post) = self.post.take() {
            let message = Box::new(Answered { session: self.session, response });
            post.post(self.app_worker, self.worker, message);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Response::plain(500, "nobody answered this request\n"));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("session", &self.session).finish_non_exhaustive()
    }
}
