//! The Python wheel: the binary as a script, and what pip and PyPI read of it (PyPA's specifications of the binary distribution
//! format and of core metadata).
//!
//! `wheel pack` writes RECORD, names the file and packs it, and not maturin, which runs cargo itself whatever is built already,
//! and refuses to tag one wheel for both C libraries, although a static program needs neither.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::release::{Release, run};
use super::tree::Tree;

/// The binary needs no C library, so the tags of both are true: of glibc the oldest that Rust builds for, under both of its names
/// (PEP 599 and PEP 600), and of musl the oldest that is in use (PEP 656).
const TAGS: [&str; 3] =
    ["py3-none-manylinux_2_17_x86_64", "py3-none-manylinux2014_x86_64", "py3-none-musllinux_1_1_x86_64"];

const METADATA: &str = include_str!("../../dist/wheel/METADATA");
const README: &str = include_str!("../../dist/wheel/README.md");
const WHEEL: &str = include_str!("../../dist/wheel/WHEEL");

/// Writes `clusterd-VERSION-TAGS.whl` into this folder.
///
/// # Errors
/// `wheel` is missing or fails, or the version is none that Python has.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let version = version(&release.version)?;
    let tree = Tree::new(release.root.join("target/wheel"))?;
    tree.write_program(&format!("clusterd-{version}.data/scripts/clusterd"), fs::read(&release.binary)?)?;
    let information = format!("clusterd-{version}.dist-info");
    let metadata = METADATA.replace("{version}", &version);
    tree.write(&format!("{information}/METADATA"), format!("{metadata}\n{README}"))?;
    let tags: String = TAGS.iter().map(|tag| format!("Tag: {tag}\n")).collect();
    tree.write(&format!("{information}/WHEEL"), format!("{WHEEL}{tags}"))?;
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = fs::read(release.root.join(name)).with_context(|| format!("cannot read {name}"))?;
        tree.write(&format!("{information}/licenses/{name}"), text)?;
    }
    tree.settle()?;
    let mut pack = Command::new("wheel");
    pack.env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    run(pack.arg("pack").arg(tree.path()).arg("--dest-dir").arg(out))
}

/// The version as Python writes it: `1.2.3-rc.1` is `1.2.3rc1` there (PEP 440).
fn version(version: &str) -> Result<String> {
    let Some((release, stage)) = version.split_once('-') else { return Ok(version.to_owned()) };
    let stages = [("alpha.", "a"), ("beta.", "b"), ("rc.", "rc")];
    let known = stages.iter().find_map(|(name, short)| Some((short, stage.strip_prefix(name)?)));
    match known {
        Some((short, number)) if number.parse::<u32>().is_ok() => Ok(format!("{release}{short}{number}")),
        _ => bail!("Python has no version {version}; a pre-release is alpha.N, beta.N or rc.N"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_releases_are_written_as_python_does() {
        let versions = [("1.2.3", "1.2.3"), ("1.2.3-rc.1", "1.2.3rc1"), ("2.0.0-alpha.10", "2.0.0a10")];
        for (ours, theirs) in versions {
            assert_eq!(version(ours).expect(ours), theirs);
        }
        assert!(version("1.2.3-next.1").is_err());
        assert!(version("1.2.3-rc.x").is_err());
    }
}
