//! `[cli]`, `[[cli]]`: the control sockets.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::{Config, Mistake, mistake};
use crate::ctl::client::default_socket;
use crate::ctl::console::Level;

/// A control socket.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CliConfig {
    /// Its path; without it, where `hoststack ctl` looks first.
    socket: Option<Spanned<PathBuf>>,
    /// What its clients may do: `user` or `operator`. Default operator.
    level: Option<Spanned<Level>>,
}

impl CliConfig {
    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.socket.as_ref().map_or_else(default_socket, |socket| socket.get_ref().clone())
    }

    /// What its clients may do.
    pub(crate) fn level(&self) -> Level {
        self.level.as_ref().map_or(Level::default(), |level| *level.get_ref())
    }
}

impl Config {
    pub(super) fn check_cli(&self) -> Result<(), Mistake> {
        for (index, cli) in self.cli.iter().enumerate() {
            let Some(socket) = &cli.socket else { continue };
            if socket.get_ref().as_os_str().is_empty() {
                return mistake(socket, "expected a path");
            }
            if self.cli[..index].iter().any(|other| other.path() == cli.path()) {
                return mistake(socket, "two control sockets have this path: expected another");
            }
        }
        // Those without a path have the same one.
        let mut unnamed = self.cli.iter().filter(|cli| cli.path() == default_socket());
        if let (Some(_), Some(second)) = (unnamed.next(), unnamed.next())
            && let Some(level) = &second.level
        {
            return mistake(
                level,
                "two control sockets are where `ctl` looks first: expected a `socket` for one",
            );
        }
        Ok(())
    }
}

/// Reads one table, or several.
pub(super) fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<CliConfig>, D::Error> {
    struct Tables;

    impl<'de> Visitor<'de> for Tables {
        type Value = Vec<CliConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table [cli], or several [[cli]]")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<CliConfig>, A::Error> {
            Ok(vec![CliConfig::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<CliConfig>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }

    from.deserialize_any(Tables)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::run::config::parse;

    #[test]
    fn one_table_or_several_give_sockets_with_their_levels() {
        let one = parse("[cli]\nsocket = \"/tmp/a\"\n").expect("good").cli;
        assert_eq!(
            (one.len(), one[0].path().as_path(), one[0].level()),
            (1, Path::new("/tmp/a"), Level::Operator)
        );
        let both = parse("[[cli]]\n[[cli]]\nsocket = \"/tmp/b\"\nlevel = \"user\"\n").expect("good").cli;
        assert_eq!((both[0].path(), both[0].level()), (default_socket(), Level::Operator));
        assert_eq!((both[1].path().as_path(), both[1].level()), (Path::new("/tmp/b"), Level::User));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let bad = |text: &str| parse(text).expect_err(text).message(Path::new("f.toml"));
        for (text, parts) in [
            ("[cli]\nsocket = 5\n", &["f.toml:2:", "cli.socket"][..]),
            ("[cli]\nsoket = \"/a\"\n", &["f.toml:2:", "soket", "expected `socket` or `level`"]),
            ("[[cli]]\nlevel = \"admin\"\n", &["f.toml:2:", "cli[0].level", "expected `user` or `operator`"]),
            ("cli = 5\n", &["f.toml:1:", "[[cli]]"]),
            (
                "[[cli]]\nsocket = \"/a\"\n[[cli]]\nsocket = \"/a\"\n",
                &["f.toml:4:", "cli[1].socket", "another"],
            ),
            ("[[cli]]\n[[cli]]\nlevel = \"user\"\n", &["f.toml:3:", "expected a `socket`"]),
        ] {
            let told = bad(text);
            for part in parts {
                assert!(told.contains(part), "no {part:?} for {text:?}: {told}");
            }
        }
    }
}
