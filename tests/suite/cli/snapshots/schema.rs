//! What the page promises of each command's JSON, and whether answers keep it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Paths with the types that stand there.
pub(super) type Paths = BTreeMap<String, BTreeSet<&'static str>>;

/// Objects whose keys are names of variables, which no page lists: below them is text.
const OPEN: [&str; 3] = ["detail.transport", "detail.measured", "detail.layer.state"];

/// By pattern, each path with its type, from the page that `hoststack ctl --page` prints.
pub(super) fn promised(page: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut promised: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let (mut pattern, mut is_json) = (None, false);
    for line in page.lines() {
        if line.starts_with("### ") {
            (pattern, is_json) = (None, false);
        } else if let (None, Some(typed)) = (&pattern, line.strip_prefix("    ")) {
            promised.entry(typed.to_owned()).or_default();
            pattern = Some(typed.to_owned());
        } else if line == "JSON:" {
            is_json = true;
        } else if let (true, Some(pattern), Some((path, kind))) =
            (is_json, &pattern, line.strip_prefix("- `").and_then(|line| line.split_once("` ")))
        {
            promised.entry(pattern.clone()).or_default().insert(path.to_owned(), kind.to_owned());
        }
    }
    promised
}

/// Adds a value's paths.
pub(super) fn descend(value: &Value, path: &str, paths: &mut Paths) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| descend(item, &format!("{path}[]"), paths));
            "array"
        }
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|_| !is_open(path)) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                descend(value, &path, paths);
            }
            "object"
        }
    };
    if !path.is_empty() {
        paths.entry(path.to_owned()).or_default().insert(kind);
    }
}

fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| path.ends_with(open))
}

/// Whether a promise is about one variable of an open object.
fn is_below_open(path: &str) -> bool {
    OPEN.iter().any(|open| path.contains(&format!("{open}.")))
}

/// What an answer has that is not promised, or is of another type; no value may stand for every one.
pub(super) fn broken(promised: &BTreeMap<String, String>, seen: &Paths) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, kinds) in seen {
        let kinds = kinds.iter().filter(|kind| **kind != "null");
        match promised.get(path) {
            None => broken.push(format!("{path} is not on the page")),
            Some(promise) => broken.extend(
                kinds
                    .filter(|kind| promise.split(" or ").all(|promise| promise != **kind))
                    .map(|kind| format!("{path} is a {kind}, and the page says {promise}")),
            ),
        }
    }
    broken
}

/// What is promised and was in no answer.
pub(super) fn unseen<'p>(promised: &'p BTreeMap<String, String>, seen: &Paths) -> Vec<&'p str> {
    promised
        .keys()
        .filter(|path| !seen.contains_key(*path) && !is_below_open(path))
        .map(String::as_str)
        .collect()
}

#[test]
fn what_is_not_promised_or_of_another_type_is_seen() {
    let page = "### x\n\n    show x [all]\n\nHelp.\n\nJSON:\n\n- `list` array\n- `list[]` object\n- `list[].a` string\n- `b` number\n";
    let promised = promised(page);
    let promised = &promised["show x [all]"];
    let paths = |value: Value| {
        let mut paths = Paths::new();
        descend(&value, "", &mut paths);
        paths
    };
    let good = paths(serde_json::json!({ "list": [{ "a": null }] }));
    assert_eq!((broken(promised, &good), unseen(promised, &good)), (Vec::new(), vec!["b"]));
    let bad = paths(serde_json::json!({ "list": [{ "a": 1, "c": 1 }] }));
    assert_eq!(
        broken(promised, &bad),
        ["list[].a is a number, and the page says string", "list[].c is not on the page"]
    );
}
