//! `hoststack ctl` on a terminal: a prompt with history, and completion that the server gives.
//!
//! The history lies in the user's state directory (`XDG_STATE_HOME`, or `~/.local/state`), or nowhere. Ctrl-C ends what is
//! under way, not the conversation; so does an error. A stack that was started again is found again.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::client::{Connection, one};
use super::wire::{Format, Reply};
use crate::error::CliError;

/// Lines that are remembered.
const HISTORY_MAX: usize = 1000;

/// Whether the user has had enough of what is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<(Mutex<Pending>, Condvar)>);

#[derive(Debug, Default)]
struct Pending {
    asked: bool,
    /// The conversation that is to be ended.
    conversation: Option<UnixStream>,
}

impl Interrupt {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing is done under this lock that could leave it half done.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long; whether the user has had enough.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        let waited = self.0.1.wait_timeout_while(self.pending(), span, |pending| !pending.asked);
        waited.unwrap_or_else(PoisonError::into_inner).0.asked
    }

    /// The user has had enough: a wait ends, and so does the conversation.
    fn strike(&self) {
        let mut pending = self.pending();
        pending.asked = true;
        if let Some(conversation) = &pending.conversation {
            // One that has ended is as good.
            let _ = conversation.shutdown(std::net::Shutdown::Both);
        }
        self.0.1.notify_all();
    }

    /// From now on Ctrl-C ends this conversation.
    fn begin(&self, conversation: Option<UnixStream>) {
        *self.pending() = Pending { asked: false, conversation };
    }

    /// Whether the user has had enough, asked when it is over.
    fn end(&self) -> bool {
        std::mem::take(&mut *self.pending()).asked
    }

    fn catch(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT])?;
        let interrupt = self.clone();
        let thread = Builder::new().name("interrupt".to_owned());
        thread.spawn(move || signals.forever().for_each(|_| interrupt.strike()))?;
        Ok(())
    }
}

/// A prompt, until the user leaves.
///
/// # Errors
/// No stack answers, or the terminal does not.
pub(crate) fn converse(socket: &Path, format: Format) -> Result<(), CliError> {
    let connection = Rc::new(RefCell::new(Connection::open(socket)?));
    let failed = |error: ReadlineError| CliError::failed(format!("cannot read from the terminal: {error}"));
    let builder = Config::builder().completion_type(CompletionType::List);
    let builder = builder.max_history_size(HISTORY_MAX).map_err(failed)?;
    let config = builder.history_ignore_space(true).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Words(Rc::clone(&connection))));
    let history = history_file();
    if let Some(file) = &history {
        // None yet, or none that can be read: it begins empty.
        let _ = editor.load_history(file);
    }
    let interrupt = Interrupt::default();
    interrupt.catch().map_err(|error| CliError::failed(format!("cannot catch SIGINT: {error}")))?;
    loop {
        let line = match editor.readline("hoststack> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        // A line that cannot be remembered is done all the same.
        let _ = editor.add_history_entry(line);
        if matches!(line, "quit" | "exit") {
            break;
        }
        let mut connection = connection.borrow_mut();
        if connection.is_gone() {
            match Connection::open(socket) {
                Ok(opened) => *connection = opened,
                Err(error) => {
                    connection.is_broken = true;
                    let _ = error.report();
                    continue;
                }
            }
        }
        interrupt.begin(connection.handle().ok());
        let done = one(&mut connection, format, line, &interrupt);
        if interrupt.end() {
            // The conversation was cut in the middle of an answer.
            connection.is_broken = true;
        } else if let Err(error) = done {
            let _ = error.report();
        }
    }
    if let Some(file) = &history {
        let _ = editor.save_history(file);
    }
    Ok(())
}

/// Where the history lies: a file that only this user can read, made if it is not there.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    let directory = state.join("hoststack");
    std::fs::create_dir_all(&directory).ok()?;
    let file = directory.join("ctl_history");
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&file).ok()?;
    Some(file)
}

/// Completion by the server.
struct Words(Rc<RefCell<Connection>>);

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let line = line.get(..at).unwrap_or(line);
        let mut connection = self.0.borrow_mut();
        if connection.is_gone() {
            return Ok((at, Vec::new()));
        }
        let reply = connection.ask_each(Format::Json, &format!("complete {line}"), &mut |_| Ok(()));
        let Ok(Reply::Ok(text)) = reply else { return Ok((at, Vec::new())) };
        let (start, mut words) = candidates(&text).unwrap_or((at, Vec::new()));
        // What is complete is left with a blank; a URI's beginning is not.
        if let [word] = &mut words[..]
            && !word.ends_with('/')
        {
            word.push(' ');
        }
        Ok((start.min(at), words))
    }
}

/// Where the word begins that candidates replace, and the candidates.
fn candidates(text: &str) -> Option<(usize, Vec<String>)> {
    #[derive(serde::Deserialize)]
    struct Candidates {
        start: usize,
        candidates: Vec<String>,
    }
    let Candidates { start, candidates } = serde_json::from_str(text).ok()?;
    Some((start, candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strike_ends_waits_and_the_conversation() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.wait(Duration::ZERO));
        let (one, mut other) = UnixStream::pair().unwrap();
        interrupt.begin(Some(one));
        interrupt.strike();
        assert!(interrupt.wait(Duration::from_secs(3600)));
        assert_eq!(io::Read::read(&mut other, &mut [0]).unwrap(), 0);
        assert!(interrupt.end() && !interrupt.end());
    }

    #[test]
    fn candidates_of_a_server_are_read_and_nonsense_is_none() {
        let text = r#"{"start":5,"candidates":["session"],"more":1}"#;
        assert_eq!(candidates(text), Some((5, vec!["session".to_owned()])));
        assert_eq!(candidates("{}"), None);
    }
}
