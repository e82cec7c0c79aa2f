//! The other end of `hoststack ctl`: a Unix socket in `hoststack run`.
//!
//! One thread accepts, one per client answers, at most [`CLIENTS_MAX`]. They ask the stack through a [`StackHandle`],
//! as any program may: main gathers the answer by message, and nothing here is on a worker's path.

use std::io::{self, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use hoststack::app::DetachPolicy;
use hoststack::{Answer, Query, StackHandle};
use rustix::fs::Mode;
use rustix::net::Shutdown;

use super::format;
use super::grammar::{self, Command};
use super::wire::{Format, Request, read_request, write_reply};
use crate::error::CliError;

/// Clients that are answered at a time; a further one is told to come back.
const CLIENTS_MAX: usize = 16;
/// How long a client may say nothing, or not read its answer, before it is hung up on.
const IDLE: Duration = Duration::from_secs(600);

/// A socket's file that is ours; dropped, it is removed.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that someone removed before is gone, which is all that is wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A control socket that is bound: the path is ours, and nobody is answered yet.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl BoundSocket {
    /// Binds `path`, readable and writable by this user alone. The socket of a process that has ended is replaced.
    ///
    /// Call it before there are threads: the mode is set by the process's file mode mask, for no other way leaves no
    /// moment in which anyone may connect.
    ///
    /// # Errors
    /// A stack that answers there, or another kind of file, or what the system said.
    pub(crate) fn bind(path: &Path) -> Result<BoundSocket, CliError> {
        let failed = |error: io::Error| {
            CliError::failed(format!("cannot listen on the control socket {}: {error}", path.display()))
        };
        let bind = || {
            let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
            let listener = UnixListener::bind(path);
            rustix::process::umask(mask);
            listener
        };
        let listener = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let is_socket = std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket();
                if !is_socket {
                    return Err(CliError::usage(format!(
                        "{} exists and is no socket: remove it, or choose another [cli] socket",
                        path.display()
                    )));
                }
                match UnixStream::connect(path) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path).map_err(failed)?;
                        bind().map_err(failed)?
                    }
                    _ => {
                        return Err(CliError::failed(format!(
                            "a running stack answers at {}: end it, or choose another [cli] socket",
                            path.display()
                        )));
                    }
                }
            }
            other => other.map_err(failed)?,
        };
        Ok(BoundSocket { listener, file: SocketFile(path.to_owned()) })
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn serve(self, stack: StackHandle) -> Result<CtlServer, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("cannot serve the control socket: {error}"));
        let BoundSocket { listener, file } = self;
        let accepting = listener.try_clone().map_err(failed)?;
        let thread = Builder::new()
            .name("ctl".to_owned())
            .spawn(move || accept(&accepting, &stack))
            .map_err(failed)?;
        Ok(CtlServer { listener, file, thread: Some(thread) })
    }
}

/// A control socket that answers; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct CtlServer {
    listener: UnixListener,
    file: SocketFile,
    thread: Option<JoinHandle<()>>,
}

impl CtlServer {
    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.file.0
    }
}

impl Drop for CtlServer {
    fn drop(&mut self) {
        // Linux: shutting a listening socket down makes its `accept` return. Clients that are being answered keep
        // their threads until the process ends.
        let woken = rustix::net::shutdown(&self.listener, Shutdown::Both);
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            // A panic there was printed when it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, stack: &StackHandle) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // EINVAL: it was shut down. Anything else will not pass by trying again either.
            Err(error) => {
                if error.kind() != io::ErrorKind::InvalidInput {
                    tracing::error!(%error, "the control socket accepts no more clients");
                }
                return;
            }
        };
        if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::AcqRel);
            turn_away(stream, "too many clients: hang up one of the others first");
            continue;
        }
        let (stack, count) = (stack.clone(), Arc::clone(&clients));
        let spawned = Builder::new().name("ctl-client".to_owned()).spawn(move || {
            let _guard = CountGuard(count);
            if let Err(error) = answer_client(stream, &stack) {
                tracing::debug!(%error, "a control client was hung up on");
            }
        });
        if let Err(error) = spawned {
            // The closure was dropped without running: its count is given back here.
            clients.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

/// Gives a client's place back, whatever happens to its thread.
struct CountGuard(Arc<AtomicUsize>);

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn turn_away(mut stream: UnixStream, text: &str) {
    // The socket's buffer takes these few bytes; if not, the client sees the end all the same.
    let _ = stream.set_nonblocking(true);
    let _ = write_reply(&mut stream, &Err(text.to_owned()));
}

fn answer_client(stream: UnixStream, stack: &StackHandle) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        match read_request(&mut reader)? {
            Request::Command(format, command) => write_reply(&mut writer, &execute(stack, format, &command))?,
            Request::Bad(why) => return write_reply(&mut writer, &Err(why.to_owned())),
            Request::End => return Ok(()),
        }
    }
}

/// Does what a command says; the answer's text, or what was wrong.
fn execute(stack: &StackHandle, format: Format, command: &str) -> Result<String, String> {
    let command = grammar::parse(command).map_err(|error| error.to_string())?;
    let ask = |query| stack.inspect(query).map_err(|error| error.to_string());
    match command {
        Command::Help => Ok(match format {
            Format::Text => grammar::help(),
            Format::Json => format::to_json(&grammar::patterns()),
        }),
        Command::AppDetach { name, app_worker, reset } => {
            let policy = if reset { DetachPolicy::Reset } else { DetachPolicy::default() };
            detach(stack, &ask(Query::Summary)?, &name, app_worker, policy, format)
        }
        command => {
            let query = match command {
                Command::ShowSession { verbose, limit } => Query::sessions(limit, verbose),
                Command::ShowHalfOpen { limit } => Query::half_opens(limit),
                Command::ShowListener { limit } => Query::Listeners { limit },
                _ => Query::Summary,
            };
            Ok(format::answer(&command, &ask(query)?, format))
        }
    }
}

fn detach(
    stack: &StackHandle,
    answer: &Answer,
    name: &str,
    unit: Option<u32>,
    policy: DetachPolicy,
    format: Format,
) -> Result<String, String> {
    let Some(app) = answer.apps.iter().find(|app| app.name == name) else {
        let names: Vec<&str> = answer.apps.iter().map(|app| app.name.as_str()).collect();
        return Err(format!("no application is named `{name}`: there is {}", listed(&names)));
    };
    let reports = match unit {
        None => stack.detach(app.id, policy).map_err(|error| error.to_string())?.app_workers,
        Some(unit) => {
            let Some(app_worker) = app.app_workers.iter().find(|app_worker| app_worker.unit == unit) else {
                let units: Vec<String> =
                    app.app_workers.iter().map(|worker| worker.unit.to_string()).collect();
                return Err(format!("`{name}` has no app worker {unit}: there is {}", listed(&units)));
            };
            vec![stack.detach_worker(app_worker.id, policy).map_err(|error| error.to_string())?]
        }
    };
    Ok(format::detached(name, &reports, format))
}

fn listed(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "none".to_owned(),
        _ => names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_live_socket_and_another_file_are_errors_and_a_stale_socket_is_replaced() {
        let directory = std::env::temp_dir().join(format!("hoststack-ctl-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("ctl.sock");
        let live = BoundSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            matches!(BoundSocket::bind(&path), Err(CliError::Failed(text)) if text.contains("answers at"))
        );
        drop(live);
        assert!(!path.exists());
        // A process that was killed leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(BoundSocket::bind(&path).unwrap());
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(BoundSocket::bind(&path), Err(CliError::Usage(text)) if text.contains("no socket")));
        assert!(BoundSocket::bind(&directory.join("none/ctl.sock")).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_count_of_clients_is_given_back_when_a_thread_unwinds() {
        let count = Arc::new(AtomicUsize::new(1));
        let guard = CountGuard(Arc::clone(&count));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _guard = guard;
            panic!("a client's thread");
        }));
        assert!(result.is_err());
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
