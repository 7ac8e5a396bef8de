//! The binary with its man pages, completions, units and documents, for everybody whose package manager is not among the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::release::{Release, run};

/// What of the tree is in it, beside the binary, and where.
const FILES: &[(&str, &str)] = &[
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("config/clusterd.service", "config/clusterd.service"),
    ("config/clusterd.socket", "config/clusterd.socket"),
    ("config/clusterd.toml", "config/clusterd.toml"),
];

const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

/// # Errors
/// tar fails, or a file is missing or cannot be written.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let name = format!("clusterd-{}-x86_64-linux", release.version);
    let parent = release.root.join("target/archive");
    let folder = parent.join(&name);
    let _ = fs::remove_dir_all(&folder);
    copy(&release.binary, &folder.join("clusterd"))?;
    for (from, to) in FILES {
        copy(&release.root.join(from), &folder.join(to))?;
    }
    crate::man(&folder.join("man"))?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in SHELLS {
        fs::write(completions.join(format!("clusterd.{shell}")), release.completions(shell)?)?;
    }
    pack(release, (&parent, &name), &out.join(format!("{name}.tar.gz")))
}

fn copy(from: &Path, to: &PathBuf) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
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
