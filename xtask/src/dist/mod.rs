//! Builds what users install, into `target/dist`; it publishes nothing.
//!
//! Everything is made from one static binary of this tree, and from nothing that the clock, the folder or the user decides: two
//! builds of one commit have the same bytes. Each kind of package is a file here; [`release`] is what they have in common.

mod archive;
mod crates;
mod deb;
mod npm;
mod order;
mod release;
mod sbom;
mod sums;
mod tree;
mod wheel;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::release::Release;

/// A kind of package: its name, and what builds it into a folder.
type Package = (&'static str, fn(&Release, &Path) -> Result<()>);

/// In the order in which they are built.
const PACKAGES: &[Package] = &[
    ("archive", archive::build),
    ("crates", crates::build),
    ("sbom", sbom::build),
    ("deb", deb::build),
    ("wheel", wheel::build),
    ("npm", npm::build),
];

/// Builds these packages, or all of them if none is named.
///
/// # Errors
/// There is no such package, or a tool is missing or fails.
pub(crate) fn dist(root: &Path, names: &[&str]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| PACKAGES.iter().all(|(known, _)| known != *name)) {
        let known: Vec<_> = PACKAGES.iter().map(|(name, _)| *name).collect();
        bail!("there is no package {name:?}; there are {}", known.join(", "));
    }
    let out = root.join("target/dist");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let release = Release::build(root, &out)?;
    if names.is_empty() {
        remove_others(&out, &release.binary)?;
    }
    for (name, build) in PACKAGES {
        if names.is_empty() || names.contains(name) {
            println!("building {name}");
            build(&release, &out).with_context(|| format!("cannot build {name}"))?;
        }
    }
    sums::write(&out)
}

/// Removes what an earlier build has left, perhaps of another version: what is in the folder is what is published.
fn remove_others(out: &Path, binary: &Path) -> Result<()> {
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path != binary {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
