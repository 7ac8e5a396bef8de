//! What `.ci/servers` installs for the tests, beside what the machine has.
//!
//! It installs nothing. A test that needs what is not there is skipped, or fails where all is required.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::needs;

/// Whether this program is there.
pub(crate) fn program(name: &str) -> bool {
    let is_there = env::split_paths(&path()).any(|folder| needs::is_executable(&folder.join(name)));
    needs::met(is_there, &format!("{name} is not installed"))
}

/// Whether Python has this module.
pub(crate) fn module(name: &str) -> bool {
    let found = Command::new(python()).arg("-c").arg(format!("import {name}")).output();
    needs::met(
        found.is_ok_and(|output| output.status.success()),
        &format!("Python's {name} is not installed"),
    )
}

/// Whether Node has this package.
pub(crate) fn package(name: &str) -> bool {
    needs::met(node_modules().join(name).exists(), &format!("npm's {name} is not installed"))
}

/// The Python that has the packages.
pub(crate) fn python() -> PathBuf {
    let own = folder().join("python/bin/python3");
    if own.exists() { own } else { PathBuf::from("python3") }
}

/// Where Node finds the packages.
pub(crate) fn node_modules() -> PathBuf {
    folder().join("node/node_modules")
}

/// A root folder with a minimal Debian, which has systemd and is never written to.
pub(crate) fn debian() -> Option<PathBuf> {
    let root = folder().join("debian-root");
    let is_there = needs::is_executable(&root.join("usr/bin/dpkg"));
    needs::met(is_there, "there is no minimal Debian").then_some(root)
}

/// Where programs are: what a user of these servers has in PATH.
pub(crate) fn path() -> OsString {
    let of_tools =
        ["python/bin", "node/node_modules/.bin", "debian/usr/sbin"].map(|name| folder().join(name));
    let of_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let known = env::var_os("PATH").unwrap_or_default();
    let all = of_tools.into_iter().chain(env::split_paths(&known)).chain(of_root);
    env::join_paths(all).expect("no folder's name holds a colon")
}

fn folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools");
    env::var_os("CLUSTERD_CI_TOOLS").map_or_else(default, PathBuf::from)
}
