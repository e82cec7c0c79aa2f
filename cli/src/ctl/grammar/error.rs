//! Why a line was not understood, in words.

use std::fmt;

use super::near::resembled;

/// Why a command was not understood. Each says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GrammarError {
    /// Nothing was typed.
    Empty,
    /// No command begins like this.
    Unknown {
        /// What was typed.
        found: String,
        /// The commands most like it, best first.
        near: Vec<&'static str>,
    },
    /// The command's beginning, and then nothing; or a word that several begin with.
    Incomplete {
        /// What was typed.
        found: String,
        /// What could be meant, as patterns or as words.
        expected: Vec<&'static str>,
    },
    /// A word that the command does not take.
    BadOption {
        /// The command.
        pattern: &'static str,
        /// The word.
        found: String,
        /// The option most like it.
        near: Option<&'static str>,
    },
    /// An option that was given twice.
    Twice {
        /// The option.
        option: &'static str,
    },
    /// An argument that is none of its kind, or is not there.
    BadArgument {
        /// The option, or the kind.
        name: &'static str,
        /// What it wants.
        wants: String,
        /// What stands there; `None`: nothing.
        found: Option<String>,
    },
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[&str], between: &str| {
            let quoted: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
            quoted.join(between)
        };
        match self {
            GrammarError::Empty => f.write_str("no command: `help` lists what there is"),
            GrammarError::Unknown { found, near } if near.is_empty() => {
                write!(f, "unknown command `{found}`: `help` lists what there is")
            }
            GrammarError::Unknown { found, near } => {
                write!(f, "unknown command `{found}`: did you mean {}?", list(near, " or "))
            }
            GrammarError::Incomplete { found, expected } => {
                write!(
                    f,
                    "`{found}` wants more: {}",
                    list(expected, if expected.len() > 3 { ", " } else { " or " })
                )
            }
            GrammarError::BadOption { pattern, found, near: None } => match resembled(pattern, found) {
                Some(kind) => {
                    write!(f, "`{found}` is no {} like `{}`: `{pattern}`", kind.name, kind.example)
                }
                None => write!(f, "`{found}` does not belong there: `{pattern}`"),
            },
            GrammarError::BadOption { pattern, found, near: Some(near) } => {
                write!(f, "`{found}` does not belong there, did you mean `{near}`? `{pattern}`")
            }
            GrammarError::Twice { option } => write!(f, "`{option}` is given twice: once is enough"),
            GrammarError::BadArgument { name, wants, found: None } => {
                write!(f, "`{name}` is missing: it wants to be {wants}")
            }
            GrammarError::BadArgument { name, wants, found: Some(found) } => {
                write!(f, "`{name}` wants to be {wants}, found `{found}`")
            }
        }
    }
}

impl std::error::Error for GrammarError {}
