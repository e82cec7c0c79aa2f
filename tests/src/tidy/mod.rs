//! The rules of the house, as functions over text and `cargo metadata`.
//!
//! Each rule returns what breaks it, one sentence each, so that a failing test lists all of it at once. `suite/tidy.rs`
//! applies them to the workspace; the tables that a change of design must touch are here: [`graph::GRAPH`],
//! [`rust::UNSAFE`], [`rust::LIFTED`], [`races::RACES`], [`races::ESTABLISHMENT`], and `rfc9293/requirements.txt` with `reasons.txt`.

pub mod canary;
pub mod documents;
pub mod graph;
pub mod policy;
pub mod races;
pub mod rfc9293;
pub mod rust;
pub mod source;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::binary::workspace_root;

/// A text file of the project.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path from the workspace's root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl SourceFile {
    /// Makes one up, for tests of the rules.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether it is Rust source.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Every text file that git tracks or would offer to track.
///
/// # Panics
/// When git is missing or this is no clone.
#[must_use]
pub fn project_files() -> Vec<SourceFile> {
    let root = workspace_root();
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).expect("names are UTF-8");
    listed
        .split_terminator('\0')
        .filter_map(|path| {
            // A file deleted but not yet committed is listed and absent; a binary file is no text.
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(SourceFile { path: path.to_owned(), text })
        })
        .collect()
}

/// One file of the project, which must exist.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn project_file(path: &str) -> SourceFile {
    let full: PathBuf = workspace_root().join(path);
    let text = fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
    SourceFile { path: path.to_owned(), text }
}

/// `cargo metadata` of the workspace, as resolved for this platform.
///
/// # Panics
/// When cargo fails.
#[must_use]
pub fn metadata() -> cargo_metadata::Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo_metadata::MetadataCommand::new()
        .current_dir(workspace_root())
        .other_options(["--filter-platform".to_owned(), platform])
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata: {error}"))
}

/// Fails with every complaint on a line of its own.
///
/// # Panics
/// When there is one.
#[track_caller]
pub fn assert_clean(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n  {}\n", complaints.join("\n  "));
}
