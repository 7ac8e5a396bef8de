//! The commands that the README gives for an installation: each is run as it stands there, against what was built, or is named
//! here with the test that does the same.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::debian::Debian;
use super::{dist, package};
use crate::harness::folder::Folder;
use crate::harness::{Said, needs};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `.ci/packages` installs the packed crate, and [`super::container`] follows the Dockerfile.
const ELSEWHERE: [&str; 3] =
    ["cargo xtask dist", "cargo install --locked --path .", "docker build -t clusterd ."];

/// The commands of the section, without what follows a `#`.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("a README");
    let section = readme.split("\n## ").find(|section| section.starts_with("Install\n")).expect("a section");
    let lines = section.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.map(|line| line.split(" #").next().unwrap_or(line).trim_end().to_owned()).collect()
}

fn command(begin: &str) -> String {
    commands().into_iter().find(|command| command.starts_with(begin)).expect("the README has such a command")
}

/// Whether what it names is what was built.
fn is_built() -> bool {
    dist().is_some_and(|dist| {
        let here = Path::new(ROOT).join("target/dist");
        needs::met(dist == here, "CLUSTERD_TEST_DIST names another folder than the README does")
    })
}

/// Runs it in the tree, without any registry, with these folders first in PATH; then clusterd itself.
fn installs(line: &str, environment: &[(&str, &Path)], programs: &Path) {
    let said = |line: &str| -> Said {
        let path = std::env::var("PATH").expect("a PATH");
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(ROOT).envs(environment.iter().copied());
        shell.env("PATH", format!("{}:{path}", programs.display())).env("PIP_NO_INDEX", "1");
        shell.env("npm_config_offline", "true").env_remove("NODE_PATH");
        shell.stdin(Stdio::null()).output().expect("a shell").into()
    };
    said(line).done();
    let version = said("command -v clusterd && clusterd --version");
    let expected = format!("{}/clusterd\nclusterd {}\n", programs.display(), env!("CARGO_PKG_VERSION"));
    assert_eq!(version.done(), expected);
}

#[test]
fn every_command_is_run_somewhere() {
    let run = ["npm install --global ", "pip install ", "sudo apt install ", "sudo tar "];
    for command in commands() {
        let is_known =
            ELSEWHERE.contains(&&command[..]) || run.iter().any(|begin| command.starts_with(begin));
        assert!(is_known, "no test runs {command:?}");
    }
    assert_eq!(commands().len(), ELSEWHERE.len() + run.len());
}

#[test]
fn npm_installs_it() {
    if !is_built() || !["node", "npm"].into_iter().all(needs::program) {
        return;
    }
    let folder = Folder::new();
    let environment = [("npm_config_prefix", folder.path()), ("HOME", folder.path())];
    installs(&command("npm "), &environment, &folder.path().join("bin"));
}

#[test]
fn pip_installs_it() {
    if !is_built() || !needs::program("python3") {
        return;
    }
    let folder = Folder::new();
    let venv = Command::new("python3").args(["-m", "venv"]).arg(folder.path()).output();
    assert!(venv.expect("python3 can be started").status.success());
    installs(&command("pip "), &[("HOME", folder.path())], &folder.path().join("bin"));
}

#[test]
fn tar_unpacks_it() {
    if !is_built() || !needs::program("tar") {
        return;
    }
    let folder = Folder::new();
    let line = command("sudo tar ").replace("sudo ", "").replace("/usr/local/bin", "\"$INTO\"");
    installs(&line, &[("INTO", folder.path())], folder.path());
}

#[test]
fn apt_installs_it() {
    if !is_built() {
        return;
    }
    let Some(package) = package("clusterd_", ".deb") else { return };
    let Some(debian) = Debian::without_systemd(&package) else { return };
    let line = command("sudo apt ");
    // The README's path is the tree's; the package is at another place there, under a name of its own.
    let file = line.split_whitespace().last().expect("a file");
    assert!(Path::new(ROOT).join(file).exists(), "{file}");
    let line = line.replace("sudo ", "").replace(file, "/mnt/clusterd.deb");
    debian.does(&format!("DEBIAN_FRONTEND=noninteractive {line} --yes"));
    assert_eq!(debian.does("clusterd --version"), format!("clusterd {}\n", env!("CARGO_PKG_VERSION")));
}
