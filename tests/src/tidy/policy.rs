//! `deny.toml` applied to `cargo metadata`: licences, bans, sources.
//!
//! The file is cargo-deny's, and cargo-deny may be run on it. Reading it here as well means that the rules hold on
//! every machine that runs the tests, without an installation. Of its sections `licenses.allow`, `bans.deny`
//! (`crate`, `wrappers`) and `sources.allow-registry` are applied.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Metadata;

/// What `deny.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    /// Banned crate -> crates that may depend on it all the same.
    bans: BTreeMap<String, BTreeSet<String>>,
}

impl Policy {
    /// Reads `deny.toml`.
    ///
    /// # Errors
    /// A sentence that names the key that is missing or of the wrong kind.
    pub fn parse(text: &str) -> Result<Self, String> {
        let root: toml::Table = text.parse().map_err(|error| format!("deny.toml: {error}"))?;
        let mut bans = BTreeMap::new();
        for ban in value(&root, "bans", "deny")?.as_array().ok_or("deny.toml: bans.deny is no list")? {
            let ban = ban.as_table().ok_or("deny.toml: an entry of bans.deny is no table")?;
            let name = ban.get("crate").and_then(toml::Value::as_str);
            let name = name.ok_or("deny.toml: an entry of bans.deny has no `crate`")?;
            let has_reason =
                ban.get("reason").and_then(toml::Value::as_str).is_some_and(|text| !text.is_empty());
            if !has_reason {
                return Err(format!("deny.toml: the ban of {name} gives no `reason`"));
            }
            let wrappers = match ban.get("wrappers") {
                Some(list) => strings(list).ok_or_else(|| format!("deny.toml: wrappers of {name}"))?,
                None => BTreeSet::new(),
            };
            bans.insert(name.to_owned(), wrappers);
        }
        let list = |section, key| {
            strings(value(&root, section, key)?)
                .ok_or_else(|| format!("deny.toml: {section}.{key} is no list of strings"))
        };
        Ok(Self {
            licences: list("licenses", "allow")?,
            registries: list("sources", "allow-registry")?,
            bans,
        })
    }

    /// Packages whose licence expression the allowed licences do not satisfy.
    #[must_use]
    pub fn licence_complaints(&self, metadata: &Metadata) -> Vec<String> {
        metadata
            .packages
            .iter()
            .filter_map(|package| {
                let name = &package.name;
                match package.license.as_deref() {
                    None => Some(format!("{name} names no licence")),
                    Some(expression) => match satisfies(expression, &self.licences) {
                        Some(true) => None,
                        Some(false) => Some(format!("{name} is under {expression}, which is not allowed")),
                        None => Some(format!("{name}: cannot read the licence {expression:?}")),
                    },
                }
            })
            .collect()
    }

    /// Packages that come from elsewhere than the allowed registries and the workspace.
    #[must_use]
    pub fn source_complaints(&self, metadata: &Metadata) -> Vec<String> {
        let members: BTreeSet<_> = metadata.workspace_members.iter().collect();
        metadata
            .packages
            .iter()
            .filter(|package| match &package.source {
                None => !members.contains(&package.id),
                Some(source) => {
                    let registry = source.repr.strip_prefix("registry+");
                    !registry.is_some_and(|registry| self.registries.contains(registry))
                }
            })
            .map(|package| format!("{} comes from {:?}", package.name, package.source))
            .collect()
    }

    /// Banned crates in the resolved graph.
    #[must_use]
    pub fn ban_complaints(&self, metadata: &Metadata) -> Vec<String> {
        let Some(resolve) = &metadata.resolve else {
            return vec!["cargo metadata gave no resolved graph".to_owned()];
        };
        let mut complaints = Vec::new();
        for node in &resolve.nodes {
            let user = metadata[&node.id].name.as_str();
            for dependency in &node.dependencies {
                complaints.extend(self.ban(user, metadata[dependency].name.as_str()));
            }
        }
        complaints
    }

    fn ban(&self, user: &str, name: &str) -> Option<String> {
        let wrappers = self.bans.get(name)?;
        (!wrappers.contains(user)).then(|| format!("{user} depends on {name}, which deny.toml bans"))
    }
}

fn value<'t>(root: &'t toml::Table, section: &str, key: &str) -> Result<&'t toml::Value, String> {
    root.get(section)
        .and_then(|section| section.get(key))
        .ok_or_else(|| format!("deny.toml has no {section}.{key}"))
}

fn strings(value: &toml::Value) -> Option<BTreeSet<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Whether `allowed` satisfies an SPDX expression (or the older `A/B`); `None` when it cannot be read.
#[must_use]
pub fn satisfies(expression: &str, allowed: &BTreeSet<String>) -> Option<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let result = alternatives(&mut rest, allowed)?;
    rest.is_empty().then_some(result)
}

fn next<'e>(rest: &mut &[&'e str]) -> Option<&'e str> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first)
}

fn alternatives(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut result = conjunction(rest, allowed)?;
    while rest.first() == Some(&"OR") {
        next(rest);
        // Not `||`: the right side must be read in any case.
        result |= conjunction(rest, allowed)?;
    }
    Some(result)
}

fn conjunction(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut result = licence(rest, allowed)?;
    while rest.first() == Some(&"AND") {
        next(rest);
        result &= licence(rest, allowed)?;
    }
    Some(result)
}

fn licence(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match next(rest)? {
        "(" => {
            let result = alternatives(rest, allowed)?;
            (next(rest)? == ")").then_some(result)
        }
        ")" | "OR" | "AND" | "WITH" => None,
        name if rest.first() == Some(&"WITH") => {
            next(rest);
            Some(allowed.contains(&format!("{name} WITH {}", next(rest)?)))
        }
        name => Some(allowed.contains(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> Option<bool> {
        satisfies(expression, &["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into_iter().collect())
    }

    #[test]
    fn one_alternative_and_every_part_of_a_conjunction_must_be_allowed() {
        assert_eq!(check("MIT"), Some(true));
        assert_eq!(check("GPL-3.0"), Some(false));
        assert_eq!(check("GPL-3.0 OR MIT"), Some(true));
        assert_eq!(check("MIT OR GPL-3.0"), Some(true));
        assert_eq!(check("MIT AND GPL-3.0"), Some(false));
        assert_eq!(check("(MIT OR GPL-3.0) AND Unicode-3.0"), Some(true));
        assert_eq!(check("GPL-3.0 OR MIT AND BSD-3-Clause"), Some(false));
        assert_eq!(check("MIT/GPL-3.0"), Some(true));
    }

    #[test]
    fn an_exception_must_be_allowed_by_name() {
        assert_eq!(check("Apache-2.0 WITH LLVM-exception"), Some(false));
        assert_eq!(check("Apache-2.0 WITH LLVM-exception OR MIT"), Some(true));
    }

    #[test]
    fn nonsense_is_not_read() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT"] {
            assert_eq!(check(expression), None, "{expression}");
        }
    }

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        [sources]
        allow-registry = ["https://r"]
        [bans]
        deny = [{ crate = "tokio", reason = "x" }, { crate = "rand", reason = "y", wrappers = ["proptest"] }]
    "#;

    #[test]
    fn a_banned_crate_may_be_used_by_its_wrappers_only() {
        let policy = Policy::parse(POLICY).unwrap();
        assert!(policy.ban("anything", "tokio").is_some());
        assert!(policy.ban("proptest", "rand").is_none());
        assert!(policy.ban("hoststack", "rand").is_some());
        assert!(policy.ban("hoststack", "slab").is_none());
    }

    #[test]
    fn a_policy_without_its_keys_or_reasons_is_refused() {
        for gone in
            ["allow = [\"MIT\"]", "allow-registry = [\"https://r\"]", ", reason = \"x\"", "crate = \"rand\","]
        {
            assert!(POLICY.contains(gone));
            assert!(Policy::parse(&POLICY.replace(gone, "")).is_err(), "{gone}");
        }
    }
}
