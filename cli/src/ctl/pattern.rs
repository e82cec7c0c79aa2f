//! The language that the table of commands is written in.
//!
//! A pattern is words, as they are typed; `a|b`, one of them; CAPITALS, an argument of that kind ([`super::kinds`]), all the
//! words that are left with `...` behind it; and options in brackets, in any order where several stand together: `[word]`,
//! `[word KIND]`, `[word a|b]`, `[word [KIND]]` whose argument may be left out, `[KIND]` alone, `[one | two KIND]` of which
//! one may be given, and the name of a group of options that several commands share ([`GROUPS`]).

use super::commands::filter;
use super::kinds::{Kind, Source, Value, kind};

/// Options that several commands share.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its name in patterns.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// Its options, as a pattern has them, and what each means.
    pub(crate) options: &'static [(&'static str, &'static str)],
}

/// Every group.
pub(crate) const GROUPS: &[&Group] = &[&filter::GROUP];

/// The group of that name.
pub(crate) fn group(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name).copied()
}

/// A part of a pattern.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// One of these, typed as it is or as the beginning of it.
    Words(Vec<&'static str>),
    /// An argument.
    Argument(Argument),
    /// Something that may be left out: one of these.
    Optional(Vec<Alternative>),
}

/// What an argument may be.
#[derive(Clone, Debug)]
pub(crate) struct Argument {
    /// What it is called: its kind, or the words that it may be.
    pub(crate) name: &'static str,
    takes: Takes,
    /// Whether it is all the words that are left.
    pub(crate) rest: bool,
}

#[derive(Clone, Debug)]
enum Takes {
    Kind(&'static Kind),
    Words(Vec<&'static str>),
}

/// One of the things that an option may be.
#[derive(Clone, Debug)]
pub(crate) struct Alternative {
    /// The word that it begins with; `None`: it is an argument alone.
    pub(crate) word: Option<&'static str>,
    /// What follows.
    pub(crate) argument: Option<Argument>,
    /// Whether that may be left out.
    pub(crate) is_argument_optional: bool,
}

impl Argument {
    fn read(text: &'static str) -> Argument {
        let (name, rest) = text.strip_suffix("...").map_or((text, false), |name| (name, true));
        let takes = match kind(name) {
            Some(kind) => Takes::Kind(kind),
            // A name in capitals that is no kind: a test holds that there is none.
            None => Takes::Words(name.split('|').collect()),
        };
        Argument { name, takes, rest }
    }

    /// Reads one; `None`: it is none.
    pub(crate) fn parse(&self, text: &str) -> Option<Value> {
        match &self.takes {
            Takes::Kind(kind) => (kind.parse)(text),
            Takes::Words(words) => {
                resolve(words.iter().copied(), text).ok().map(|word| Value::Text(word.to_owned()))
            }
        }
    }

    /// What it wants to be, with an example.
    pub(crate) fn wants(&self) -> String {
        match &self.takes {
            Takes::Kind(kind) => format!("{} (like `{}`)", kind.meaning, kind.example),
            Takes::Words(words) => words.join(" or "),
        }
    }

    /// Words that it may be; with where else completion finds some.
    pub(crate) fn candidates(&self) -> (Vec<&'static str>, Source) {
        match &self.takes {
            Takes::Kind(Kind { source: Source::Words(words), .. }) => (words.to_vec(), Source::None),
            Takes::Kind(kind) => (Vec::new(), kind.source),
            Takes::Words(words) => (words.clone(), Source::None),
        }
    }

    /// The kind, if it is not one of a few words.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> Option<&'static Kind> {
        match self.takes {
            Takes::Kind(kind) => Some(kind),
            Takes::Words(_) => None,
        }
    }
}

/// The one of `words` that `text` is, or is the beginning of.
///
/// # Errors
/// Those that begin like it, when that is none or more than one.
pub(crate) fn resolve(
    words: impl IntoIterator<Item = &'static str>,
    text: &str,
) -> Result<&'static str, Vec<&'static str>> {
    let mut begun: Vec<&'static str> = Vec::new();
    for word in words {
        if word == text {
            return Ok(word);
        }
        if !text.is_empty() && word.starts_with(text) && !begun.contains(&word) {
            begun.push(word);
        }
    }
    match begun[..] {
        [word] => Ok(word),
        _ => Err(begun),
    }
}

/// The parts of a pattern, groups replaced by their options.
pub(crate) fn parts(pattern: &'static str) -> Vec<Part> {
    let mut parts = Vec::new();
    for item in items(pattern) {
        let Some(inner) = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')) else {
            parts.push(if is_argument(item) {
                Part::Argument(Argument::read(item))
            } else {
                Part::Words(item.split('|').collect())
            });
            continue;
        };
        match group(inner) {
            Some(group) => parts.extend(group.options.iter().flat_map(|(option, _)| self::parts(option))),
            None => parts.push(Part::Optional(alternatives(inner))),
        }
    }
    parts
}

/// What stands in brackets, one by one: `[a|b]` is `[a | b]`.
fn alternatives(inner: &'static str) -> Vec<Alternative> {
    if inner.contains(" | ") {
        return inner.split(" | ").map(alternative).collect();
    }
    if !inner.contains(' ') && !is_argument(inner) {
        return inner.split('|').map(alternative).collect();
    }
    vec![alternative(inner)]
}

fn alternative(text: &'static str) -> Alternative {
    let (word, argument) = match text.split_once(' ') {
        Some((word, argument)) => (Some(word), Some(argument)),
        None if is_argument(text) => (None, Some(text)),
        None => (Some(text), None),
    };
    let bare = argument.map(|argument| argument.trim_start_matches('[').trim_end_matches(']'));
    Alternative { word, argument: bare.map(Argument::read), is_argument_optional: bare != argument }
}

fn is_argument(item: &str) -> bool {
    item.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Cuts a pattern at blanks that stand in no brackets.
fn items(pattern: &'static str) -> Vec<&'static str> {
    let mut depth = 0usize;
    let cut = pattern.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ' ' && depth == 0
    });
    cut.filter(|item| !item.is_empty()).collect()
}

/// The words and arguments that a command cannot be without: its name in the page.
pub(crate) fn key(pattern: &'static str) -> String {
    let items = items(pattern);
    items.iter().filter(|item| !item.starts_with('[')).copied().collect::<Vec<_>>().join(" ")
}

/// The options of a pattern as they are written there, groups as their name.
pub(crate) fn options(pattern: &'static str) -> Vec<&'static str> {
    let inner = |item: &'static str| item.strip_prefix('[').and_then(|item| item.strip_suffix(']'));
    items(pattern).into_iter().filter_map(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pattern: &'static str) -> String {
        let argument =
            |argument: &Argument| format!("{}{}", argument.name, if argument.rest { "..." } else { "" });
        let alternative = |one: &Alternative| {
            let words = [one.word.map(str::to_owned), one.argument.as_ref().map(argument)];
            let optional = if one.is_argument_optional { "?" } else { "" };
            words.into_iter().flatten().collect::<Vec<_>>().join("=") + optional
        };
        let part = |part: &Part| match part {
            Part::Words(words) => words.join("/"),
            Part::Argument(one) => format!("<{}>", argument(one)),
            Part::Optional(all) => format!("[{}]", all.iter().map(alternative).collect::<Vec<_>>().join(",")),
        };
        parts(pattern).iter().map(part).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn patterns_are_cut_into_their_parts() {
        assert_eq!(
            shape("show session [verbose [1|2|3]] [limit N]"),
            "show session [verbose=1|2|3?] [limit=N]"
        );
        assert_eq!(shape("clear errors|counters"), "clear errors/counters");
        assert_eq!(
            shape("app detach NAME [app-worker N] [now | linger SPAN]"),
            "app detach <NAME> [app-worker=N] [now,linger=SPAN]"
        );
        assert_eq!(shape("show app [NAME] [a|b]"), "show app [NAME] [a,b]");
        assert_eq!(shape("watch INTERVAL [count N] COMMAND..."), "watch <INTERVAL> [count=N] <COMMAND...>");
        assert_eq!(shape("x [sort age|queued]"), "x [sort=age|queued]");
        assert!(shape("x [FILTER]").starts_with("x [worker=WORKER] [app=NAME]"));
        assert_eq!(key("session close|reset HANDLE [now] [limit N]"), "session close|reset HANDLE");
        assert_eq!(options("x Y [now | linger SPAN] [FILTER]"), ["now | linger SPAN", "FILTER"]);
    }

    #[test]
    fn a_word_is_found_by_its_beginning_when_only_one_has_it() {
        let words = ["session", "set", "show"];
        assert_eq!(resolve(words, "ses"), Ok("session"));
        assert_eq!(resolve(words, "set"), Ok("set"));
        assert_eq!(resolve(words, "s"), Err(vec!["session", "set", "show"]));
        assert_eq!(resolve(words, "x"), Err(vec![]));
        assert_eq!(resolve(words, ""), Err(vec![]));
    }
}
