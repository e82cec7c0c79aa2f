//! Where the figures come from: the control socket of a running stack, asked in JSON.
//!
//! A thread of its own asks, so that keys are obeyed while a stack takes its time or has stopped answering.

use std::io;
use std::path::PathBuf;
use std::thread::Builder;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use serde_json::Value;

use super::data::Snapshot;
use crate::clock::Stopwatch;
use crate::ctl::client::Connection;
use crate::ctl::wire::Format;
use crate::error::CliError;

/// Of the slowest sessions, those that are listed.
const SESSIONS: usize = 100;
/// Sessions that are listed while nobody looks at the list.
const SESSIONS_FEW: usize = 20;
/// A question on an old connection that fails sooner than this is asked once more on a new one.
const HUNG_UP_SECONDS: f64 = 1.0;

/// What is looked at, beyond what every look shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// The list of sessions; with this filter of the stack's, when there is one.
    pub(super) sessions: Option<Option<String>>,
    /// All about the session of this handle.
    pub(super) session: Option<String>,
}

/// What came of a look.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The figures; or why there are none: the stack is away.
    pub(super) snapshot: Result<Snapshot, String>,
    /// Why the stack did not take the filter.
    pub(super) filter_refused: Option<String>,
    /// The session that was asked for, or why there is no answer.
    pub(super) session: Option<Result<Value, String>>,
}

/// A stack's control socket. Lost, it is connected to anew with the next question.
pub(super) struct Source {
    socket: PathBuf,
    connection: Option<Connection>,
    clock: Stopwatch,
}

impl Source {
    /// Connects.
    ///
    /// # Errors
    /// When no stack answers there.
    pub(super) fn open(socket: PathBuf) -> Result<Source, CliError> {
        let connection = Some(Connection::open(&socket)?);
        Ok(Source { socket, connection, clock: Stopwatch::start() })
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// [`CliError::Usage`] when the stack refused the command; anything else: it is away.
    fn ask(&mut self, command: &str) -> Result<Value, CliError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.socket)?,
        };
        let answer = connection.ask(Format::Json, command)?;
        // Only a connection that has answered in full is asked again.
        self.connection = Some(connection);
        read_json(&answer.map_err(|text| CliError::usage(text.trim_end()))?)
    }

    /// Looks at the stack.
    pub(super) fn look(&mut self, wants: &Wants) -> Look {
        let mut look = Look { snapshot: Err(String::new()), filter_refused: None, session: None };
        let (was_connected, start) = (self.connection.is_some(), self.clock.seconds());
        let mut gathered = self.gather(wants, &mut look);
        if matches!(gathered, Err(CliError::Failed(_)))
            && was_connected
            && self.clock.seconds() - start < HUNG_UP_SECONDS
        {
            // It hung up since the last look: on a client that was silent for long, or at its end. A new one may be there.
            gathered = self.gather(wants, &mut look);
        }
        match gathered {
            Ok(snapshot) => look.snapshot = Ok(snapshot),
            Err(CliError::Usage(text) | CliError::Failed(text)) => look.snapshot = Err(text),
            Err(CliError::Silent) => {}
        }
        look
    }

    fn gather(&mut self, wants: &Wants, look: &mut Look) -> Result<Snapshot, CliError> {
        let mut snapshot = Snapshot::read(&self.ask("show status")?);
        snapshot.looked_us = self.clock.seconds() * 1e6;
        let (filter, limit) = match &wants.sessions {
            Some(filter) => (filter.as_deref(), SESSIONS),
            None => (None, SESSIONS_FEW),
        };
        if let Some(filter) = filter {
            match self.ask(&format!("show session {filter} slowest limit {limit}")) {
                Ok(answer) => {
                    // Those that the filter does not let through are not of this list.
                    snapshot.sessions.clear();
                    snapshot.add_sessions(&answer);
                }
                Err(CliError::Usage(why)) => look.filter_refused = Some(why),
                Err(away) => return Err(away),
            }
        }
        if (wants.sessions.is_some() && filter.is_none())
            || look.filter_refused.is_some()
            || snapshot.sessions.is_empty() && filter.is_none()
        {
            snapshot.add_sessions(&self.ask(&format!("show session slowest limit {limit}"))?);
        }
        if let Some(handle) = &wants.session {
            look.session = Some(match self.ask(&format!("show session {handle}")) {
                Ok(answer) => Ok(answer),
                Err(CliError::Usage(why)) => Err(why),
                Err(away) => return Err(away),
            });
        }
        Ok(snapshot)
    }
}

/// One JSON document; or a list of all, of an answer that has several.
fn read_json(text: &str) -> Result<Value, CliError> {
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let mut documents =
        documents.map_err(|error| CliError::failed(format!("the stack's answer is no JSON: {error}")))?;
    Ok(match (documents.pop(), documents.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            documents.push(last);
            Value::Array(documents)
        }
        (None, _) => Value::Null,
    })
}

/// A source that is asked by a thread of its own, one look at a time.
pub(super) struct Lookout {
    wants: Sender<Wants>,
    looks: Receiver<Look>,
    is_waiting: bool,
}

impl Lookout {
    /// Starts the thread; it ends when this is dropped and its question, if any, is answered.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(mut source: Source) -> Result<Lookout, CliError> {
        let (wants, wanted) = bounded::<Wants>(1);
        let (seen, looks) = bounded(1);
        let spawned = Builder::new().name("top-source".to_owned()).spawn(move || {
            for wants in wanted {
                if seen.send(source.look(&wants)).is_err() {
                    return;
                }
            }
        });
        spawned
            .map_err(|error: io::Error| CliError::failed(format!("no thread to ask the stack: {error}")))?;
        Ok(Lookout { wants, looks, is_waiting: false })
    }

    /// Whether a look is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Begins a look; not while one is under way.
    pub(super) fn begin(&mut self, wants: Wants) {
        if !self.is_waiting {
            // Fails only when the thread is gone, which `take` then says.
            self.is_waiting = self.wants.try_send(wants).is_ok();
        }
    }

    /// What came of the look that is under way, once it is there.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) fn take(&mut self) -> Result<Option<Look>, CliError> {
        match self.looks.try_recv() {
            Ok(look) => {
                self.is_waiting = false;
                Ok(Some(look))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(CliError::failed("the thread that asks the stack has ended"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::ctl::wire::{Frame, Reply, Request, read_request, write_frame};

    /// A stack that gives these answers, then hangs up; the commands that it was given.
    fn script(
        socket: &std::path::Path,
        answers: &'static [Result<&'static str, &'static str>],
    ) -> Receiver<String> {
        let listener = UnixListener::bind(socket).unwrap();
        let (tell, told) = bounded(64);
        Builder::new()
            .spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut writer = stream.try_clone().unwrap();
                let mut reader = BufReader::new(stream);
                for answer in answers {
                    if let Request::Command(_, command) = read_request(&mut reader).unwrap() {
                        tell.send(command).unwrap();
                    }
                    let reply = match answer {
                        Ok(text) => Reply::Ok((*text).to_owned()),
                        Err(text) => Reply::Usage((*text).to_owned()),
                    };
                    write_frame(&mut writer, &Frame::Last(reply)).unwrap();
                }
            })
            .unwrap();
        told
    }

    fn scripted(
        answers: &'static [Result<&'static str, &'static str>],
    ) -> (tempfile::TempDir, Source, Receiver<String>) {
        let dir = tempfile::TempDir::new().unwrap();
        let socket = dir.path().join("socket");
        let told = script(&socket, answers);
        (dir, Source::open(socket).unwrap(), told)
    }

    #[test]
    fn a_stack_that_hangs_up_is_asked_anew_and_one_that_is_gone_is_away() {
        let (_dir, mut source, told) = scripted(&[
            Ok(r#"{"workers":[{"worker":0}],"sessions":{"total":1},"time_wait":3}"#),
            Ok(r#"{"sessions":[{"session":"0:1.0"}]}"#),
        ]);
        let snapshot = source.look(&Wants::default()).snapshot.unwrap();
        assert_eq!((snapshot.summary.get("total"), snapshot.time_wait), (Some(1.0), Some(3.0)));
        assert_eq!((snapshot.workers.len(), snapshot.sessions.len()), (1, 1));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["show status", "show session slowest limit 20"]);
        // It hung up, and listens no more.
        let gone = source.look(&Wants::default()).snapshot.unwrap_err();
        assert!(gone.contains("the stack ended") || gone.contains("no stack answers"), "{gone}");
        assert!(source.look(&Wants::default()).snapshot.unwrap_err().contains("no stack answers"));
    }

    #[test]
    fn a_stack_that_does_not_know_its_status_is_one_that_top_cannot_watch() {
        let (_dir, mut source, _told) = scripted(&[Err("there is no command `show status`")]);
        let why = source.look(&Wants::default()).snapshot.unwrap_err();
        assert_eq!(why, "there is no command `show status`");
    }

    #[test]
    fn a_filter_that_the_stack_refuses_leaves_the_whole_list() {
        let (_dir, mut source, told) = scripted(&[
            Ok(r#"{"workers":[],"slowest":[{"session":"0:9.0"}]}"#),
            Err("`colour` does not belong there"),
            Ok(r#"{"sessions":[{"session":"0:1.0"}]}"#),
            Err("no such session"),
            Ok(r#"{"workers":[],"slowest":[{"session":"0:9.0"}]}"#),
            Ok("{\"session\":\"0:2.0\"}\n{\"session\":\"0:3.0\"}"),
        ]);
        let filtered = |filter: &str| Some(Some(filter.to_owned()));
        let look =
            source.look(&Wants { sessions: filtered("colour red"), session: Some("0:1.0".to_owned()) });
        assert_eq!(look.filter_refused.as_deref(), Some("`colour` does not belong there"));
        assert_eq!(look.session, Some(Err("no such session".to_owned())));
        assert_eq!(look.snapshot.unwrap().sessions.len(), 2);
        let look = source.look(&Wants { sessions: filtered("worker 0"), session: None });
        let handles: Vec<String> =
            look.snapshot.unwrap().sessions.into_iter().map(|one| one.handle).collect();
        assert_eq!(handles, ["0:2.0", "0:3.0"]);
        let told: Vec<String> = told.try_iter().collect();
        assert_eq!(
            told[1..4],
            [
                "show session colour red slowest limit 100",
                "show session slowest limit 100",
                "show session 0:1.0"
            ]
        );
        assert_eq!(told[5], "show session worker 0 slowest limit 100");
    }

    #[test]
    fn an_answer_that_is_no_json_is_a_failure() {
        assert!(matches!(read_json("{"), Err(CliError::Failed(_))));
        assert_eq!(read_json("").unwrap(), Value::Null);
    }
}
