//! What crates.io would get. `.ci/packages` builds and installs it.

use std::collections::BTreeSet;
use std::process::Command;

use super::dist;
use crate::harness::needs;

/// The files and folders at the top of a crate, without its own folder.
fn top_of(name: &str) -> Option<BTreeSet<String>> {
    let dist = dist().filter(|_| needs::program("tar"))?;
    let crate_file = dist.join(format!("{name}-{}.crate", env!("CARGO_PKG_VERSION")));
    let output = Command::new("tar").arg("-tzf").arg(crate_file).output().expect("tar can be started");
    assert!(output.status.success(), "{output:?}");
    let paths = String::from_utf8(output.stdout).expect("text");
    let top = |path: &str| path.split('/').nth(1).expect("a name").to_owned();
    Some(paths.lines().map(top).collect())
}

#[test]
fn the_command_is_packed_without_its_tests() {
    let Some(top) = top_of("clusterd") else { return };
    let expected = ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];
    let expected = expected.into_iter().chain(["build.rs", "config", "src"]);
    // Cargo adds these two by itself.
    let expected = expected.chain([".cargo_vcs_info.json", "Cargo.toml.orig"]);
    assert_eq!(top, expected.map(str::to_owned).collect());
}

#[test]
fn the_library_is_packed_with_its_examples() {
    let Some(top) = top_of("clusterd-worker") else { return };
    let expected =
        ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "examples", "src"];
    let expected = expected.into_iter().chain([".cargo_vcs_info.json", "Cargo.toml.orig"]);
    assert_eq!(top, expected.map(str::to_owned).collect());
}
