//! For tests: a process without a free descriptor.
//!
//! The limit is the whole process's, so that other tests must not run beside such a one: it is ignored, and run alone
//! by another.

use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Runs an ignored test in a process of its own.
pub(crate) fn run_alone(test: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", "--ignored", test]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

/// Takes every descriptor that this process may still have, until it is dropped.
pub(crate) fn no_descriptor_left() -> Vec<OwnedFd> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    std::iter::from_fn(|| rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).ok()).collect()
}
