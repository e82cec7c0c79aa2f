//! Where the figures were taken, and from which commit.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A machine and a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The first twelve digits of the commit checked out where this was built, or `unknown`.
    pub commit: String,
    /// Whether it is a release build; figures of another mean nothing.
    pub optimized: bool,
}

impl Machine {
    /// This one.
    pub fn detect() -> Self {
        Machine {
            cpu: cpu_name().unwrap_or_else(|| "unknown processor".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            optimized: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, commit, optimized } = self;
        write!(f, "{cpu}, {cores} cores, commit {commit}")?;
        if *optimized { Ok(()) } else { f.write_str(", DEBUG BUILD: the figures mean nothing") }
    }
}

fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What `.git/HEAD` of the source tree names, read without git.
fn commit() -> Option<String> {
    let git = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join(".git");
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let id = match head.trim().strip_prefix("ref: ") {
        Some(name) => loose(&git, name).or_else(|| packed(&git, name))?,
        None => head.trim().to_owned(),
    };
    id.get(..12).map(str::to_owned)
}

fn loose(git: &Path, name: &str) -> Option<String> {
    let path: PathBuf = git.join(name);
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn packed(git: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(git.join("packed-refs")).ok()?;
    let line = text.lines().find(|line| line.ends_with(&format!(" {name}")))?;
    Some(line.split_once(' ')?.0.to_owned())
}
