//! The workspace held to the rules of the house. What each rule says is in `hoststack_tests::tidy`.

use std::collections::BTreeSet;
use std::io::Write;

use hoststack_tests::binary::workspace_root;
use hoststack_tests::tidy::{
    assert_clean, canary, documents, graph, metadata, policy, project_file, project_files, races, rfc9293,
    rust,
};

#[test]
fn dependency_graph_is_the_designs() {
    let complaints = graph::complaints(&graph::edges(&metadata()), graph::GRAPH, graph::TESTS);
    assert_clean("dependency graph", &complaints);
}

#[test]
fn every_dependency_earns_its_place_in_docs() {
    let metadata = metadata();
    let named = metadata.workspace_packages().iter().flat_map(|package| graph::outside(package)).collect();
    let listed = documents::listed_dependencies(&project_file("docs/dependencies.md"));
    assert_clean("docs/dependencies.md", &documents::dependency_list(&listed, &named));
}

#[test]
fn every_manifest_names_only_crates_that_its_code_uses() {
    let (metadata, files) = (metadata(), project_files());
    let folders: Vec<String> = metadata.workspace_packages().iter().map(|package| folder(package)).collect();
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        let own = folder(package);
        let nested: Vec<String> =
            folders.iter().filter(|other| other.starts_with(&own) && **other != own).cloned().collect();
        let named = package.dependencies.iter().map(|dependency| dependency.name.clone()).collect();
        complaints.extend(rust::unused_crates(&files, &own, &nested, &named));
    }
    assert_clean("unused dependencies", &complaints);
}

#[test]
fn every_workspace_dependency_is_used_by_a_member() {
    let root: toml::Table = project_file("Cargo.toml").text.parse().expect("cargo reads it too");
    let offered = root["workspace"]["dependencies"].as_table().expect("a table").keys().cloned();
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let named: BTreeSet<String> =
        members.iter().flat_map(|package| package.dependencies.iter().map(|d| d.name.clone())).collect();
    let complaints: Vec<String> = offered
        .filter(|name| !named.contains(name) && !members.iter().any(|package| package.name.as_str() == name))
        .map(|name| format!("Cargo.toml offers {name}, which no member uses"))
        .collect();
    assert_clean("[workspace.dependencies]", &complaints);
}

#[test]
fn no_file_has_grown_beyond_a_thousand_lines() {
    let (warnings, failures) = rust::lengths(&project_files());
    for warning in warnings {
        // Past the test runner's capture: a warning that is only seen on failure warns nobody.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    assert_clean("length of files", &failures);
}

#[test]
fn unsafe_stands_only_in_its_places() {
    let found = rust::strays(&project_files(), rust::UNSAFE, rust::is_unsafe);
    assert_clean("`unsafe` and its table UNSAFE in tests/src/tidy/rust.rs", &found);
}

#[test]
fn clippy_bans_are_lifted_only_in_their_places() {
    let found = rust::strays(&project_files(), rust::LIFTED, rust::is_lift);
    assert_clean("lifted bans of clippy.toml and their table LIFTED in tests/src/tidy/rust.rs", &found);
}

#[test]
fn a_test_that_cannot_run_says_so_past_the_runners_capture() {
    assert_clean("skips", &rust::swallowed_skips(&project_files()));
}

#[test]
fn lower_crates_are_no_std() {
    let metadata = metadata();
    let lower =
        metadata.workspace_packages().into_iter().filter(|p| graph::NO_STD.contains(&p.name.as_str()));
    let roots: Vec<String> = lower.map(|package| format!("{}src/lib.rs", folder(package))).collect();
    assert_eq!(roots.len(), graph::NO_STD.len(), "a crate of NO_STD is not in the workspace");
    assert_clean("no_std", &rust::missing_no_std(&project_files(), &roots));
}

#[test]
fn every_todo_names_an_issue() {
    assert_clean("TODO", &rust::nameless_todos(&project_files()));
}

#[test]
fn documents_that_a_clone_needs_are_there() {
    assert_clean("documents", &documents::missing(&project_files(), documents::REQUIRED));
}

#[test]
fn readme_gives_its_two_commands() {
    let readme = project_file("README.md");
    let absent = documents::README_COMMANDS.iter().filter(|command| !readme.text.contains(**command));
    let complaints: Vec<String> = absent.map(|command| format!("`{command}` is not in README.md")).collect();
    assert_clean("README", &complaints);
}

#[test]
fn links_between_documents_lead_somewhere() {
    assert_clean("links", &documents::broken_links(&project_files()));
}

#[test]
fn no_build_for_users_has_planted_bugs() {
    assert_clean("the feature canary", &canary::complaints(&project_files()));
}

#[test]
fn nothing_names_the_workshop() {
    assert_clean("names of internal tooling", &documents::workshop_names(&project_files()));
}

#[test]
fn every_race_of_the_list_has_its_test_or_its_reason() {
    let page = races::RACES;
    assert_clean(page.path, &races::complaints(&project_files(), &page, &project_file(page.path).text));
}

#[test]
fn every_bug_of_establishment_has_its_test_or_its_reason() {
    let page = races::ESTABLISHMENT;
    assert_clean(page.path, &races::complaints(&project_files(), &page, &project_file(page.path).text));
}

#[test]
fn every_requirement_of_rfc_9293_has_its_code_and_its_test_or_its_reason() {
    assert_clean("the list of requirements", &rfc9293::gaps(rfc9293::REQUIREMENTS));
    let found = rfc9293::find(&project_files(), rfc9293::REQUIREMENTS, rfc9293::REASONS);
    let (page, path) = (found.page(), workspace_root().join(rfc9293::PAGE));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    assert_clean("RFC 9293", found.complaints());
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == was, "{} is old: UPDATE_SNAPSHOTS=1 writes it anew", rfc9293::PAGE);
}

#[test]
fn the_page_of_the_cli_is_the_one_that_the_program_writes() {
    let mut command = std::process::Command::new(hoststack_tests::hoststack());
    command.args(["ctl", "--page"]);
    let page = hoststack_tests::process::run("hoststack ctl --page", command);
    let update = "UPDATE_SNAPSHOTS=1 cargo test -p hoststack-cli writes it anew";
    assert!(page == project_file("docs/cli.md").text, "docs/cli.md is old: {update}");
}

#[test]
fn licences_bans_and_sources_are_those_of_deny_toml() {
    let policy = policy::Policy::parse(&project_file("deny.toml").text).expect("a policy");
    let metadata = metadata();
    assert_clean("licences", &policy.licence_complaints(&metadata));
    assert_clean("sources", &policy.source_complaints(&metadata));
    assert_clean("bans", &policy.ban_complaints(&metadata));
}

/// Folder of a member from the workspace's root, with a closing `/`.
fn folder(package: &cargo_metadata::Package) -> String {
    let manifest = package.manifest_path.as_std_path();
    let folder = manifest.parent().and_then(|path| path.strip_prefix(workspace_root()).ok());
    format!("{}/", folder.expect("a member lies below the workspace's root").display())
}
