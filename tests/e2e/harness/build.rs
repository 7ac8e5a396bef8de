//! Builds the servers that have to be compiled; they are kept among Cargo's own files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::folder::fixtures;

/// The server in C, built as `name` by this compiler with these arguments.
pub(crate) fn c(name: &str, compiler: &[&str]) -> String {
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).args(["-O1", "-o"]).arg(target(name));
    command.arg(fixtures().join("server.c"));
    built(name, command)
}

/// A program from `fixtures/SOURCE`, built as `name` by this compiler with these arguments.
pub(crate) fn program(name: &str, source: &str, compiler: &[&str]) -> String {
    let mut command = Command::new(compiler[0]);
    command.arg("-o").arg(target(name)).arg(fixtures().join(source)).args(&compiler[1..]);
    built(name, command)
}

/// A library for LD_PRELOAD from `fixtures/SOURCE`, in C. Programs may use an older one while it is built.
pub(crate) fn library(name: &str, source: &str) -> String {
    let finished = target(&format!("lib{name}.so")).to_string_lossy().into_owned();
    let built =
        program(&format!("lib{name}-{}.so", std::process::id()), source, &["gcc", "-shared", "-fPIC"]);
    std::fs::rename(built, &finished).expect("it was built");
    finished
}

/// A server in Go from `fixtures/SOURCE`, built as `name`, without C.
pub(crate) fn go(name: &str, source: &str) -> String {
    // A program that runs cannot be written.
    let fresh = format!("{name}-{}", std::process::id());
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(target(&fresh)).arg(fixtures().join(source));
    command.env("GO111MODULE", "off").env("GOCACHE", target("go-cache")).env("CGO_ENABLED", "0");
    let built = built(&fresh, command);
    let finished = target(name).to_string_lossy().into_owned();
    std::fs::rename(built, &finished).expect("it was built");
    finished
}

/// Runs a compiler: these words.
pub(crate) fn run(words: &[String]) {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("GO111MODULE", "off").env("GOCACHE", target("go-cache"));
    built(&words[0], command);
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

fn target(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn built(name: &str, mut command: Command) -> String {
    let output = command.output().expect("the compiler can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target(name).to_string_lossy().into_owned()
}
