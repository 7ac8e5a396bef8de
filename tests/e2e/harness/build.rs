//! Builds the servers that have to be compiled; they are kept among Cargo's own files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::folder::fixtures;
use super::needs::met;

/// The server in C, built as `name` by this compiler with these arguments.
pub(crate) fn c(name: &str, compiler: &[&str]) -> String {
    built(name, |target| {
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).args(["-O1", "-o"]).arg(target);
        command.arg(fixtures().join("server.c"));
        command
    })
}

/// A program from `fixtures/SOURCE`, built as `name` by this compiler with these arguments.
pub(crate) fn program(name: &str, source: &str, compiler: &[&str]) -> String {
    built(name, |target| {
        let mut command = Command::new(compiler[0]);
        command.arg("-o").arg(target).arg(fixtures().join(source)).args(&compiler[1..]);
        command
    })
}

/// A library for LD_PRELOAD from `fixtures/SOURCE`, in C.
pub(crate) fn library(name: &str, source: &str) -> String {
    program(&format!("lib{name}.so"), source, &["gcc", "-shared", "-fPIC"])
}

/// A server in Go from `fixtures/SOURCE`, built as `name`, without C.
pub(crate) fn go(name: &str, source: &str) -> String {
    go_with(name, source, false)
}

/// The same, without C or with it, on Debian's packages.
pub(crate) fn go_with(name: &str, source: &str, c: bool) -> String {
    built(name, |target| {
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(target).arg(fixtures().join(source));
        command.env("GO111MODULE", "off").env("GOCACHE", self::target("go-cache"));
        command.env("GOPATH", "/usr/share/gocode").env("CGO_ENABLED", if c { "1" } else { "0" });
        command
    })
}

/// The clusterd of a commit of the project, built as `cargo build` does; `None` where there is no such commit.
pub(crate) fn clusterd_of(commit: &str) -> Option<PathBuf> {
    let folder = target("commits").join(commit);
    std::fs::create_dir_all(&folder).expect("a folder in the target folder");
    let mut archive = Command::new("git");
    archive.args(["-C", env!("CARGO_MANIFEST_DIR"), "archive", "--format=tar", "--output"]);
    let file = folder.join("commit.tar");
    let is_there = archive.arg(&file).arg(commit).output().is_ok_and(|output| output.status.success());
    is_there.then(|| {
        let mut unpack = Command::new("tar");
        unpack.arg("-xf").arg(&file).arg("-C").arg(&folder);
        succeeds(unpack);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--bin", "clusterd", "--target-dir"]).arg(target("commits/target"));
        cargo.current_dir(&folder);
        succeeds(cargo);
        target("commits/target/debug/clusterd")
    })
}

/// Runs a compiler: these words.
pub(crate) fn run(words: &[String]) {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("GO111MODULE", "off").env("GOCACHE", target("go-cache"));
    succeeds(command);
}

/// This example of the library, or of the command, built as `cargo test --workspace` builds it.
pub(crate) fn example(name: &str) -> String {
    static EXAMPLES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXAMPLES.get_or_init(examples)[name].clone()
}

/// The program of each example, by name.
fn examples() -> BTreeMap<String, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--workspace", "--examples", "--message-format", "json"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("text");
    let messages =
        messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let programs = messages.filter_map(|message| {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        Some((text(&message["target"]["name"])?, text(&message["executable"])?))
    });
    programs.collect()
}

/// A server of the package `fixtures/rings`; `None` where its dependencies cannot be had.
pub(crate) fn ring(name: &str) -> Option<String> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let folder = target("rings");
    let cargo = |verb: &str| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([verb, "--locked", "--manifest-path"]).arg(fixtures().join("rings/Cargo.toml"));
        cargo
    };
    let is_built = *BUILT.get_or_init(|| {
        let are_there = cargo("fetch").output().is_ok_and(|output| output.status.success());
        if met(are_there, "the dependencies of fixtures/rings cannot be fetched") {
            let mut build = cargo("build");
            build.arg("--target-dir").arg(&folder);
            succeeds(build);
        }
        are_there
    });
    is_built.then(|| folder.join("debug").join(name).to_string_lossy().into_owned())
}

fn target(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// What this compiler makes of its target. Another test may build the same, and run it already: the finished one takes its
/// place in one step.
fn built(name: &str, compiler: impl FnOnce(&Path) -> Command) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (fresh, finished) = (target(&format!("{name}-{}-{count}", std::process::id())), target(name));
    succeeds(compiler(&fresh));
    std::fs::rename(fresh, &finished).expect("it was built");
    finished.to_string_lossy().into_owned()
}

fn succeeds(mut command: Command) {
    let output = command.output().expect("the compiler can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
