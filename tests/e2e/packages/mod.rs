//! What `cargo xtask dist` builds, installed into a clean place as its users do, where it serves a real worker.
//!
//! `CLUSTERD_TEST_DIST` names the folder that it was built into; `.ci/run` builds it.

mod container;
mod crates;
mod sums;

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
