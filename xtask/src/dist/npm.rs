//! The packages for npm: `clusterd`, whose command is a launcher, and the one of each platform, which has the program.
//!
//! What they say is in `xtask/dist/npm`, a folder for each. They are written here and not by `npm pack`, so that the machine
//! that builds them needs no Node, and they have the time of the release.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::release::Release;

/// The folder that every package for npm has as its root.
const ROOT: &str = "package";

/// A file of a package: where it is there, whether it can be executed, and where it comes from.
struct Entry {
    path: &'static str,
    mode: u32,
    source: PathBuf,
}

/// Writes the packages.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let templates = release.root.join("xtask/dist/npm");
    let launcher = templates.join("clusterd/bin/clusterd");
    for (name, program) in [("clusterd", &launcher), ("linux-x64", &release.binary)] {
        let entries = entries(release, &templates.join(name), program);
        let file = match name {
            "clusterd" => format!("clusterd-{}.tgz", release.version),
            platform => format!("clusterd-{platform}-{}.tgz", release.version),
        };
        let file = out.join(file);
        pack(release, &entries, &file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// What is in a package, in the order of the names.
fn entries(release: &Release, templates: &Path, program: &Path) -> Vec<Entry> {
    let file = |path, source| Entry { path, mode: 0o644, source };
    vec![
        file("LICENSE-APACHE", release.root.join("LICENSE-APACHE")),
        file("LICENSE-MIT", release.root.join("LICENSE-MIT")),
        file("README.md", templates.join("README.md")),
        Entry { path: "bin/clusterd", mode: 0o755, source: program.to_owned() },
        file("package.json", templates.join("package.json")),
    ]
}

fn pack(release: &Release, entries: &[Entry], file: &Path) -> Result<()> {
    // Neither a name nor a time in the head.
    let gzip = GzBuilder::new().write(File::create(file)?, Compression::best());
    let mut archive = Builder::new(gzip);
    for entry in entries {
        let mut content =
            fs::read(&entry.source).with_context(|| format!("cannot read {}", entry.source.display()))?;
        if entry.path == "package.json" {
            content = fill(&String::from_utf8(content)?, &release.version).into_bytes();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(entry.mode);
        header.set_mtime(release.epoch);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, format!("{ROOT}/{}", entry.path), content.as_slice())?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(())
}

/// A manifest with what is the same in all of clusterd's.
fn fill(template: &str, version: &str) -> String {
    template.replace("{version}", version).replace("{license}", env!("CARGO_PKG_LICENSE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(folder: &Path, name: &str) -> Vec<u8> {
        fs::read(folder.join(name)).expect("it was built")
    }

    #[test]
    fn two_builds_of_one_release_have_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let binary = folder.path().join("clusterd");
        fs::write(&binary, "the program").expect("a file");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the tree").to_owned();
        let release = Release { root, version: "1.2.3".to_owned(), binary, epoch: 1_700_000_000 };
        let outs = ["first", "second"].map(|out| folder.path().join(out));
        for out in &outs {
            fs::create_dir(out).expect("a folder");
            build(&release, out).expect("it builds");
        }
        for name in ["clusterd-1.2.3.tgz", "clusterd-linux-x64-1.2.3.tgz"] {
            assert_eq!(packed(&outs[0], name), packed(&outs[1], name), "{name}");
        }
    }

    #[test]
    fn the_optional_dependency_has_the_same_version() {
        let manifest = include_str!("../../dist/npm/clusterd/package.json");
        let filled = fill(manifest, "1.2.3");
        assert!(filled.contains(r#""@clusterd/linux-x64": "1.2.3""#), "{filled}");
        assert!(!filled.contains("{version}") && !filled.contains("{license}"), "{filled}");
    }
}
