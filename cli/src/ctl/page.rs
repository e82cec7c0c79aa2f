//! `docs/cli.md`, written from the table of commands: what is typed, what it does, what its JSON has.

use std::collections::{BTreeMap, BTreeSet};

use hoststack::net::PacketFilter;
use serde_json::Value;

use super::commands::{Spec, commands, help};
use super::console::Level;
use super::kinds::KINDS;
use super::line::FILTERS;
use super::pattern::{GROUPS, key};

const HEAD: &str = include_str!("page/head.md");

/// The page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut write = |line: String| {
        page.push_str(&line);
        page.push('\n');
    };
    write("## Filters of lines\n".to_owned());
    for (name, meaning) in FILTERS {
        write(format!("- `| {name} PATTERN`: {meaning}."));
    }
    write("\n## Arguments\n\nWhat the names in capitals stand for, each with an example.\n".to_owned());
    for kind in KINDS {
        write(format!("- `{}`: {}; `{}`.", kind.name, kind.meaning, kind.example));
    }
    for group in GROUPS {
        write(format!("\n## `[{}]`\n\n{}.\n", group.name, capitalized(group.help)));
        for (option, meaning) in group.options {
            write(format!("- `{}`: {meaning}.", option.trim_matches(['[', ']'])));
        }
    }
    write(
        "\n## `[PACKETS...]`\n\nChooses packets: each word that is given must hold. A packet that\n"
            .to_owned(),
    );
    for (word, wants, meaning) in PacketFilter::WORDS {
        write(format!("- `{}`: {meaning}.", format!("{word} {wants}").trim_end()));
    }
    write("\n## Commands".to_owned());
    for spec in commands() {
        write(format!("\n### {}", key(spec.pattern)));
        write(format!("\n    {}\n", spec.pattern));
        write(format!("{}.{}", capitalized(spec.help), operator(spec)));
        if !spec.details.is_empty() {
            write(format!("\n{}", spec.details));
        }
        let options = help::explained(spec);
        // A group's options stand in its own section.
        let own = options.iter().filter(|(name, _)| spec.options.iter().any(|(other, _)| other == name));
        let lines: Vec<String> = own.map(|(name, meaning)| format!("- `{name}`: {meaning}.")).collect();
        if !lines.is_empty() {
            write(format!("\n{}", lines.join("\n")));
        }
        let shown = (spec.sample)();
        let text = shown.text();
        if !text.is_empty() {
            write(format!("\n```text\n{}```", text));
        }
        let fields = fields(&shown.json());
        if !text.is_empty() && !fields.is_empty() {
            let line = |(path, kinds): (&String, &BTreeSet<&str>)| {
                format!("- `{path}` {}", kinds.iter().copied().collect::<Vec<_>>().join(" or "))
            };
            let lines: Vec<String> = fields.iter().map(line).collect();
            write(format!("\nJSON:\n\n{}", lines.join("\n")));
        }
    }
    page
}

fn operator(spec: &Spec) -> &'static str {
    match spec.level {
        Level::User => "",
        Level::Operator => " Needs the level operator.",
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// The paths of a value with the types that stand there, `sessions[].handle` is a `number`.
fn fields(value: &Value) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut fields = BTreeMap::new();
    descend(value, "", &mut fields);
    fields
}

fn descend(value: &Value, path: &str, fields: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| descend(item, &format!("{path}[]"), fields));
            "array"
        }
        Value::Object(map) => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                descend(value, &path, fields);
            }
            "object"
        }
    };
    if !path.is_empty() {
        fields.entry(path.to_owned()).or_default().insert(kind);
    }
}

/// What a page says of each command's JSON: a path's type, by command and path.
#[cfg(test)]
fn promised(page: &str) -> BTreeMap<(String, String), String> {
    let mut promised = BTreeMap::new();
    let mut command = None;
    let mut is_json = false;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            (command, is_json) = (Some(heading.to_owned()), false);
        } else if line == "JSON:" {
            is_json = true;
        } else if is_json
            && let Some(command) = &command
            && let Some((path, kind)) = line.strip_prefix("- `").and_then(|line| line.split_once("` "))
        {
            promised.insert((command.clone(), path.to_owned()), kind.to_owned());
        }
    }
    promised
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::pattern;

    fn stored() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")
    }

    #[test]
    fn no_field_that_the_page_promises_is_gone_or_of_another_type() {
        let page = page();
        let file = stored();
        let was = std::fs::read_to_string(&file).unwrap_or_default();
        let now = promised(&page);
        let broken: Vec<_> =
            promised(&was).into_iter().filter(|(path, kind)| now.get(path) != Some(kind)).collect();
        // What is given up for good is taken out of the page by hand, in the same commit.
        assert!(broken.is_empty(), "docs/cli.md promises what no sample has: {broken:#?}");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&file, &page).expect("the page can be written");
        } else {
            assert!(page == was, "docs/cli.md is old: UPDATE_SNAPSHOTS=1 writes it anew");
        }
    }

    #[test]
    fn a_promise_is_read_back_and_its_break_is_seen() {
        let page = page();
        let promised = promised(&page);
        let of = |command: &str, path: &str| {
            promised.get(&(command.to_owned(), path.to_owned())).map(String::as_str)
        };
        assert_eq!(of("show leaks", "leaks.sessions"), Some("number"));
        assert_eq!(of("show session", "sessions[].declared"), Some("string"));
        assert_eq!(of("show app", "apps[].app_workers[].outcomes.established"), Some("number"));
        let other = super::promised(&page.replace("- `leaks.sessions` number", "- `leaks.sessions` string"));
        assert_ne!(promised, other);
    }

    #[test]
    fn every_command_is_described_and_has_a_sample() {
        let mut keys = Vec::new();
        for spec in commands() {
            let pattern = spec.pattern;
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{pattern}");
            for (option, meaning) in help::explained(spec) {
                assert!(!meaning.is_empty(), "{pattern}: {option} has no meaning");
            }
            for (option, _) in spec.options {
                assert!(pattern::options(pattern).contains(option), "{pattern} has no option {option}");
            }
            let sample = (spec.sample)();
            assert!(sample.text().is_empty() || sample.text().ends_with('\n'), "{pattern}");
            assert!(sample.headings() <= sample.text().lines().count(), "{pattern}");
            let null = fields(&sample.json()).into_iter().find(|(_, kinds)| kinds.contains("null"));
            assert_eq!(null, None, "{pattern}: every field of a sample is set");
            let key = key(pattern);
            assert!(!keys.contains(&key), "{key} twice");
            keys.push(key);
        }
    }
}
