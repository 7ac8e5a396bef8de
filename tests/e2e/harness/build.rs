//! Builds the servers that have to be compiled; they are kept among Cargo's own files.

use std::path::PathBuf;
use std::process::Command;

use super::folder::fixtures;

/// The server in C, built as `name` by this compiler with these arguments.
pub(crate) fn c(name: &str, compiler: &[&str]) -> String {
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).args(["-O1", "-o"]).arg(target(name));
    command.arg(fixtures().join("server.c"));
    built(name, command)
}

/// The server in Go, built as `name`.
pub(crate) fn go(name: &str) -> String {
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(target(name)).arg(fixtures().join("server.go"));
    command.env("GO111MODULE", "off").env("GOCACHE", target("go-cache"));
    built(name, command)
}

fn target(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn built(name: &str, mut command: Command) -> String {
    let output = command.output().expect("the compiler can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target(name).to_string_lossy().into_owned()
}
