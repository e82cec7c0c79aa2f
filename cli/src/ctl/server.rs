//! The other end of `hoststack ctl`: Unix sockets in `hoststack run`, each with the level of its clients.
//!
//! One thread a socket accepts, one a client answers, at most [`CLIENTS_MAX`]. They ask the stack through a [`StackHandle`],
//! as any program may: main gathers the answer by message, and nothing here is on a worker's path. A client that does not
//! read holds up its own thread and nothing else, and that not for long; one that is gone ends its thread with the next
//! byte that is written to it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use hoststack::StackHandle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::console::{Level, Services, Sink, Wait};
use super::execute::{Context, execute};
use super::wire::{Frame, Reply, Request, read_request, write_frame};
use crate::error::CliError;

/// Clients of a socket that are answered at a time; a further one is told to come back.
pub(crate) const CLIENTS_MAX: usize = 256;
/// How long a client may say nothing before it is hung up on.
const IDLE: Duration = Duration::from_secs(600);
/// How long a client may read nothing of its answer before it is hung up on.
const UNREAD: Duration = Duration::from_secs(60);
/// How far behind workers the threads that answer stand for a core.
const ANSWERING_NICE: i32 = 10;
/// The stack of a client's thread, in bytes: commands gather on the heap.
const THREAD_STACK: usize = 256 * 1024;
/// After how long it is tried again to accept a client for whom there was no room. Below a second.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long clients that are being answered are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What is known of a socket and its clients.
#[derive(Debug)]
pub(crate) struct SocketState {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What its clients may do.
    pub(crate) level: Level,
    served: AtomicU64,
    turned_away: AtomicU64,
    hung_up_on: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<UnixStream>>>,
    none_live: Condvar,
}

/// Counts of a socket, for `show cli`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ClientCounts {
    /// Clients now.
    pub(crate) clients: usize,
    /// Most clients at a time.
    pub(crate) clients_max: usize,
    /// Clients that came, those now included.
    pub(crate) served: u64,
    /// Clients that were told to come back.
    pub(crate) turned_away: u64,
    /// Clients that did not read, were silent or talked nonsense.
    pub(crate) hung_up_on: u64,
}

impl SocketState {
    pub(crate) fn new(path: &Path, level: Level) -> SocketState {
        let zero = || AtomicU64::new(0);
        SocketState {
            path: path.to_owned(),
            level,
            served: zero(),
            turned_away: zero(),
            hung_up_on: zero(),
            live: Mutex::default(),
            none_live: Condvar::new(),
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<UnixStream>>> {
        // Nothing is done under this lock that could leave it half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its counts now.
    pub(crate) fn counts(&self) -> ClientCounts {
        ClientCounts {
            clients: self.live().len(),
            clients_max: CLIENTS_MAX,
            served: self.served.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            hung_up_on: self.hung_up_on.load(Ordering::Relaxed),
        }
    }

    /// Takes a client in, unless there are too many.
    fn enter(self: &Arc<SocketState>, stream: UnixStream) -> Result<Client, UnixStream> {
        let mut live = self.live();
        if live.len() >= CLIENTS_MAX {
            return Err(stream);
        }
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(stream);
        live.insert(number, Arc::clone(&stream));
        Ok(Client { state: Arc::clone(self), number, stream })
    }

    /// Hangs up on every client, and waits until they are gone, but not for long: one may wait for a detach.
    fn hang_up(&self) {
        let live = self.live();
        for stream in live.values() {
            // One that has gone meanwhile is gone.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let waited = self.none_live.wait_timeout_while(live, LAST_ANSWERS, |live| !live.is_empty());
        drop(waited);
    }
}

/// A client's place; dropped, whatever happened to its thread, it is given back.
struct Client {
    state: Arc<SocketState>,
    number: u64,
    stream: Arc<UnixStream>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut live = self.state.live();
        live.remove(&self.number);
        if live.is_empty() {
            self.state.none_live.notify_all();
        }
    }
}

/// What all clients' commands are run with.
pub(crate) struct Shared {
    /// The stack.
    pub(crate) stack: StackHandle,
    /// What else there is.
    pub(crate) services: Services,
    /// Every control socket.
    pub(crate) sockets: Vec<Arc<SocketState>>,
}

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
    state: Arc<SocketState>,
}

impl BoundSocket {
    /// Binds `path` for clients of a level, readable and writable by this user alone. The socket of a process that has ended is replaced.
    ///
    /// Call it before there are threads: the mode is set by the process's file mode mask, for no other way leaves no
    /// moment in which anyone may connect.
    ///
    /// # Errors
    /// A stack that answers there, or another kind of file, or what the system said.
    pub(crate) fn bind(path: &Path, level: Level) -> Result<BoundSocket, CliError> {
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
        let state = Arc::new(SocketState::new(path, level));
        Ok(BoundSocket { listener, file: SocketFile(path.to_owned()), state })
    }

    /// What will be known of its clients.
    pub(crate) fn state(&self) -> Arc<SocketState> {
        Arc::clone(&self.state)
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn serve(self, shared: Arc<Shared>) -> Result<CtlServer, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("cannot serve the control socket: {error}"));
        let BoundSocket { listener, file, state } = self;
        let accepting = listener.try_clone().map_err(failed)?;
        let answering = Arc::clone(&state);
        let thread = Builder::new()
            .name("ctl".to_owned())
            .spawn(move || accept(&accepting, &answering, &shared))
            .map_err(failed)?;
        Ok(CtlServer { listener, file, state, thread: Some(thread) })
    }
}

/// A control socket that answers; dropped, it and its clients are gone.
#[derive(Debug)]
pub(crate) struct CtlServer {
    listener: UnixListener,
    file: SocketFile,
    state: Arc<SocketState>,
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
        // Linux: shutting a listening socket down makes its `accept` return.
        let woken = rustix::net::shutdown(&self.listener, Shutdown::Both);
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            // A panic there was printed when it happened; there is nothing to add.
            let _ = thread.join();
        }
        self.state.hang_up();
    }
}

fn accept(listener: &UnixListener, state: &Arc<SocketState>, shared: &Arc<Shared>) {
    // Nor the clients' threads, which it starts.
    shared.stack.keep_off_workers();
    // Said once, not each time that it is tried again.
    let mut is_short = false;
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => {
                is_short = false;
                stream
            }
            Err(error) if will_pass(&error) => {
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "a control client waits until it can be accepted");
                }
                match pause(listener) {
                    Pause::Over => continue,
                    Pause::ShutDown => return,
                }
            }
            // EINVAL: it was shut down. Anything else will not pass by trying again either.
            Err(error) => {
                if error.kind() != io::ErrorKind::InvalidInput {
                    tracing::error!(%error, "the control socket accepts no more clients");
                }
                return;
            }
        };
        let client = match state.enter(stream) {
            Ok(client) => client,
            Err(stream) => {
                state.turned_away.fetch_add(1, Ordering::Relaxed);
                turn_away(
                    &stream,
                    &format!("too many clients, {CLIENTS_MAX}: hang up one of the others first"),
                );
                continue;
            }
        };
        let shared = Arc::clone(shared);
        let spawned =
            Builder::new().name("ctl-client".to_owned()).stack_size(THREAD_STACK).spawn(move || {
                // Writing a million rows must not take what workers could use: on Linux this is the thread's own priority.
                // Refused, it answers all the same.
                let _ = rustix::process::setpriority_process(None, ANSWERING_NICE);
                // One that left, in the middle of an answer or not, had the right to.
                if let Err(error) = answer_client(&client, &shared)
                    && !has_left(&error)
                {
                    client.state.hung_up_on.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "a control client was hung up on");
                }
            });
        if let Err(error) = spawned {
            // The closure was dropped without running, and the client's place with it.
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

/// Whether a client may be accepted later: descriptors or memory ran out (just when somebody wants to look at what has
/// them), or this client left first.
fn will_pass(error: &io::Error) -> bool {
    let passing = [Errno::INTR, Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// How a pause before the next try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Pause {
    Over,
    ShutDown,
}

/// Waits for so long, but no longer than the listening socket is open: a client that waits there would wake it at once.
fn pause(listener: &UnixListener) -> Pause {
    let span = Timespec { tv_sec: 0, tv_nsec: ACCEPT_AGAIN.subsec_nanos().into() };
    // No event is asked for; that it was shut down is told all the same.
    match poll(&mut [PollFd::new(listener, PollFlags::empty())], Some(&span)) {
        Ok(0) | Err(_) => Pause::Over,
        Ok(_) => Pause::ShutDown,
    }
}

/// Whether the client ended the conversation, and not we.
fn has_left(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

fn turn_away(mut stream: &UnixStream, text: &str) {
    // The socket's buffer takes these few bytes; if not, the client sees the end all the same.
    let _ = stream.set_nonblocking(true);
    let _ = write_frame(&mut stream, &Frame::Last(Reply::Error(text.to_owned())));
}

fn answer_client(client: &Client, shared: &Shared) -> io::Result<()> {
    let stream = &*client.stream;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(UNREAD))?;
    let mut talk = Talk { stream, reader: BufReader::new(stream), enough: false };
    let context = Context {
        stack: &shared.stack,
        services: &shared.services,
        sockets: &shared.sockets,
        socket: &client.state,
    };
    loop {
        match read_request(&mut talk.reader)? {
            // The line by which a client ended what it followed has done its work.
            Request::Command(..) if std::mem::take(&mut talk.enough) => {}
            Request::Command(format, line) => {
                let done = catch_unwind(AssertUnwindSafe(|| execute(&context, format, &line, &mut talk)));
                let reply = match done {
                    Ok(reply) => reply?,
                    // Said where by the panic itself; nothing that a command touches outlives it.
                    Err(_) => {
                        Reply::Error("the command panicked, which is a bug: the log says where".to_owned())
                    }
                };
                write_frame(&mut talk.stream, &Frame::Last(reply))?;
            }
            Request::Bad(why) => {
                write_frame(&mut talk.stream, &Frame::Last(Reply::Usage(why.to_owned())))?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Request::End => return Ok(()),
        }
    }
}

/// Both directions of a client.
struct Talk<'s> {
    stream: &'s UnixStream,
    reader: BufReader<&'s UnixStream>,
    /// Whether a line came while something was followed.
    enough: bool,
}

impl Sink for Talk<'_> {
    fn part(&mut self, text: &str) -> io::Result<()> {
        write_frame(&mut self.stream, &Frame::Part(text.to_owned()))
    }

    fn wait(&mut self, span: Duration) -> io::Result<Wait> {
        if self.reader.buffer().is_empty() {
            let timeout = Timespec {
                tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(span.subsec_nanos()),
            };
            let mut ready = [PollFd::new(self.stream, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => return Ok(Wait::Elapsed),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            if self.reader.fill_buf()?.is_empty() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        self.enough = true;
        Ok(Wait::Enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_live_socket_and_another_file_are_errors_and_a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctl.sock");
        let bind = |path: &Path| BoundSocket::bind(path, Level::Operator);
        let live = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(CliError::Failed(text)) if text.contains("answers at")));
        drop(live);
        assert!(!path.exists());
        // A process that was killed leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path).unwrap());
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(bind(&path), Err(CliError::Usage(text)) if text.contains("no socket")));
        assert!(bind(&directory.path().join("none/ctl.sock")).is_err());
    }

    fn state() -> Arc<SocketState> {
        Arc::new(SocketState::new(Path::new("ctl.sock"), Level::User))
    }

    #[test]
    fn a_clients_place_is_given_back_when_its_thread_unwinds() {
        let state = state();
        let (_peer, stream) = UnixStream::pair().unwrap();
        let client = state.enter(stream).unwrap_or_else(|_| panic!("there is room"));
        assert_eq!(state.counts().clients, 1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _client = client;
            panic!("a client's thread");
        }));
        assert!(result.is_err());
        assert_eq!((state.counts().clients, state.counts().served), (0, 1));
    }

    #[test]
    fn one_client_too_many_has_no_place_until_another_leaves() {
        let state = state();
        let (_peer, stream) = UnixStream::pair().unwrap();
        let enter = || state.enter(stream.try_clone().unwrap());
        let mut clients: Vec<Client> = (0..CLIENTS_MAX).map_while(|_| enter().ok()).collect();
        assert_eq!(clients.len(), CLIENTS_MAX);
        assert!(enter().is_err());
        clients.pop();
        assert!(enter().is_ok());
    }

    #[test]
    fn a_lack_of_descriptors_passes_and_the_end_does_not() {
        assert!([Errno::MFILE, Errno::INTR].map(io::Error::from).iter().all(will_pass));
        assert!(![Errno::INVAL, Errno::BADF].map(io::Error::from).iter().any(will_pass));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctl.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // One who waits to be accepted does not end the pause.
        let _waits = UnixStream::connect(&path).unwrap();
        assert_eq!(pause(&listener), Pause::Over);
        rustix::net::shutdown(&listener, Shutdown::Both).unwrap();
        assert_eq!(pause(&listener), Pause::ShutDown);
    }

    #[test]
    fn a_client_that_follows_is_done_with_a_line_and_gone_with_its_end() {
        let (mut peer, stream) = UnixStream::pair().unwrap();
        let mut talk = Talk { stream: &stream, reader: BufReader::new(&stream), enough: false };
        assert_eq!(talk.wait(Duration::ZERO).unwrap(), Wait::Elapsed);
        peer.write_all(b"\nshow app\n").unwrap();
        let long = Duration::from_secs(60);
        assert_eq!(talk.wait(long).unwrap(), Wait::Enough);
        assert!(talk.enough);
        // What the reader holds already is seen as well.
        assert_eq!(talk.wait(long).unwrap(), Wait::Enough);
        assert!(
            matches!(read_request(&mut talk.reader).unwrap(), Request::Command(_, line) if line.is_empty())
        );
        assert!(
            matches!(read_request(&mut talk.reader).unwrap(), Request::Command(_, line) if line == "show app")
        );
        drop(peer);
        assert!(talk.wait(long).is_err());
    }

    #[test]
    fn a_client_that_never_reads_is_hung_up_on_by_the_time_out() {
        let (peer, stream) = UnixStream::pair().unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut talk = Talk { stream: &stream, reader: BufReader::new(&stream), enough: false };
        let text = "x".repeat(1 << 16);
        let written = (0..10_000).map_while(|_| talk.part(&text).ok()).count();
        assert!(written < 10_000, "the socket's buffer has an end");
        drop(peer);
        assert_eq!(talk.part(&text).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
