//! A command that was understood: what commands ask for their arguments.

use std::net::IpAddr;
use std::time::Duration;

use hoststack::app::{ConnectId, SessionHandle, Uri};
use hoststack::net::Cidr;

use crate::ctl::commands::Spec;
use crate::ctl::kinds::Value;

/// A command that was understood, with what stood in the places of its pattern.
#[derive(Debug)]
pub(crate) struct Matched {
    /// The command.
    pub(crate) spec: &'static Spec,
    /// Words of the pattern, in full.
    pub(super) words: Vec<&'static str>,
    /// Options that were given, by their word.
    pub(super) flags: Vec<&'static str>,
    /// Arguments, by their option or their kind.
    pub(super) values: Vec<(&'static str, Value)>,
}

/// Accessors of arguments that are copied: name, and the [`Value`] that it is.
macro_rules! copied {
    ($($doc:literal $name:ident: $value:ident($type:ty);)*) => {$(
        #[doc = $doc]
        pub(crate) fn $name(&self, name: &str) -> Option<$type> {
            match self.value(name)? {
                Value::$value(value) => Some(*value),
                _ => None,
            }
        }
    )*};
}

/// What a caller of the accessors names: an option by its word, another argument by its kind, as the pattern has it.
impl Matched {
    pub(super) fn of(spec: &'static Spec) -> Matched {
        Matched { spec, words: Vec::new(), flags: Vec::new(), values: Vec::new() }
    }

    /// Whether the word was given: an option, or one of the words of an `a|b`.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.flags.contains(&word) || self.words.contains(&word)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// A number, as a count of things.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        self.number(name).and_then(|number| usize::try_from(number).ok())
    }

    /// Text: `NAME`, `FILE`, one of several words.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    copied! {
        "A number: `N`, `WORKER`, `PORT`, `BYTES`." number: Number(u64);
        "`PREFIX`." prefix: Prefix(Cidr);
        "`SPAN`." span: Span(Duration);
        "`HANDLE`." session: Session(SessionHandle);
        "`CONNECT`." connect: Connect(ConnectId);
        "`ADDRESS`." address: Address(IpAddr);
    }

    /// `URI`.
    pub(crate) fn uri(&self, name: &str) -> Option<&Uri> {
        match self.value(name)? {
            Value::Uri(uri) => Some(uri),
            _ => None,
        }
    }
}
