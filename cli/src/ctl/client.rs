//! `hoststack ctl`: sends commands to a running stack and prints the answers.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::commands::help;
use super::console::Show;
use super::wire::{Format, Frame, REQUEST_MAX, Reply, read_frame, write_request};
use super::{execute, format, interactive, line, page, watch};
use crate::error::CliError;
use crate::output::{print, print_on};

/// How long the stack may say nothing while it answers: longer than any detach lingers.
const ANSWER: Duration = Duration::from_secs(300);

/// Talk to a running `hoststack run`.
#[derive(Args, Debug)]
pub(crate) struct CtlArgs {
    /// The control socket that the running stack listens on.
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    socket: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    /// Print docs/cli.md.
    #[arg(long, hide = true)]
    page: bool,
    /// What to do, for example `show session`; without it, commands are read from the terminal, with history and completion,
    /// or from standard input. `help` lists them.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Where a stack listens for commands unless told otherwise: in the user's runtime directory, or else in `/tmp`.
pub(crate) fn default_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory).join("hoststack.sock"),
        _ => PathBuf::from(format!("/tmp/hoststack-{}.sock", rustix::process::getuid().as_raw())),
    }
}

/// Runs `hoststack ctl`.
///
/// # Errors
/// A command that is none, a stack that does not answer, an answer that is an error.
pub(crate) fn ctl(args: &CtlArgs) -> Result<(), CliError> {
    let format = if args.json { Format::Json } else { Format::Text };
    if args.page {
        return print(&page::page());
    }
    if args.command.is_empty() {
        return if io::stdin().is_terminal() && io::stdout().is_terminal() {
            interactive::converse(&args.socket, format)
        } else {
            batch(&args.socket, format)
        };
    }
    let line = joined(&args.command);
    let mut connection = match Connection::open(&args.socket) {
        Ok(connection) => connection,
        Err(error) => return without_stack(&line, format, error),
    };
    one(&mut connection, format, &line, &interactive::Interrupt::default()).map(|_| ())
}

/// One line, and what came of it; whether somebody still reads standard output.
///
/// # Errors
/// What the stack said, or that it says nothing.
pub(crate) fn one(
    connection: &mut Connection,
    format: Format,
    line: &str,
    interrupt: &interactive::Interrupt,
) -> Result<bool, CliError> {
    if let Some(watch) = watch::Watch::read(line).map_err(CliError::usage)? {
        return watch.run(connection, format, interrupt);
    }
    let mut is_read = true;
    let reply = connection.ask_each(format, line, &mut |part| {
        is_read = print_on(part)?;
        // Whoever reads no more (`| head`) has had enough: that is no failure.
        if is_read { Ok(()) } else { Err(CliError::Silent) }
    });
    if !is_read {
        return Ok(false);
    }
    match reply? {
        Reply::Ok(text) => print_on(&text),
        Reply::Error(text) => Err(CliError::failed(text.trim_end())),
        Reply::Usage(text) => Err(CliError::usage(text.trim_end())),
    }
}

/// The words of the shell as one line. Several with blanks in one of them: that one was quoted for the shell, and is for us.
fn joined(words: &[String]) -> String {
    let word = |(index, word): (usize, &String)| match word.as_str() {
        "-h" | "--help" => String::new(),
        // No command has a blank in its first word: it is the beginning of a line, as in `ctl 'show app' --json`.
        text if index == 0 => text.to_owned(),
        ";" | "|" => word.clone(),
        // A filter or a further command in quotes of its own, `'| include echo'`.
        text if text.trim_start().starts_with(['|', ';']) => word.clone(),
        text if text.is_empty() || text.contains(char::is_whitespace) => line::quoted(text),
        _ => word.clone(),
    };
    let line = words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ");
    let asks_help = words.last().is_some_and(|last| last == "--help" || last == "-h");
    if asks_help { format!("help {}", line.trim_end()).trim_end().to_owned() } else { line }
}

/// No stack answers: what is wrong with the line is told all the same, and so is help.
fn without_stack(line: &str, format: Format, error: CliError) -> Result<(), CliError> {
    let matched = execute::check(line).map_err(CliError::usage)?;
    let [matched] = &matched[..] else { return Err(error) };
    if !matched.spec.pattern.starts_with("help") {
        return Err(error);
    }
    let help = help::of(matched).map_err(CliError::failed)?;
    // The line was read a moment ago, so this reads it, too.
    let asks_json = line::statements(line).is_ok_and(|read| read.iter().any(|statement| statement.json));
    if asks_json || format == Format::Json {
        print(&format::to_json(&help.json()))
    } else {
        print(&help.text())
    }
}

/// Commands from standard input, a line at a time, until its end.
fn batch(socket: &Path, format: Format) -> Result<(), CliError> {
    let mut connection = Connection::open(socket)?;
    let interrupt = interactive::Interrupt::default();
    let mut failed = false;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| CliError::failed(format!("cannot read commands: {error}")))?;
        match line.trim() {
            "" => {}
            "quit" | "exit" => break,
            command => {
                let done = one(&mut connection, format, command, &interrupt);
                if let Err(error) = &done {
                    // The next command may be right.
                    failed = true;
                    let _ = error.report();
                }
                // Nobody answers, or nobody reads the answers.
                if connection.is_broken || done == Ok(false) {
                    break;
                }
            }
        }
    }
    if failed { Err(CliError::Silent) } else { Ok(()) }
}

/// A conversation with a running stack.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// Whether nothing more can be asked.
    pub(crate) is_broken: bool,
}

impl Connection {
    /// Connects to the stack whose control socket is there.
    ///
    /// # Errors
    /// None answers; says what to do.
    pub(crate) fn open(path: &Path) -> Result<Connection, CliError> {
        let open = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            Ok(Connection { stream: BufReader::new(stream), path: path.to_owned(), is_broken: false })
        };
        open().map_err(|error: io::Error| {
            CliError::failed(format!(
                "no stack answers at {}: {error}; start one with `hoststack run -c FILE`, or name its socket with --socket",
                path.display()
            ))
        })
    }

    /// Whether the stack has hung up, as it does on a client that is silent for long.
    pub(crate) fn is_gone(&self) -> bool {
        let mut ready = [PollFd::new(self.stream.get_ref(), PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Asked for or not, a hang-up is always told.
        self.is_broken || poll(&mut ready, Some(&now)).is_ok_and(|events| events > 0)
    }

    /// A second handle of the socket, to end a conversation that another thread waits in.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn handle(&self) -> io::Result<UnixStream> {
        self.stream.get_ref().try_clone()
    }

    /// Asks, and gathers the whole answer; the stack's own complaint is the inner error.
    ///
    /// # Errors
    /// The stack does not answer.
    pub(crate) fn ask(&mut self, format: Format, line: &str) -> Result<Result<String, String>, CliError> {
        let mut parts = String::new();
        let reply = self.ask_each(format, line, &mut |part| {
            parts.push_str(part);
            Ok(())
        })?;
        Ok(match reply {
            Reply::Ok(last) => Ok(parts + &last),
            Reply::Error(text) | Reply::Usage(text) => Err(text),
        })
    }

    /// Asks, and hands over the answer's parts as they come; its last.
    ///
    /// # Errors
    /// The stack does not answer, or `on_part` failed.
    pub(crate) fn ask_each(
        &mut self,
        format: Format,
        line: &str,
        on_part: &mut dyn FnMut(&str) -> Result<(), CliError>,
    ) -> Result<Reply, CliError> {
        if line.contains(['\n', '\r']) {
            return Err(CliError::usage("a command is one line: put `;` between commands"));
        }
        // The server would hang up.
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(CliError::usage("the line holds a control character: no command does"));
        }
        if line.len() + "json \n".len() > REQUEST_MAX {
            return Err(CliError::usage(format!(
                "the line is longer than {REQUEST_MAX} bytes: no command is"
            )));
        }
        // A reply to a server that hung up may be there still: why it did.
        let written = write_request(self.stream.get_mut(), format, line);
        loop {
            match read_frame(&mut self.stream) {
                Ok(Frame::Part(text)) => {
                    if let Err(error) = on_part(&text) {
                        // What is left of the answer would be taken for the next one.
                        self.is_broken = true;
                        return Err(error);
                    }
                }
                Ok(Frame::Last(reply)) => {
                    self.is_broken = written.is_err();
                    return Ok(reply);
                }
                Err(error) => {
                    self.is_broken = true;
                    return Err(self.failed(error));
                }
            }
        }
    }

    fn failed(&self, error: io::Error) -> CliError {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                "the stack ended".to_owned()
            }
            io::ErrorKind::WouldBlock => format!("no answer within {} s", ANSWER.as_secs()),
            _ => error.to_string(),
        };
        CliError::failed(format!("{}: {what}", self.path.display()))
    }
}

/// Clears the terminal that standard output is, if it is one.
pub(crate) fn clear_screen() -> Result<(), CliError> {
    let mut out = io::stdout();
    if !out.is_terminal() {
        return Ok(());
    }
    // ECMA-48: cursor home, erase all.
    out.write_all(b"\x1b[H\x1b[2J")
        .map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        joined(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_of_the_shell_become_a_line() {
        assert_eq!(line(&["show", "app"]), "show app");
        assert_eq!(line(&["show app; show worker"]), "show app; show worker");
        assert_eq!(line(&["show", "app", "two words"]), "show app \"two words\"");
        assert_eq!(line(&["show", "app", "|", "include", "a b"]), "show app | include \"a b\"");
        assert_eq!(line(&["show", "app", "| include echo"]), "show app | include echo");
        assert_eq!(line(&["show", "--json", "app"]), "show --json app");
        assert_eq!(line(&["show", "session", "--help"]), "help show session");
        // The whole line in quotes, and more behind it.
        assert_eq!(line(&["show app", "--json"]), "show app --json");
        assert_eq!(line(&["show app", "| include a b"]), "show app | include a b");
        assert_eq!(line(&["watch", "1", "show app; show worker"]), "watch 1 \"show app; show worker\"");
        assert_eq!(line(&["--help"]), "help");
        assert_eq!(line(&[""]), "");
    }
}
