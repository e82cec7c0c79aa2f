//! What the stack was built with: the answer to [`Query::Config`](super::Query::Config).

use serde::Serialize;

use crate::config::StackConfig;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigItem {
    /// Its name: that of the field, behind those of the structures that it is in: `tcp.rto_min`.
    pub name: String,
    /// Its value as a person reads it.
    pub value: String,
    /// Whether it is the default.
    pub is_default: bool,
}

/// All settings, in the order of their structures.
pub(crate) fn items(config: &StackConfig) -> Vec<ConfigItem> {
    let hide = |config: &StackConfig| {
        // Who knows the seed knows the sequence numbers to come: only that there is one is told.
        let has_seed = config.seed.is_some();
        let config = StackConfig { seed: None, ..config.clone() };
        let mut all = flatten(&format!("{config:#?}"));
        for (name, value) in &mut all {
            if name == "seed" && has_seed {
                *value = "set".into();
            }
        }
        all
    };
    let defaults = hide(&StackConfig::default());
    let items = hide(config).into_iter().map(|(name, value)| {
        let is_default = defaults.iter().any(|default| *default == (name.clone(), value.clone()));
        ConfigItem { name, value, is_default }
    });
    items.collect()
}

/// The fields in the alternate debug text of nested structures, so that a new field is shown without being listed here.
fn flatten(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    // Names of the structures that the line is in; what is in a variant or a list is one value.
    let mut path: Vec<&str> = Vec::new();
    let mut value: Option<(String, usize)> = None;
    for line in text.lines().skip(1).map(str::trim) {
        if let Some((parts, depth)) = &mut value {
            let opens = line.ends_with(['(', '{', '[']);
            let closes = line.starts_with([')', '}', ']']);
            *depth = (*depth + usize::from(opens)).saturating_sub(usize::from(closes));
            if closes && parts.ends_with(',') {
                parts.pop();
            }
            parts.push_str(line);
            if *depth == 0 {
                let done = parts.trim_end_matches(',').to_string();
                if let Some((_, last)) = all.last_mut() {
                    *last = done;
                }
                value = None;
            }
            continue;
        }
        if line.starts_with('}') {
            path.pop();
            continue;
        }
        let Some((name, rest)) = line.split_once(": ") else { continue };
        let full = path.iter().copied().chain([name]).collect::<Vec<_>>().join(".");
        if rest.ends_with(" {") {
            path.push(name);
        } else if rest.ends_with(['(', '[']) {
            all.push((full, String::new()));
            value = Some((rest.to_string(), 1));
        } else {
            all.push((full, rest.trim_end_matches(',').to_string()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_tcp::{FastOpenKey, TcpConfig};

    fn value(items: &[ConfigItem], name: &str) -> (String, bool) {
        let found = items.iter().find(|item| item.name == name);
        found.map(|item| (item.value.clone(), item.is_default)).unwrap_or_else(|| panic!("{name}: {items:?}"))
    }

    #[test]
    fn settings_are_named_by_their_place_and_differ_from_defaults_when_set() {
        let tcp = TcpConfig { burst_max: 7, ..TcpConfig::default() };
        let config = StackConfig { workers: 3, tcp, ..StackConfig::default() };
        let items = items(&config);
        assert_eq!(value(&items, "workers"), ("3".into(), false));
        assert_eq!(value(&items, "tcp.burst_max"), ("7".into(), false));
        assert_eq!(value(&items, "bursts.reports"), ("2048".into(), true));
        assert_eq!(value(&items, "sessions.chunk_bytes"), ("4096".into(), true));
        assert_eq!(value(&items, "detach_grace"), ("5s".into(), true));
        assert_eq!(value(&items, "seed"), ("None".into(), true));
        assert!(items.iter().all(|item| !item.value.is_empty()), "{items:?}");
    }

    #[test]
    fn secrets_are_not_told() {
        let key = FastOpenKey::from([0xab; 16]);
        let tcp = TcpConfig { fast_open_key: Some(key), ..TcpConfig::default() };
        let config = StackConfig { seed: Some(987_654), tcp, ..StackConfig::default() };
        let items = items(&config);
        assert_eq!(value(&items, "seed"), ("set".into(), false));
        assert!(!value(&items, "tcp.fast_open_key").1);
        let told = format!("{items:?}");
        assert!(!told.contains("987654") && !told.contains("171") && !told.contains("abab"), "{told}");
    }
}
