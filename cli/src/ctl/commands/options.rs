//! `set option`, `set log` and what shows them: what can be changed while the program runs.
//!
//! A new option is a line of [`OPTIONS`].

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hoststack::tcp::{Blackhole, SynCookies, TcpConfig};
use hoststack::{StackConfig, StackHandle};
use serde_json::{Value, json};

use super::Spec;
use crate::ctl::console::{CommandError, Console, Level, Output, Services, Show};
use crate::ctl::grammar::Matched;
use crate::log::LogControl;
use crate::parse;
use crate::table::{Column, Table};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "show option [OPTION]",
        help: "what can be changed while the stack runs: values, defaults, meaning",
        details: "`*` marks what is not the default.",
        options: &[("OPTION", "only this one")],
        run: |console, matched| {
            let all = match matched.text("OPTION") {
                Some(name) => vec![option(name)?],
                None => OPTIONS.iter().collect(),
            };
            Output::one(Shown::of(all, &console.services.runtime.values()))
        },
        sample: sample_options,
        ..Spec::BASE
    },
    Spec {
        pattern: "set option OPTION VALUE",
        help: "change an option",
        details: "`show option` lists them with what each may be. Connections that are up keep what they took from it at their start, \
                  and timers that run their deadlines. It is not written to the configuration file: the next start has the old value.",
        level: Level::Operator,
        run: set_option,
        sample: sample_options,
        ..Spec::BASE
    },
    Spec {
        pattern: "show log",
        help: "which events are logged",
        run: |console, _| Output::one(Log { filter: log(console.services)?.filter() }),
        sample: || Box::new(Log { filter: "info,hoststack_tcp=debug".to_owned() }),
        ..Spec::BASE
    },
    Spec {
        pattern: "set log LEVELS",
        help: "change which events are logged",
        details: "A level (off, error, warn, info, debug, trace), or levels of targets, with commas between. After a bad one the old one \
                  stays. Builds for release have no `trace`.",
        level: Level::Operator,
        run: |console, matched| {
            let log = log(console.services)?;
            let filter = matched.text("LEVELS").unwrap_or_default();
            log.set_filter(filter).map_err(CommandError::failed)?;
            Output::one(Log { filter: log.filter() })
        },
        sample: || Box::new(Log { filter: "info,hoststack_tcp=debug".to_owned() }),
        ..Spec::BASE
    },
];

/// The values that the stack works by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    tcp: TcpConfig,
    session_log: bool,
}

impl Default for Values {
    fn default() -> Values {
        Values::of(&StackConfig::default())
    }
}

impl Values {
    /// Those that a stack was built with.
    pub(crate) fn of(config: &StackConfig) -> Values {
        Values { tcp: config.tcp, session_log: config.session_log }
    }
}

/// The values, shared by the clients' threads.
#[derive(Debug, Default)]
pub(crate) struct Runtime(Mutex<Values>);

impl Runtime {
    /// Beginning with what the stack was built with.
    pub(crate) fn new(values: Values) -> Runtime {
        Runtime(Mutex::new(values))
    }

    fn values(&self) -> Values {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one, here and in the stack; all values then, and the value that it had.
    fn set(
        &self,
        option: &Setting,
        text: &str,
        stack: &StackHandle,
        log: Option<&LogControl>,
    ) -> Result<(Values, Held), String> {
        let value = option
            .takes
            .read(text)
            .ok_or_else(|| format!("`{}` wants {}, found {text:?}", option.name, option.takes))?;
        // Held until the stack has been told: two clients' changes reach it in the order in which they are made here.
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = *values;
        let mut new = old;
        (option.put)(&mut new, value);
        if new.tcp.rto_min > new.tcp.rto_max || new.tcp.rto_initial > new.tcp.rto_max {
            return Err(
                "`rto-max` may not be below `rto-min` or `rto-initial`: change those first".to_owned()
            );
        }
        if new.tcp != old.tcp {
            stack.set_tcp_config(new.tcp).map_err(|error| error.to_string())?;
        }
        if new.session_log != old.session_log {
            stack.set_session_log(new.session_log).map_err(|error| error.to_string())?;
            if let Some(log) = log {
                log.set_sessions(new.session_log)?;
            }
        }
        *values = new;
        Ok((new, (option.get)(&old)))
    }
}

/// An option that can be changed while the stack runs.
pub(crate) struct Setting {
    name: &'static str,
    meaning: &'static str,
    takes: Takes,
    get: fn(&Values) -> Held,
    put: fn(&mut Values, Held),
}

/// What an option may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Switch,
    /// A number, from and to.
    Number(u32, u32),
    /// A span of time, from and to, in milliseconds.
    Span(u64, u64),
    Words(&'static [&'static str]),
}

/// An option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Switch(bool),
    Number(u32),
    Span(Duration),
    Word(&'static str),
}

impl Takes {
    /// Reads a value; `None`: it is none, or out of bounds.
    fn read(self, text: &str) -> Option<Held> {
        match self {
            Takes::Switch => match text {
                "on" => Some(Held::Switch(true)),
                "off" => Some(Held::Switch(false)),
                _ => None,
            },
            Takes::Number(from, to) => {
                let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number: u32 = text.parse().ok().filter(|_| is_digits)?;
                (from..=to).contains(&number).then_some(Held::Number(number))
            }
            Takes::Span(from, to) => {
                let span = parse::duration(text).ok()?;
                let bounds = Duration::from_millis(from)..=Duration::from_millis(to);
                bounds.contains(&span).then_some(Held::Span(span))
            }
            Takes::Words(words) => words.iter().find(|word| **word == text).map(|word| Held::Word(word)),
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::Switch => f.write_str("on or off"),
            Takes::Number(from, to) => write!(f, "{from} to {to}"),
            Takes::Span(from, to) => {
                let span = |ms| Held::Span(Duration::from_millis(ms));
                write!(f, "{} to {}", span(*from), span(*to))
            }
            Takes::Words(words) => f.write_str(&words.join(", ")),
        }
    }
}

/// As it is typed.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Switch(is_on) => f.write_str(if *is_on { "on" } else { "off" }),
            Held::Number(number) => write!(f, "{number}"),
            Held::Word(word) => f.write_str(word),
            Held::Span(span) => match span.as_micros() {
                us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000),
                us if us % 1000 == 0 => write!(f, "{}ms", us / 1000),
                us => write!(f, "{us}us"),
            },
        }
    }
}

/// An option that is a field of TCP's configuration. The value that `put` is given is one that `takes` has read.
macro_rules! tcp {
    ($name:literal, $meaning:literal, span $field:ident, $from:literal, $to:literal) => {
        tcp!($name, $meaning, $field, Takes::Span($from, $to), Held::Span)
    };
    ($name:literal, $meaning:literal, switch $field:ident) => {
        tcp!($name, $meaning, $field, Takes::Switch, Held::Switch)
    };
    ($name:literal, $meaning:literal, number $field:ident, $from:literal, $to:literal) => {
        Setting {
            name: $name,
            meaning: $meaning,
            takes: Takes::Number($from, $to),
            get: |values| Held::Number(values.tcp.$field.into()),
            put: |values, held| {
                // Cannot fail because the bounds are within the field's type: a test holds it.
                if let Held::Number(number) = held
                    && let Ok(number) = number.try_into()
                {
                    values.tcp.$field = number;
                }
            },
        }
    };
    ($name:literal, $meaning:literal, word $field:ident, $words:ident) => {
        Setting {
            name: $name,
            meaning: $meaning,
            takes: Takes::Words(&names(&$words)),
            get: |values| {
                let word = $words.iter().find(|(_, value)| *value == values.tcp.$field);
                Held::Word(word.map_or("", |(word, _)| word))
            },
            put: |values, held| {
                if let Held::Word(name) = held
                    && let Some((_, value)) = $words.iter().find(|(word, _)| *word == name)
                {
                    values.tcp.$field = *value;
                }
            },
        }
    };
    ($name:literal, $meaning:literal, $field:ident, $takes:expr, $held:path) => {
        Setting {
            name: $name,
            meaning: $meaning,
            takes: $takes,
            get: |values| $held(values.tcp.$field),
            put: |values, held| {
                if let $held(value) = held {
                    values.tcp.$field = value;
                }
            },
        }
    };
}

const SYN_COOKIES: [(&str, SynCookies); 3] = [
    ("never", SynCookies::Never),
    ("under-pressure", SynCookies::UnderPressure),
    ("always", SynCookies::Always),
];

const BLACKHOLE: [(&str, Blackhole); 3] =
    [("off", Blackhole::Off), ("syns", Blackhole::Syns), ("all", Blackhole::All)];

const fn names<T, const N: usize>(words: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = words[index].0;
        index += 1;
    }
    names
}

/// Every option. Limits of pools are not among them: they are fixed when the stack is built.
pub(crate) const OPTIONS: &[Setting] = &[
    Setting {
        name: "session-log",
        meaning: "a line in the log for each session at its end and each connect that failed",
        takes: Takes::Switch,
        get: |values| Held::Switch(values.session_log),
        put: |values, held| {
            if let Held::Switch(is_on) = held {
                values.session_log = is_on;
            }
        },
    },
    tcp!("time-wait", "how long TIME-WAIT lasts: 2 MSL", span time_wait, 1, 600_000),
    tcp!("fin-wait-2", "how long a connection that was closed here waits for the peer's FIN", span fin_wait_2, 1, 600_000),
    tcp!("delayed-ack", "how long an acknowledgment may be delayed", span ack_delay, 0, 499),
    tcp!("quick-acks", "acknowledgments that are not delayed at the start of a connection", number quick_acks, 0, 255),
    tcp!("syn-retries", "SYN retransmissions before a connect is given up", number syn_retries, 0, 30),
    tcp!("syn-ack-retries", "SYN-ACK retransmissions before a handshake is given up", number syn_ack_retries, 0, 30),
    tcp!("retransmits-max", "retransmissions in a row before a connection is given up", number retransmits_max, 1, 30),
    tcp!("rto-initial", "the retransmission timeout before a round trip was measured", span rto_initial, 10, 60_000),
    tcp!("rto-min", "what a retransmission timeout adds to the round trip at least", span rto_min, 1, 60_000),
    tcp!("rto-max", "the greatest retransmission timeout", span rto_max, 1000, 600_000),
    tcp!("initial-window", "segments that may be sent before the first is acknowledged", number initial_window, 1, 10),
    tcp!("idle-restart", "the initial window begins anew after a pause", switch idle_restart),
    tcp!("tail-loss-probe", "the last segment is sent again when nothing is heard of it", switch tail_loss_probe),
    tcp!("limited-transmit", "the first duplicate acknowledgments let new data out", switch limited_transmit),
    tcp!("prr", "in fast recovery the window falls in proportion to what arrives", switch prr),
    tcp!("dsack", "peers are told what they sent twice", switch dsack),
    tcp!("minshall", "a small segment waits only for an earlier small one", switch minshall),
    tcp!("challenge-acks", "challenge acknowledgments of one connection in a second", number challenge_acks_per_second, 0, 255),
    tcp!("syn-cookies", "when SYNs are answered without keeping state", word syn_cookies, SYN_COOKIES),
    tcp!("blackhole", "which segments of no connection get no reset", word blackhole, BLACKHOLE),
];

/// The options' names, for completion.
pub(crate) const NAMES: &[&str] = &{
    let mut names = [""; OPTIONS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = OPTIONS[index].name;
        index += 1;
    }
    names
};

/// The option of that name.
fn option(name: &str) -> Result<&'static Setting, CommandError> {
    OPTIONS
        .iter()
        .find(|option| option.name == name)
        .ok_or_else(|| CommandError::failed(format!("no option is named `{name}`: `show option` lists them")))
}

fn set_option(console: &mut Console<'_>, matched: &Matched) -> Result<Output, CommandError> {
    let option = option(matched.text("OPTION").unwrap_or_default())?;
    let text = matched.text("VALUE").unwrap_or_default();
    let Services { runtime, log, .. } = console.services;
    let changed = runtime.set(option, text, console.stack, log.as_deref());
    let (values, old) = changed.map_err(CommandError::failed)?;
    let mut shown = Shown::of(vec![option], &values);
    shown.rows.iter_mut().for_each(|row| row.was = Some(old.to_string()));
    Output::one(shown)
}

fn log(services: &Services) -> Result<&LogControl, CommandError> {
    services.log.as_deref().ok_or_else(|| CommandError::failed("this program has no log that can be changed"))
}

fn sample_options() -> Box<dyn Show> {
    let mut shown = Shown::of(OPTIONS.iter().take(2).collect(), &Values::default());
    shown.rows.iter_mut().for_each(|row| row.was = Some(row.value.clone()));
    Box::new(shown)
}

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    value: String,
    default: String,
    takes: String,
    meaning: &'static str,
    /// Before it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
}

struct Shown {
    rows: Vec<Row>,
}

impl Shown {
    fn of(options: Vec<&'static Setting>, values: &Values) -> Shown {
        let defaults = Values::default();
        let row = |option: &'static Setting| Row {
            name: option.name,
            value: (option.get)(values).to_string(),
            default: (option.get)(&defaults).to_string(),
            takes: option.takes.to_string(),
            meaning: option.meaning,
            was: None,
        };
        Shown { rows: options.into_iter().map(row).collect() }
    }
}

impl Show for Shown {
    fn text(&self) -> String {
        let columns = ["", "option", "value", "default", "may be", "meaning"];
        let mut table = Table::new(&columns.map(Column::Left));
        for Row { name, value, default, takes, meaning, .. } in &self.rows {
            let mark = if value == default { "" } else { "*" };
            table.row([mark, name, value, default, takes, meaning].map(str::to_owned));
        }
        table.to_string()
    }

    fn json(&self) -> Value {
        json!({ "options": self.rows })
    }
}

struct Log {
    filter: String,
}

impl Show for Log {
    fn text(&self) -> String {
        format!("logged is {}\n", self.filter)
    }

    fn json(&self) -> Value {
        json!({ "filter": self.filter })
    }

    fn headings(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use hoststack::{Query, Stack};

    use super::*;

    /// Another value than the default, at the end of what it may be.
    fn others(option: &Setting) -> Vec<String> {
        let default = (option.get)(&Values::default());
        let all = match option.takes {
            Takes::Switch => vec![Held::Switch(true), Held::Switch(false)],
            Takes::Number(from, to) => vec![Held::Number(from), Held::Number(to)],
            Takes::Span(from, to) => [from, to].map(|ms| Held::Span(Duration::from_millis(ms))).to_vec(),
            Takes::Words(words) => words.iter().map(|word| Held::Word(word)).collect(),
        };
        all.into_iter().filter(|held| *held != default).map(|held| held.to_string()).collect()
    }

    #[test]
    fn each_option_arrives_in_the_stack_and_none_changes_another() {
        let stack = Stack::builder().start().expect("a stack without devices");
        let stack = stack.handle();
        let config = || stack.inspect(Query::Config).expect("it runs").config;
        let built = config();
        for option in OPTIONS {
            let default = (option.get)(&Values::default()).to_string();
            for text in others(option) {
                let runtime = Runtime::default();
                let Ok((values, old)) = runtime.set(option, &text, &stack, None) else {
                    // Refused beside the others' defaults: the timeouts would be out of order.
                    assert!(["rto-min", "rto-initial", "rto-max"].contains(&option.name), "{}", option.name);
                    continue;
                };
                assert_eq!(old.to_string(), default);
                assert_eq!((option.get)(&values).to_string(), text, "{}", option.name);
                assert_eq!(runtime.values(), values);
                let others = OPTIONS.iter().filter(|other| other.name != option.name);
                for other in others {
                    assert_eq!((other.get)(&values), (other.get)(&Values::default()), "{}", other.name);
                }
                let differ = config().iter().zip(&built).filter(|(now, was)| now != was).count();
                assert_eq!(differ, 1, "{} = {text}", option.name);
                runtime.set(option, &default, &stack, None).expect("the default is good");
                assert_eq!(config(), built, "{}", option.name);
            }
        }
    }

    #[test]
    fn a_value_that_is_none_is_answered_with_what_may_be() {
        let stack = Stack::builder().start().expect("a stack without devices");
        let runtime = Runtime::default();
        let error = |name: &str, text: &str| {
            let option = option(name).expect("it is there");
            runtime.set(option, text, &stack.handle(), None).expect_err("it is bad")
        };
        assert_eq!(error("time-wait", "60"), "`time-wait` wants 1ms to 600s, found \"60\"");
        assert_eq!(error("delayed-ack", "500ms"), "`delayed-ack` wants 0s to 499ms, found \"500ms\"");
        assert_eq!(error("session-log", "yes"), "`session-log` wants on or off, found \"yes\"");
        assert_eq!(error("syn-retries", "+1"), "`syn-retries` wants 0 to 30, found \"+1\"");
        assert!(error("syn-cookies", "x").contains("never, under-pressure, always"));
        assert_eq!(runtime.values(), Values::default());
    }

    #[test]
    fn retransmission_timeouts_stay_in_order() {
        let stack = Stack::builder().start().expect("a stack without devices");
        let stack = stack.handle();
        let runtime = Runtime::default();
        let set = |name: &str, text: &str| {
            runtime.set(option(name).expect("it is there"), text, &stack, None).map(|_| ())
        };
        set("rto-initial", "3s").expect("it is below rto-max");
        assert!(set("rto-max", "2s").expect_err("it is below rto-initial").contains("change those first"));
        set("rto-max", "3s").expect("it is not below either");
        assert!(set("rto-min", "4s").is_err());
        assert_eq!(runtime.values().tcp.rto_max, Duration::from_secs(3));
    }

    #[test]
    fn names_are_each_there_once_and_complete() {
        for (index, name) in NAMES.iter().enumerate() {
            assert!(
                !NAMES[..index].contains(name)
                    && name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '2')
            );
        }
        assert_eq!(NAMES.len(), OPTIONS.len());
    }

    #[test]
    fn what_is_not_the_default_is_marked() {
        let mut values = Values::default();
        values.tcp.time_wait = Duration::from_millis(1500);
        let text = Shown::of(OPTIONS.iter().take(2).collect(), &values).text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("   session-log  off     off"), "{text}");
        assert!(lines[2].starts_with("*  time-wait    1500ms  60s      1ms to 600s  how long"), "{text}");
    }
}
