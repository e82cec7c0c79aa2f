//! `help`, and the commands that the client does by itself.

use hoststack::net::PacketFilter;
use serde_json::{Value, json};

use super::{Spec, commands};
use crate::ctl::console::{CommandError, Level, Output, Show};
use crate::ctl::grammar::Matched;
use crate::ctl::line::FILTERS;
use crate::ctl::pattern::{group, key, options};
use crate::table::pairs;

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        pattern: "help [COMMAND...]",
        help: "this list, or all about the commands that begin like COMMAND",
        options: &[("COMMAND...", "the beginning of one or several, like `help show`")],
        run: |_, matched| Output::one(of(matched).map_err(CommandError::failed)?),
        sample: || {
            Box::new(Help {
                specs: commands().filter(|spec| spec.pattern.starts_with("app detach")).collect(),
                is_list: false,
            })
        },
        ..Spec::BASE
    },
    Spec {
        pattern: "watch INTERVAL [count N] COMMAND...",
        help: "do a command again and again, until Ctrl-C or so many times",
        details: "`hoststack ctl` does this by itself; on a terminal it clears the screen each time.",
        options: &[("count N", "so many times")],
        run: |_, _| {
            Err(CommandError::failed(
                "`watch` is done by `hoststack ctl`, which wants it in full, alone on its line; over the socket, ask again instead",
            ))
        },
        ..Spec::BASE
    },
];

/// Commands, explained.
pub(crate) struct Help {
    specs: Vec<&'static Spec>,
    is_list: bool,
}

/// What `help` was asked for.
///
/// # Errors
/// No command begins like that.
pub(crate) fn of(matched: &Matched) -> Result<Help, String> {
    let prefix = matched.text("COMMAND").unwrap_or_default();
    about(prefix).ok_or_else(|| format!("no command begins like `{prefix}`: `help` lists what there is"))
}

/// All about the commands that begin like this, word by word; without a word, the list. `None`: none does.
fn about(prefix: &str) -> Option<Help> {
    let typed: Vec<&str> = prefix.split_whitespace().collect();
    let fits = |spec: &&Spec| {
        let key = key(spec.pattern);
        let words: Vec<&str> = key.split(' ').collect();
        typed.len() <= words.len()
            && typed
                .iter()
                .zip(words)
                .all(|(typed, word)| word.split('|').any(|word| word.starts_with(typed)))
    };
    let specs: Vec<&'static Spec> = commands().filter(fits).collect();
    (!specs.is_empty()).then_some(Help { specs, is_list: typed.is_empty() })
}

/// The option whose words are explained one by one.
const PACKETS: &str = "PACKETS...";

/// The words that choose packets, with what follows each and what it means.
fn packet_words() -> impl Iterator<Item = (&'static str, String)> {
    PacketFilter::WORDS.iter().map(|(word, wants, meaning)| match *wants {
        "" => (*word, (*meaning).to_owned()),
        wants => (*word, format!("{wants}: {meaning}")),
    })
}

/// Options of a command with their meanings, a group's one by one.
pub(crate) fn explained(spec: &Spec) -> Vec<(&'static str, String)> {
    let mut explained = Vec::new();
    for option in options(spec.pattern) {
        match group(option) {
            Some(group) => {
                let bare = |option: &'static str| option.trim_start_matches('[').trim_end_matches(']');
                explained.extend(
                    group.options.iter().map(|(option, meaning)| (bare(option), (*meaning).to_owned())),
                );
            }
            None => {
                let meaning = spec.options.iter().find(|(name, _)| *name == option);
                explained.push((option, meaning.map_or(String::new(), |(_, meaning)| (*meaning).to_owned())));
                if option == PACKETS {
                    explained.extend(packet_words());
                }
            }
        }
    }
    explained
}

impl Show for Help {
    fn text(&self) -> String {
        if self.is_list {
            // Without their options, or no line would fit a terminal.
            let keys: Vec<String> = self.specs.iter().map(|spec| key(spec.pattern)).collect();
            let list = pairs(
                keys.iter().map(String::as_str).zip(self.specs.iter().map(|spec| spec.help.to_owned())),
            );
            let filters: Vec<String> =
                FILTERS.iter().map(|(name, _)| format!("`| {name} PATTERN`")).collect();
            return format!(
                "{list}\nA beginning that fits one word only stands for it. Several commands: `;` between them. {} behind a\n\
                 command choose among its lines, `--json` gives JSON. `help COMMAND` says what may follow it.\n",
                filters.join(" and ")
            );
        }
        let one = |spec: &&Spec| {
            let mut text = format!("{}\n    {}\n", spec.pattern, spec.help);
            if !spec.details.is_empty() {
                text.push_str(&format!("    {}\n", spec.details));
            }
            let options = explained(spec);
            let options = pairs(options.iter().map(|(name, meaning)| (*name, meaning.clone())));
            options.lines().for_each(|line| text.push_str(&format!("      {}\n", line.trim_end())));
            if spec.level == Level::Operator {
                text.push_str("    needs the level operator\n");
            }
            text
        };
        self.specs.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Value {
        let one = |spec: &&Spec| {
            let options: Vec<Value> = explained(spec)
                .into_iter()
                .map(|(option, meaning)| json!({ "option": option, "meaning": meaning }))
                .collect();
            json!({
                "pattern": spec.pattern,
                "help": spec.help,
                "details": spec.details,
                "level": spec.level,
                "options": options,
            })
        };
        json!({ "commands": self.specs.iter().map(one).collect::<Vec<Value>>() })
    }

    fn headings(&self) -> usize {
        0
    }
}
