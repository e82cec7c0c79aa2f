//! Rules for documents.

use std::collections::BTreeSet;

use super::SourceFile;

/// Files that a clone must have.
pub const REQUIRED: &[&str] = &[
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "deny.toml",
    "clippy.toml",
    "rustfmt.toml",
    ".ci/run",
    "docs/ARCHITECTURE.md",
    "docs/TESTING.md",
    "docs/GLOSSARY.md",
    "docs/dependencies.md",
    "docs/rfc9293.md",
];

/// The two commands that README promises.
pub const README_COMMANDS: &[&str] = &["cargo run --release -- echo", "cargo test --workspace"];

/// Words of the workshop that mean nothing to a reader of the project. Split, so that this file has none.
const WORKSHOP: &[&str] = &[concat!("far", "m-"), concat!("/wo", "rk/"), concat!("/tmp/", "helpers")];

/// Required files that are not there, or are empty.
#[must_use]
pub fn missing(files: &[SourceFile], required: &[&str]) -> Vec<String> {
    let is_there = |path: &str| files.iter().any(|file| file.path == path && !file.text.trim().is_empty());
    required.iter().filter(|path| !is_there(path)).map(|path| format!("{path} is missing or empty")).collect()
}

/// Lines that name the workshop's own tools or folders.
#[must_use]
pub fn workshop_names(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let names = WORKSHOP.iter().filter(|name| has_name(line, name));
            complaints.extend(names.map(|name| format!("{}:{}: names {name}", file.path, number + 1)));
        }
    }
    complaints
}

/// Whether `name` begins a word of `line`.
fn has_name(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-'))
}

/// Names that have a line `- `name`: reason` in the list of dependencies.
#[must_use]
pub fn listed_dependencies(list: &SourceFile) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in list.text.lines() {
        let entry = line.strip_prefix("- `").and_then(|rest| rest.split_once("`: "));
        if let Some((name, reason)) = entry
            && !reason.trim().is_empty()
        {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Differences between the list of dependencies and those that manifests name.
#[must_use]
pub fn dependency_list(listed: &BTreeSet<String>, named: &BTreeSet<String>) -> Vec<String> {
    let unlisted = named.difference(listed).map(|name| format!("{name} has no line in docs/dependencies.md"));
    let stale =
        listed.difference(named).map(|name| format!("docs/dependencies.md lists {name}, used by no crate"));
    unlisted.chain(stale).collect()
}

/// Links in Markdown to files of the project that are not there.
#[must_use]
pub fn broken_links(files: &[SourceFile]) -> Vec<String> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let is_there = |path: &str| {
        let folder = format!("{}/", path.trim_end_matches('/'));
        paths.contains(path) || paths.iter().any(|other| other.starts_with(&folder))
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = resolve(&file.path, target);
            if !is_there(&path) {
                complaints.push(format!("{}: the link to {target} leads nowhere", file.path));
            }
        }
    }
    complaints
}

/// `target` as seen from the folder of the file `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_files_count_as_missing() {
        let files = [SourceFile::new("A", "text"), SourceFile::new("B", " \n")];
        assert_eq!(missing(&files, &["A", "B", "C"]), ["B is missing or empty", "C is missing or empty"]);
    }

    #[test]
    fn workshop_names_are_found_where_a_word_begins() {
        let line = format!("see {}x and server-{}y", WORKSHOP[1], WORKSHOP[0]);
        let found = workshop_names(&[SourceFile::new("a.md", &line)]);
        assert_eq!(found, [format!("a.md:1: names {}", WORKSHOP[1])]);
    }

    #[test]
    fn dependencies_are_listed_both_ways() {
        let list = SourceFile::new("d.md", "# x\n- `a`: because\n- `b`: \n- c: no\n- `d`: gone\n");
        let named = ["a", "b"].map(str::to_owned).into_iter().collect();
        let found = dependency_list(&listed_dependencies(&list), &named);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("b has no line"));
        assert!(found[1].contains("lists d"));
    }

    #[test]
    fn links_lead_to_files_and_folders() {
        let files = [
            SourceFile::new(
                "README.md",
                "[a](docs/A.md#top) [b](https://x) [c](docs/) [d](docs/B.md) [e](#here)",
            ),
            SourceFile::new("docs/A.md", "[up](../README.md) [gone](gone.md)"),
        ];
        let found = broken_links(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("docs/B.md") && found[1].contains("gone.md"));
    }
}
