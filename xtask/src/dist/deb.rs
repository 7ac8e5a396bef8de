//! The Debian package: a tree as dpkg-deb(1) packs it, and what dpkg runs when it is installed, upgraded and removed.
//!
//! dpkg-deb packs it, and not cargo-deb, which each run of the tests would have to compile, for more than a minute, to get the
//! same: the binary is built already, and neither its libraries nor Cargo.toml say anything about the package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::release::{Release, output, run};
use super::tree::Tree;

/// Completions, by shell, and where Debian's shells look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/clusterd"),
    ("zsh", "usr/share/zsh/vendor-completions/_clusterd"),
    ("fish", "usr/share/fish/vendor_completions.d/clusterd.fish"),
];

/// What dpkg runs (deb-postinst(5) and its like).
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../../dist/deb/postinst")),
    ("prerm", include_str!("../../dist/deb/prerm")),
    ("postrm", include_str!("../../dist/deb/postrm")),
];

/// Files as they are.
const FILES: [(&str, &str); 4] = [
    ("etc/clusterd/README", include_str!("../../dist/deb/README.etc")),
    ("usr/lib/systemd/system/clusterd@.service", include_str!("../../dist/deb/clusterd@.service")),
    ("usr/share/lintian/overrides/clusterd", include_str!("../../dist/deb/lintian-overrides")),
    ("usr/lib/sysusers.d/clusterd.conf", include_str!("../../dist/deb/sysusers.conf")),
];

const CHANGELOG: &str = include_str!("../../dist/deb/changelog");
const CONTROL: &str = include_str!("../../dist/deb/control");
const COPYRIGHT: &str = include_str!("../../dist/deb/copyright");

/// What dpkg asks about before it replaces it (deb-conffiles(5)).
const CONFFILES: &str = "/etc/clusterd/README\n";

/// Writes `clusterd_VERSION-1_amd64.deb` into this folder.
///
/// # Errors
/// dpkg-deb is missing or fails, or a file cannot be written.
pub(super) fn build(release: &Release, out: &Path) -> Result<()> {
    let tree = Tree::new(release.root.join("target/deb"))?;
    hold_program(&tree, release)?;
    hold_man_pages(&tree)?;
    hold_documents(&tree, release)?;
    for (name, content) in FILES {
        tree.write(name, content)?;
    }
    hold_control(&tree, release, tree.settle()?)?;
    tree.settle()?;
    let file = out.join(format!("clusterd_{}_amd64.deb", version(&release.version)));
    let mut pack = Command::new("dpkg-deb");
    pack.env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    // Named, since another Debian has another default, and several threads write other bytes than one.
    pack.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
    run(pack.arg(tree.path()).arg(file))
}

/// The version for dpkg: a pre-release is before its release, and this is the first package of it (deb-version(7)).
fn version(version: &str) -> String {
    format!("{}-1", version.replace('-', "~"))
}

fn hold_program(tree: &Tree, release: &Release) -> Result<()> {
    tree.write_program("usr/bin/clusterd", fs::read(&release.binary)?)?;
    for (shell, name) in COMPLETIONS {
        tree.write(name, release.completions(shell)?)?;
    }
    Ok(())
}

fn hold_man_pages(tree: &Tree) -> Result<()> {
    let pages = tree.path().with_extension("man");
    crate::man(&pages)?;
    for page in fs::read_dir(&pages)? {
        let page = page?;
        let name = format!("usr/share/man/man1/{}", page.file_name().to_string_lossy());
        tree.write_compressed(&name, &fs::read(page.path())?)?;
    }
    Ok(fs::remove_dir_all(&pages)?)
}

fn hold_documents(tree: &Tree, release: &Release) -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(release.root.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let folder = "usr/share/doc/clusterd";
    tree.write(&format!("{folder}/examples/clusterd.toml"), read("config/clusterd.toml")?)?;
    let copyright = COPYRIGHT.replace("{mit}", &paragraph(&read("LICENSE-MIT")?));
    tree.write(&format!("{folder}/copyright"), copyright)?;
    tree.write_compressed(&format!("{folder}/changelog"), read("CHANGELOG.md")?.as_bytes())?;
    let time = format!("--date=@{}", release.epoch);
    let date = output(Command::new("date").args(["--utc", "--rfc-email", &time]))?;
    let changelog = CHANGELOG
        .replace("{version}", &version(&release.version))
        .replace("{date}", String::from_utf8_lossy(&date).trim());
    tree.write_compressed(&format!("{folder}/changelog.Debian"), changelog.as_bytes())
}

fn hold_control(tree: &Tree, release: &Release, size: u64) -> Result<()> {
    let control =
        CONTROL.replace("{version}", &version(&release.version)).replace("{size}", &size.to_string());
    tree.write("DEBIAN/control", control)?;
    tree.write("DEBIAN/conffiles", CONFFILES)?;
    for (name, script) in SCRIPTS {
        tree.write_program(&format!("DEBIAN/{name}"), script)?;
    }
    Ok(())
}

/// The text as it stands in a field: each line begins with a space, and an empty one has a dot.
fn paragraph(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| if line.is_empty() { "." } else { line });
    lines.map(|line| format!(" {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pre_release_is_before_its_release() {
        assert_eq!(version("1.2.3"), "1.2.3-1");
        assert_eq!(version("1.2.3-rc.1"), "1.2.3~rc.1-1");
    }

    #[test]
    fn a_text_is_a_field() {
        assert_eq!(paragraph("one\n\n two\n"), " one\n .\n  two");
    }
}
