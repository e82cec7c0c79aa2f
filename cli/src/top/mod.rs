//! `hoststack top`: a running stack on a full screen, over its control socket.
//!
//! [`source`] asks, [`data`] reads, [`rates`] and [`lists`] make of it what is shown, [`model`] is the state and what keys do to it,
//! [`view`] draws. Only this file and [`source`] touch terminal, socket and time.

mod data;
mod lists;
mod model;
mod rates;
mod source;
mod text;
mod view;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use self::model::{Effect, Link, Model, View};
use self::source::{Lookout, Source};
use crate::clock::Stopwatch;
use crate::ctl::client::default_socket;
use crate::error::CliError;
use crate::output::print;
use crate::parse;

/// The longest that signals and answers wait while nobody presses a key, in nanoseconds.
const TICK_NS: i64 = 50_000_000;
/// Columns and lines of `--once` where there is no terminal to ask.
const PAPER: (u16, u16) = (120, 48);

/// Watch a running `hoststack run` on a full screen.
///
/// `?` lists the keys. Without a terminal, `--once` prints one look as text. Where LC_ALL, LC_CTYPE or LANG do not say UTF-8,
/// all is drawn in ASCII.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// The control socket that the running stack listens on.
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    socket: PathBuf,
    /// The time between two looks, 100ms to 60s; `+` and `-` change it.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration)]
    interval: Duration,
    /// What is shown first.
    #[arg(long, value_name = "VIEW", value_enum, default_value = "overview")]
    view: View,
    /// The filter of that view's list, as typed after `/`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Look twice, an interval apart, print what is seen and end.
    #[arg(long)]
    once: bool,
}

/// Runs `hoststack top`.
///
/// # Errors
/// A stack that does not answer at the start, a terminal that is none.
pub(crate) fn top(args: &TopArgs) -> Result<(), CliError> {
    let interval_ms = model::interval_ms(args.interval)?;
    if args.view == View::Overview && !args.filter.is_empty() {
        return Err(CliError::usage("--filter wants a list: add --view sessions, apps or errors"));
    }
    let mut model = Model::new(args.view, interval_ms, &args.filter);
    model.is_ascii = !is_utf8(["LC_ALL", "LC_CTYPE", "LANG"].map(std::env::var_os));
    if args.once {
        return once(model, Source::open(args.socket.clone())?, args.interval);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::usage("top wants a terminal: `hoststack top --once` prints one look as text"));
    }
    let source = Source::open(args.socket.clone())?;
    let signals = Caught::catch()?;
    let mut screen = Screen::open()?;
    watch(&mut screen, model, Lookout::start(source)?, &signals)
}

/// Whether the first of these locales that is set has UTF-8; without one it is POSIX, which has not.
fn is_utf8(locales: [Option<OsString>; 3]) -> bool {
    let locale = locales.into_iter().flatten().find(|locale| !locale.is_empty()).unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The terminal, ours while this lives. A panic gives it back before it prints.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn open() -> Result<Screen, CliError> {
        let opened = ratatui::try_init().map(|terminal| Screen { terminal });
        opened.map_err(|error| {
            give_back();
            broken(error)
        })
    }

    /// Gives the terminal back and stops, until the shell has this process go on.
    fn stop(&mut self) -> Result<(), CliError> {
        self.terminal.show_cursor().map_err(broken)?;
        give_back();
        signal_hook::low_level::emulate_default_handler(SIGTSTP).map_err(broken)?;
        self.take_again()
    }

    /// Takes the terminal as at first, whatever became of it: the shell had it, or something wrote on it.
    fn take_again(&mut self) -> Result<(), CliError> {
        // What was taken and not given back would not be taken anew.
        give_back();
        enable_raw_mode().map_err(broken)?;
        execute!(io::stdout(), EnterAlternateScreen).map_err(broken)?;
        self.terminal.hide_cursor().map_err(broken)?;
        self.terminal.clear().map_err(broken)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal back into the state before.
fn give_back() {
    // One that is gone needs nothing, and nobody would read what is wrong with it.
    let _ = ratatui::try_restore();
}

fn broken(error: io::Error) -> CliError {
    CliError::failed(format!("the terminal does not do what it should: {error}"))
}

/// Signals that came. None ends or stops the process before the terminal is given back.
#[derive(Default)]
struct Caught {
    /// The end is asked for.
    ended: Arc<AtomicBool>,
    /// A stop is asked for.
    stopped: Arc<AtomicBool>,
    /// It goes on after a stop that nobody can catch.
    continued: Arc<AtomicBool>,
}

impl Caught {
    fn catch() -> Result<Caught, CliError> {
        let caught = Caught::default();
        for (signal, flag) in [
            (SIGINT, &caught.ended),
            (SIGTERM, &caught.ended),
            (SIGHUP, &caught.ended),
            (SIGTSTP, &caught.stopped),
            (SIGCONT, &caught.continued),
        ] {
            signal_hook::flag::register(signal, Arc::clone(flag))
                .map_err(|error| CliError::failed(format!("cannot catch signals: {error}")))?;
        }
        Ok(caught)
    }
}

fn watch(
    screen: &mut Screen,
    mut model: Model,
    mut lookout: Lookout,
    signals: &Caught,
) -> Result<(), CliError> {
    let clock = Stopwatch::start();
    let mut next_look = 0.0;
    let mut must_draw = true;
    let mut drawn_at = 0.0;
    while !signals.ended.load(Ordering::Relaxed) {
        if signals.stopped.swap(false, Ordering::Relaxed) {
            screen.stop()?;
            signals.continued.store(false, Ordering::Relaxed);
            must_draw = true;
        }
        if signals.continued.swap(false, Ordering::Relaxed) {
            screen.take_again()?;
            must_draw = true;
        }
        let now = clock.seconds();
        if let Some(look) = lookout.take()? {
            model.on_look(look, now);
            must_draw = true;
        }
        if now >= next_look && !lookout.is_waiting() && !model.is_paused {
            lookout.begin(model.wants());
            next_look = now + interval(&model).as_secs_f64();
        }
        // Once a second at least: how long the stack has been away, and notices, go with time.
        if must_draw || now - drawn_at >= 1.0 {
            screen.terminal.draw(|frame| view::draw(frame, &model, now)).map_err(broken)?;
            (must_draw, drawn_at) = (false, now);
        }
        if !has_event()? {
            continue;
        }
        match event::read().map_err(broken)? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match model.on_key(key) {
                Effect::Quit => return Ok(()),
                Effect::Look => next_look = 0.0,
                Effect::Draw => {}
                Effect::Redraw => screen.terminal.clear().map_err(broken)?,
                // All of the job, as the terminal would do it: a shell waits for each of its processes.
                Effect::Stop => {
                    kill_current_process_group(Signal::TSTP).map_err(|error| broken(error.into()))?
                }
            },
            _ => {}
        }
        must_draw = true;
    }
    Ok(())
}

/// Waits for a key or a new size, a tick at most.
fn has_event() -> Result<bool, CliError> {
    let stdin = io::stdin();
    let mut ends = [PollFd::new(&stdin, PollFlags::IN)];
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK_NS };
    match rustix::event::poll(&mut ends, Some(&tick)) {
        // A signal: of the end, or of a new size.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(broken(error.into())),
    }
    // Of a terminal that has hung up crossterm would read nothing, for ever.
    if ends[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(CliError::Silent);
    }
    event::poll(Duration::ZERO).map_err(broken)
}

fn interval(model: &Model) -> Duration {
    Duration::from_millis(model.interval_ms)
}

/// Two looks, an interval apart so that there are rates, and the screen as text.
fn once(mut model: Model, mut source: Source, interval: Duration) -> Result<(), CliError> {
    for looks in 0..2 {
        if looks > 0 {
            // A wait for a moment that comes; there is nothing else to be done.
            let _ = crossbeam_channel::after(interval).recv();
        }
        model.on_look(source.look(&model.wants()), 0.0);
        if let Link::Gone { why, .. } = &model.link {
            return Err(CliError::failed(why));
        }
    }
    let size = if io::stdout().is_terminal() { ratatui::crossterm::terminal::size().ok() } else { None };
    let (width, height) = size.unwrap_or(PAPER);
    let (width, height) = (width.max(view::SMALLEST.0), height.max(view::SMALLEST.1));
    print(&as_text(&model, width, height))
}

/// The screen as text: what stands on it, without the line of keys.
fn as_text(model: &Model, width: u16, height: u16) -> String {
    let mut terminal =
        Terminal::new(TestBackend::new(width, height)).expect("cannot fail because it is memory");
    terminal.draw(|frame| view::draw(frame, model, 0.0)).expect("cannot fail because it is memory");
    let buffer = terminal.backend().buffer();
    let line = |row: u16| {
        let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    let text: String = (0..height - 1).map(line).collect();
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_that_is_set_says_whether_there_is_more_than_ascii() {
        let is =
            |locales: [&str; 3]| is_utf8(locales.map(|text| (text != "-").then(|| OsString::from(text))));
        assert!(is(["-", "-", "en_GB.UTF-8"]) && is(["-", "C.utf8", "C"]) && is(["", "", "de_DE.UTF-8"]));
        assert!(
            !is(["-", "-", "-"]) && !is(["C", "-", "en_GB.UTF-8"]) && !is(["-", "de_DE.ISO-8859-1", "-"])
        );
    }
}
