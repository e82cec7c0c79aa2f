//! Who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, Package};

/// The whole graph inside the workspace: a crate and all that it may depend on.
///
/// `tcp` and `session` never name each other: `stack` owns both and lends one to the other for a single call.
pub const GRAPH: &[(&str, &[&str])] = &[
    ("hoststack-wire", &[]),
    ("hoststack-transport", &[]),
    ("hoststack-tcp", &["hoststack-wire", "hoststack-transport"]),
    ("hoststack-kernel", &["hoststack-transport"]),
    ("hoststack-local", &["hoststack-transport"]),
    ("hoststack-session", &["hoststack-transport", "hoststack-wire"]),
    ("hoststack-net", &["hoststack-wire"]),
    ("hoststack-app", &["hoststack-session", "hoststack-transport"]),
    ("hoststack-builtin", &["hoststack-app", "hoststack-session", "hoststack-transport"]),
    ("hoststack-tls", &["hoststack-session", "hoststack-transport"]),
    (
        "hoststack",
        &[
            "hoststack-wire",
            "hoststack-transport",
            "hoststack-tcp",
            "hoststack-kernel",
            "hoststack-local",
            "hoststack-session",
            "hoststack-net",
            "hoststack-app",
        ],
    ),
    ("hoststack-benches", &["hoststack", "hoststack-app", "hoststack-builtin"]),
    (
        "hoststack-cli",
        &["hoststack", "hoststack-app", "hoststack-builtin", "hoststack-benches", "hoststack-tls"],
    ),
    (
        "hoststack-tests",
        &[
            "hoststack-wire",
            "hoststack-transport",
            "hoststack-tcp",
            "hoststack-kernel",
            "hoststack-session",
            "hoststack-net",
            "hoststack-app",
            "hoststack-builtin",
            "hoststack-tls",
            "hoststack",
            "hoststack-benches",
        ],
    ),
    ("hoststack-packetdrill", &["hoststack-wire", "hoststack"]),
    ("hoststack-fuzz", &["hoststack-wire", "hoststack-transport", "hoststack-tcp", "hoststack-session"]),
];

/// What the tests of a crate may depend on besides. Nothing that is built for others goes this way.
pub const TESTS: &[(&str, &[&str])] = &[
    // They drive its apps through a whole stack.
    ("hoststack-builtin", &["hoststack"]),
    // It runs under its apps.
    ("hoststack", &["hoststack-tls"]),
];

/// Crates that must work without `std`.
pub const NO_STD: &[&str] = &["hoststack-wire", "hoststack-transport", "hoststack-tcp"];

/// Crate -> the crates of the workspace that its manifest names, each with whether only for its tests.
pub type Edges = BTreeMap<String, BTreeSet<(String, Use)>>;

/// What a dependency is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The crate itself, or its build script.
    Library,
    /// Its tests, examples and benchmarks.
    Tests,
}

/// The graph as it is.
#[must_use]
pub fn edges(metadata: &Metadata) -> Edges {
    let members = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    members
        .iter()
        .map(|package| {
            // A crate that names itself (to switch a feature on in its own tests) adds no edge.
            let is_edge = |name: &str| names.contains(name) && name != package.name.as_str();
            let inside = package.dependencies.iter().filter(|dependency| is_edge(&dependency.name));
            let named = inside.map(|dependency| {
                let is_for_tests = dependency.kind == DependencyKind::Development;
                (dependency.name.clone(), if is_for_tests { Use::Tests } else { Use::Library })
            });
            (package.name.to_string(), named.collect())
        })
        .collect()
}

/// A table of crates and what they may name.
pub type Allowed<'a> = &'a [(&'a str, &'a [&'a str])];

/// What `actual` has that `allowed` (and `in_tests`, for tests) has not, and crates that either does not know.
#[must_use]
pub fn complaints(actual: &Edges, allowed: Allowed<'_>, in_tests: Allowed<'_>) -> Vec<String> {
    let may = |table: Allowed<'_>, from: &str, to: &str| {
        table.iter().any(|(name, list)| *name == from && list.contains(&to))
    };
    let mut complaints = Vec::new();
    for (from, to) in actual {
        if !allowed.iter().any(|(name, _)| name == from) {
            complaints.push(format!("{from} has no place in the graph: add it to GRAPH and to the design"));
            continue;
        }
        let is_allowed =
            |to: &str, what: Use| may(allowed, from, to) || (what == Use::Tests && may(in_tests, from, to));
        let forbidden = to.iter().filter(|(to, what)| !is_allowed(to, *what));
        complaints.extend(forbidden.map(|(to, _)| format!("{from} must not depend on {to}")));
    }
    let gone = allowed.iter().filter(|(name, _)| !actual.contains_key(*name));
    complaints.extend(gone.map(|(name, _)| format!("{name} is in GRAPH but not in the workspace")));
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

    fn edges(list: &[(&str, &[(&str, Use)])]) -> Edges {
        let named = |to: &[(&str, Use)]| to.iter().map(|(to, what)| ((*to).to_owned(), *what)).collect();
        list.iter().map(|(from, to)| ((*from).to_owned(), named(to))).collect()
    }

    #[test]
    fn allowed_edges_and_missing_ones_pass() {
        let allowed: Allowed<'_> = &[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])];
        let actual = edges(&[("a", &[]), ("b", &[("a", Use::Tests)]), ("c", &[("b", Use::Library)])]);
        assert_eq!(complaints(&actual, allowed, &[]), [""; 0]);
    }

    #[test]
    fn forbidden_edges_unknown_and_vanished_crates_are_named() {
        let allowed: Allowed<'_> = &[("a", &[]), ("b", &["a"])];
        let found = complaints(&edges(&[("a", &[("b", Use::Library)]), ("x", &[])]), allowed, &[]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("a must not depend on b"));
        assert!(found[1].starts_with("x has no place"));
        assert!(found[2].starts_with("b is in GRAPH"));
    }

    #[test]
    fn what_tests_may_name_the_crate_itself_may_not() {
        let allowed: Allowed<'_> = &[("a", &[]), ("b", &["a"])];
        let in_tests: Allowed<'_> = &[("a", &["b"])];
        let graph = |what| edges(&[("a", &[("b", what)]), ("b", &[])]);
        assert_eq!(complaints(&graph(Use::Tests), allowed, in_tests), [""; 0]);
        assert_eq!(complaints(&graph(Use::Library), allowed, in_tests), ["a must not depend on b"]);
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
