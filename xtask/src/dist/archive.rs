//! The binary with its man pages, completions, units and documents, for everybody whose package manager is not among the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::release::{Release, run};
use super::tree::Tree;

/// What of the tree is in it, beside the binary.
const FILES: [&str; 7] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "config/clusterd.service",
    "config/clusterd.socket",
    "config/clusterd.toml",
];

const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

/// # Errors
/// tar fails, or a file is missing or cannot be written.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let name = format!("clusterd-{}-x86_64-linux", release.version);
    let parent = release.root.join("target/archive");
    let tree = Tree::new(parent.join(&name))?;
    tree.write_program("clusterd", fs::read(&release.binary)?)?;
    for name in FILES {
        tree.write(name, fs::read(release.root.join(name)).with_context(|| format!("cannot read {name}"))?)?;
    }
    crate::man(&tree.path().join("man"))?;
    for shell in SHELLS {
        tree.write(&format!("completions/clusterd.{shell}"), release.completions(shell)?)?;
    }
    pack(release, (&parent, &name), &out.join(format!("{name}.tar.gz")))
}

/// The same bytes for the same files, whoever packs them and when.
fn pack(release: &Release, (parent, name): (&Path, &str), to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(to).arg("--directory").arg(parent);
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=ustar",
        "--mode=u=rwX,go=rX",
    ]);
    tar.arg(format!("--mtime=@{}", release.epoch)).arg("--use-compress-program=gzip --no-name --best");
    run(tar.arg(name))
}
