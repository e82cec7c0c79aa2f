//! Who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Metadata, Package};

/// The whole graph inside the workspace: a crate and all that it may depend on, in any manner (build and tests too).
///
/// `tcp` and `session` never name each other: `stack` owns both and lends one to the other for a single call.
pub const GRAPH: &[(&str, &[&str])] = &[
    ("hoststack-wire", &[]),
    ("hoststack-transport", &[]),
    ("hoststack-tcp", &["hoststack-wire", "hoststack-transport"]),
    ("hoststack-session", &["hoststack-transport"]),
    ("hoststack-net", &["hoststack-wire"]),
    ("hoststack-app", &["hoststack-session", "hoststack-transport"]),
    // Its own tests drive its apps through a whole stack.
    ("hoststack-builtin", &["hoststack-app", "hoststack-session", "hoststack-transport", "hoststack"]),
    (
        "hoststack",
        &[
            "hoststack-wire",
            "hoststack-transport",
            "hoststack-tcp",
            "hoststack-session",
            "hoststack-net",
            "hoststack-app",
        ],
    ),
    ("hoststack-benches", &["hoststack", "hoststack-app", "hoststack-builtin"]),
    ("hoststack-cli", &["hoststack", "hoststack-app", "hoststack-builtin", "hoststack-benches"]),
    (
        "hoststack-tests",
        &[
            "hoststack-wire",
            "hoststack-transport",
            "hoststack-tcp",
            "hoststack-session",
            "hoststack-net",
            "hoststack-app",
            "hoststack-builtin",
            "hoststack",
            "hoststack-benches",
        ],
    ),
];

/// Crates that must work without `std`.
pub const NO_STD: &[&str] = &["hoststack-wire", "hoststack-transport", "hoststack-tcp"];

/// Crate -> the crates of the workspace that its manifest names, whatever the kind of dependency.
pub type Edges = BTreeMap<String, BTreeSet<String>>;

/// The graph as it is.
#[must_use]
pub fn edges(metadata: &Metadata) -> Edges {
    let members = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    members
        .iter()
        .map(|package| {
            // A crate that names itself (to switch a feature on in its own tests) adds no edge.
            let inside = package.dependencies.iter().map(|dependency| dependency.name.as_str());
            let inside = inside.filter(|name| names.contains(name) && *name != package.name.as_str());
            (package.name.to_string(), inside.map(str::to_owned).collect())
        })
        .collect()
}

/// What `actual` has that `allowed` has not, and crates that either does not know.
#[must_use]
pub fn complaints(actual: &Edges, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = allowed.iter().copied().collect();
    let mut complaints = Vec::new();
    for (from, to) in actual {
        let Some(may) = allowed.get(from.as_str()) else {
            complaints.push(format!("{from} has no place in the graph: add it to GRAPH and to the design"));
            continue;
        };
        let forbidden = to.iter().filter(|to| !may.contains(&to.as_str()));
        complaints.extend(forbidden.map(|to| format!("{from} must not depend on {to}")));
    }
    let gone = allowed.keys().filter(|name| !actual.contains_key(**name));
    complaints.extend(gone.map(|name| format!("{name} is in GRAPH but not in the workspace")));
    complaints
}

/// Names of the crates from outside that a member's manifest names.
#[must_use]
pub fn outside(package: &Package) -> BTreeSet<String> {
    package.dependencies.iter().filter(|d| d.path.is_none()).map(|d| d.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(list: &[(&str, &[&str])]) -> Edges {
        list.iter()
            .map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn allowed_edges_and_missing_ones_pass() {
        let allowed: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])];
        assert_eq!(complaints(&edges(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]), allowed), [""; 0]);
    }

    #[test]
    fn forbidden_edges_unknown_and_vanished_crates_are_named() {
        let allowed: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"])];
        let found = complaints(&edges(&[("a", &["b"]), ("x", &[])]), allowed);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("a must not depend on b"));
        assert!(found[1].starts_with("x has no place"));
        assert!(found[2].starts_with("b is in GRAPH"));
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each crate may depend only on crates listed above it, benches and cli included.
        let mut above = BTreeSet::new();
        for (name, may) in GRAPH {
            for to in *may {
                assert!(above.contains(to), "{name} -> {to}");
            }
            above.insert(*name);
        }
    }

    #[test]
    fn tcp_and_session_never_name_each_other() {
        let may = |name| GRAPH.iter().find(|(from, _)| *from == name).unwrap().1;
        assert!(!may("hoststack-tcp").contains(&"hoststack-session"));
        assert!(!may("hoststack-session").contains(&"hoststack-tcp"));
    }
}
