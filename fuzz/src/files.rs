//! Inputs on disk: `corpus/TARGET/` and `regressions/TARGET/` beside this crate's manifest.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a target in `corpus` or `regressions`, by name, with their bytes. Empty when there is no such folder.
///
/// # Panics
/// When a file cannot be read.
#[must_use]
pub fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}
