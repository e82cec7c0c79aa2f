//! The configuration in force, for `show config`: what the file says, and the defaults of what it does not.

use hoststack::StackConfig;
use toml::{Table, Value};

use crate::ctl::console::Setting;

/// Keys whose values are kept to ourselves, should a file ever hold one.
const SECRET: &[&str] = &["password", "secret", "token", "psk"];

/// The settings of a file that was read before, with the limits in force.
pub(crate) fn settings(text: &str, stack: &StackConfig) -> Vec<Setting> {
    // Cannot fail because: it was read before.
    let table: Table = text.parse().unwrap_or_default();
    let mut settings = Vec::new();
    flatten("", &Value::Table(table), &mut settings);
    let defaults = [
        ("workers", 1),
        ("limits.sessions", stack.sessions.sessions),
        ("limits.fifo_chunks", stack.sessions.chunks),
        ("limits.apps", stack.apps_max),
        ("limits.app_workers", stack.app_workers_max),
        ("limits.listeners", stack.listeners_max),
        ("limits.pending_connects", stack.pending_connects_max),
        ("limits.time_wait", stack.tcp.time_wait_max),
        ("limits.rx_burst", stack.rx_burst_max),
        ("limits.tx_burst", stack.tx_burst_max),
    ];
    for (key, value) in defaults {
        if settings.iter().all(|setting| setting.key != key) {
            settings.push(Setting { key: key.to_owned(), value: value.to_string(), source: "default" });
        }
    }
    // Single values before tables, as a file would have them; stable, so that lists keep their order.
    settings.sort_by_key(|setting| setting.key.contains(['.', '[']));
    settings
}

fn flatten(path: &str, value: &Value, settings: &mut Vec<Setting>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, settings);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), item, settings);
            }
        }
        value => {
            let name = path.rsplit('.').next().unwrap_or(path);
            let hidden = SECRET.iter().any(|secret| name.contains(secret));
            let value = if hidden { "\"(hidden)\"".to_owned() } else { value.to_string() };
            settings.push(Setting { key: path.to_owned(), value, source: "file" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says_and_what_it_does_not() {
        let text = "[limits]\nsessions = 7\n[[app]]\nname = \"echo\"\nlisten = [\"a\", \"b\"]\n[cli]\nsocket = \"/a\"\npassword = \"x\"\n";
        let shown = settings(text, &StackConfig::default());
        let of = |key: &str| {
            let setting = shown.iter().find(|setting| setting.key == key).expect(key);
            (setting.value.as_str(), setting.source)
        };
        assert_eq!(of("limits.sessions"), ("7", "file"));
        assert_eq!(of("workers"), ("1", "default"));
        assert_eq!(of("app[0].listen"), ("[\"a\", \"b\"]", "file"));
        assert_eq!(of("cli.password"), ("\"(hidden)\"", "file"));
        assert_eq!(shown[0].key, "workers");
        let keys: std::collections::BTreeSet<&str> =
            shown.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys.len(), shown.len(), "each key once");
    }
}
