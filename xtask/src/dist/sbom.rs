//! What the binary is made from, as CycloneDX, by cargo-cyclonedx.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::crates;
use super::release::{Release, TARGET, run};

/// It is made from the packed crate: within the workspace, features that only tests turn on would count, and what they need
/// would be listed as a part of the binary.
///
/// # Errors
/// There is no cargo-cyclonedx, or it fails; or the crate cannot be packed.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    crates::build(release, out)?;
    let name = format!("clusterd-{}", release.version);
    let folder = release.root.join("target/sbom");
    let unpacked = folder.join(&name);
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let packed = out.join(format!("{name}.crate"));
    run(Command::new("tar").arg("-xzf").arg(&packed).arg("-C").arg(&folder))?;
    // Or cargo takes it for a member of the workspace that it lies in.
    let manifest = unpacked.join("Cargo.toml");
    fs::write(&manifest, fs::read_to_string(&manifest)? + "\n[workspace]\n")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&unpacked).env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    cargo.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps"]);
    run(cargo.args(["--target", TARGET, "--override-filename", "clusterd.cdx"]))?;
    let text =
        fs::read_to_string(unpacked.join("clusterd.cdx.json")).context("cannot read what it has written")?;
    // It names the package by the folder that it is in.
    let text = text.replace(&unpacked.display().to_string(), &format!("/{name}"));
    fs::write(out.join(format!("{name}.cdx.json")), text).context("cannot write it")
}
