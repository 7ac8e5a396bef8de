//! The two crates, as crates.io would get them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::release::{Release, run};

const CRATES: [&str; 2] = ["clusterd", "clusterd-worker"];

/// Packs what is committed; cargo refuses if something else lies around. It builds nothing.
///
/// # Errors
/// The tree is not clean, or cargo fails.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let target = release.root.join("target/crates");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&release.root).args(["package", "--quiet", "--locked", "--no-verify", "--target-dir"]);
    run(cargo.arg(&target).args(CRATES.iter().flat_map(|name| ["--package", name])))?;
    for name in CRATES {
        let file = format!("{name}-{}.crate", release.version);
        let packed = target.join("package").join(&file);
        fs::copy(&packed, out.join(&file)).with_context(|| format!("cannot copy {}", packed.display()))?;
    }
    Ok(())
}
