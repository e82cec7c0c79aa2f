//! Planted bugs stay in the test house: nothing that users build can have the feature `canary`.

use toml::{Table, Value};

use super::SourceFile;

/// The one place that switches the feature on: manifest and keys.
const FORWARDER: (&str, &str) = ("tests/Cargo.toml", "features.canary");

/// Where a manifest switches the feature on, or a line of the CI script builds with it where users' builds lie.
#[must_use]
pub fn complaints(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        if file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml") {
            let Ok(manifest) = file.text.parse::<Table>() else {
                complaints.push(format!("{} is no manifest", file.path));
                continue;
            };
            let mut switches = Vec::new();
            look(&Value::Table(manifest), "", &mut switches);
            switches.retain(|keys| (file.path.as_str(), keys.as_str()) != FORWARDER);
            complaints
                .extend(switches.into_iter().map(|keys| format!("{}: {keys} switches canary on", file.path)));
        } else if file.path == ".ci/run" {
            let lines = file.text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let mixed = lines
                .filter(|line| line.contains("--features canary") || line.contains("--all-features"))
                .filter(|line| !line.contains("--target-dir target/canary"));
            complaints
                .extend(mixed.map(|line| format!(".ci/run: `{line}` needs --target-dir target/canary")));
        }
    }
    complaints
}

/// Collects the keys of every list that names the feature. What a target requires switches nothing on.
fn look(value: &Value, keys: &str, found: &mut Vec<String>) {
    let below = |key: &str| if keys.is_empty() { key.to_owned() } else { format!("{keys}.{key}") };
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter().filter(|(key, _)| *key != "required-features") {
                look(value, &below(key), found);
            }
        }
        Value::Array(list) => {
            let is_switch = |text: &str| text == "canary" || text.ends_with("/canary");
            if list.iter().filter_map(Value::as_str).any(is_switch) {
                found.push(keys.to_owned());
            }
            list.iter().filter(|value| value.is_table()).for_each(|value| look(value, keys, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        complaints(&[SourceFile::new(path, text)])
    }

    #[test]
    fn the_test_house_may_forward_and_require_it() {
        let text = r#"
            [features]
            canary = ["a/canary"]
            [[test]]
            name = "canary"
            required-features = ["canary"]
        "#;
        assert_eq!(of("tests/Cargo.toml", text), [""; 0]);
        assert_eq!(of("wire/Cargo.toml", "[features]\ncanary = []"), [""; 0]);
        assert_eq!(of("wire/Cargo.toml", text), ["wire/Cargo.toml: features.canary switches canary on"]);
    }

    #[test]
    fn a_default_another_feature_and_a_dependency_with_it_are_named() {
        let switched = [
            ("[features]\ndefault = ['canary']", "features.default"),
            ("[features]\nmore = ['a?/canary']", "features.more"),
            ("[dependencies]\na = { path = 'a', features = ['b', 'canary'] }", "dependencies.a.features"),
            ("[dev-dependencies.a]\nfeatures = ['canary']", "dev-dependencies.a.features"),
            ("[workspace.dependencies.a]\nfeatures = ['canary']", "workspace.dependencies.a.features"),
            (
                "[target.'cfg(unix)'.dependencies.a]\nfeatures = ['canary']",
                "target.cfg(unix).dependencies.a.features",
            ),
        ];
        for (text, keys) in switched {
            for path in ["Cargo.toml", "tests/Cargo.toml"] {
                assert_eq!(of(path, text), [format!("{path}: {keys} switches canary on")]);
            }
        }
    }

    #[test]
    fn the_ci_script_builds_it_apart() {
        assert_eq!(
            of(".ci/run", "cargo test --features canary --target-dir target/canary\ncargo test"),
            [""; 0]
        );
        assert_eq!(of(".ci/run", "# --all-features would"), [""; 0]);
        for line in ["cargo build --features canary", "cargo clippy --all-features --target-dir target/loom"]
        {
            assert_eq!(of(".ci/run", line), [format!(".ci/run: `{line}` needs --target-dir target/canary")]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(of("Cargo.toml", "[features"), ["Cargo.toml is no manifest"]);
    }
}
