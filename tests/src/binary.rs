//! Where the `hoststack` binary is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Environment variable that names a binary to test instead of building one.
pub const BINARY_VARIABLE: &str = "HOSTSTACK_BIN";

/// Path of the `hoststack` binary: the one that `HOSTSTACK_BIN` names, or else the workspace's, built first (once
/// per test process) in the profile and the target directory of the running test.
///
/// # Panics
/// When it does not build.
pub fn hoststack() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "{BINARY_VARIABLE} names {}, which is no file", path.display());
            path
        }
        None => build(),
    })
}

/// The workspace's root directory.
///
/// # Panics
/// When this crate was moved out of the workspace.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the workspace")
}

fn build() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(workspace_root())
        .args(["build", "--package", "hoststack-cli", "--bin", "hoststack", "--message-format", "json"])
        .arg("--target-dir")
        .arg(target_dir(&std::env::current_exe().expect("the path of this test")));
    // What cargo tells this test about its own package: build scripts (ring's) that depend on such variables would run again,
    // and with them minutes of compiling.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo runs, it started this test");
    assert!(
        output.status.success(),
        "building hoststack failed\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    executable(&String::from_utf8_lossy(&output.stdout)).expect("cargo names the binary that it built")
}

/// `TARGET` of `TARGET/PROFILE/deps/test-0123456789abcdef`.
fn target_dir(test: &Path) -> PathBuf {
    test.ancestors().nth(3).expect("tests lie in TARGET/PROFILE/deps").to_owned()
}

/// The `executable` that cargo's JSON messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_dir_is_three_above_the_test() {
        assert_eq!(target_dir(Path::new("/t/debug/deps/tidy-0123")), Path::new("/t"));
    }

    #[test]
    fn executable_is_found_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/hoststack\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/hoststack")));
        assert_eq!(executable("{\"reason\":\"build-finished\"}"), None);
    }
}
