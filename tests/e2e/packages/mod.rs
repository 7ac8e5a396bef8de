//! What `cargo xtask dist` builds, installed into a clean place as its users do, where it serves a real worker.
//!
//! `CLUSTERD_TEST_DIST` names the folder that it was built into; `.ci/run` builds it.

mod container;
mod crates;
mod deb;
mod debian;
mod npm;
mod readme;
mod sums;
mod wheel;

use std::env;
use std::path::PathBuf;

use crate::harness::needs;

/// The folder with the packages; `None` where there is none, and the test is skipped.
fn dist() -> Option<PathBuf> {
    let folder = env::var_os("CLUSTERD_TEST_DIST").map(PathBuf::from);
    let is_built = folder.as_ref().is_some_and(|folder| folder.is_dir());
    folder.filter(|_| {
        needs::met(is_built, "CLUSTERD_TEST_DIST names no folder that cargo xtask dist has written")
    })
}

/// The file in that folder whose name begins and ends so.
fn package(begin: &str, end: &str) -> Option<PathBuf> {
    let is_meant = |name: &str| name.starts_with(begin) && name.ends_with(end);
    let files =
        dist()?.read_dir().expect("the folder can be read").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        files.filter(|file| file.file_name().is_some_and(|name| is_meant(&name.to_string_lossy()))).collect();
    assert!(found.len() < 2, "{found:?}: an older one is in the folder");
    let is_there = needs::met(!found.is_empty(), &format!("cargo xtask dist has written no {begin}*{end}"));
    found.pop().filter(|_| is_there)
}

#[test]
fn the_binary_has_less_than_seven_megabytes() {
    let Some(dist) = dist() else { return };
    let size = dist.join("clusterd").metadata().expect("a binary").len();
    assert!(size < 7_000_000, "{size} bytes");
}
