//! `hoststack ctl`: sends commands to a running stack and prints the answers.

use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::grammar::{self, Command};
use super::wire::{Format, read_reply, write_request};
use crate::error::CliError;
use crate::output::print;

/// How long an answer may take: longer than a detach lingers.
const ANSWER: Duration = Duration::from_secs(60);

/// Talk to a running `hoststack run`.
#[derive(Args, Debug)]
pub(crate) struct CtlArgs {
    /// The control socket that the running stack listens on.
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    socket: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    /// What to do, for example `show session`; without it, commands are read from standard input. `help` lists them.
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
    if args.command.is_empty() {
        return converse(&args.socket, format);
    }
    let command = args.command.join(" ");
    // Understood here first: a mistyped command needs no stack to be told so.
    if grammar::parse(&command).map_err(CliError::usage)? == Command::Help && format == Format::Text {
        return print(&grammar::help());
    }
    match Connection::open(&args.socket)?.ask(format, &command)? {
        Ok(text) => print(&text),
        Err(text) => Err(CliError::failed(text.trim_end())),
    }
}

/// Commands from standard input, one a line, until its end.
fn converse(socket: &Path, format: Format) -> Result<(), CliError> {
    let mut connection = Connection::open(socket)?;
    let prompt = io::stdin().is_terminal();
    let mut failed = false;
    loop {
        if prompt {
            print("hoststack> ")?;
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        if read.map_err(|error| CliError::failed(format!("cannot read commands: {error}")))? == 0 {
            return if failed && !prompt { Err(CliError::Silent) } else { Ok(()) };
        }
        match line.trim() {
            "" => {}
            "quit" | "exit" if prompt => return Ok(()),
            command => match grammar::parse(command) {
                Err(error) => {
                    failed = true;
                    eprintln!("hoststack: {error}");
                }
                Ok(_) => match connection.ask(format, command)? {
                    Ok(text) => print(&text)?,
                    Err(text) => {
                        failed = true;
                        eprintln!("hoststack: {}", text.trim_end());
                    }
                },
            },
        }
    }
}

/// A connection to a control socket.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When no stack answers there.
    pub(crate) fn open(path: &Path) -> Result<Connection, CliError> {
        let open = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            Ok(Connection { stream: BufReader::new(stream), path: path.to_owned() })
        };
        open().map_err(|error: io::Error| {
            CliError::failed(format!(
                "no stack answers at {}: {error}; start one with `hoststack run -c FILE`, or name its socket with --socket",
                path.display()
            ))
        })
    }

    /// The answer to a command, or what was wrong with it.
    ///
    /// # Errors
    /// When the stack is away or does not answer in time.
    pub(crate) fn ask(&mut self, format: Format, command: &str) -> Result<Result<String, String>, CliError> {
        write_request(self.stream.get_mut(), format, command)
            .and_then(|()| read_reply(&mut self.stream))
            .map_err(|error| {
                let what = match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "the stack ended".to_owned(),
                    io::ErrorKind::WouldBlock => format!("no answer within {} s", ANSWER.as_secs()),
                    _ => error.to_string(),
                };
                CliError::failed(format!("{}: {what}", self.path.display()))
            })
    }
}
