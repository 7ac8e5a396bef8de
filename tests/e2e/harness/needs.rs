//! What a test needs of the machine; without it, the test says so and is skipped.

use std::env;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Returns from a test, with a line that says why, when a program that it needs is not installed.
macro_rules! needs {
    ($($program:expr),+) => {
        $(if !$crate::harness::needs::program($program) { return; })+
    };
}
pub(crate) use needs;

/// Whether this program is in PATH.
pub(crate) fn program(name: &str) -> bool {
    met(find(name).is_some(), &format!("{name} is not installed"))
}

/// Every Node to test with: that in PATH, and those whose files CLUSTERD_TEST_NODES names, separated by colons.
pub(crate) fn nodes() -> Vec<PathBuf> {
    let further = env::var_os("CLUSTERD_TEST_NODES").unwrap_or_default();
    let further = env::split_paths(&further).filter(|file| is_executable(file));
    let nodes: Vec<_> = find("node").into_iter().chain(further).collect();
    met(!nodes.is_empty(), "node is not installed");
    nodes
}

/// Whether this package of Node is in NODE_PATH.
pub(crate) fn package(name: &str) -> bool {
    let path = env::var_os("NODE_PATH").unwrap_or_default();
    let is_there = program("node") && env::split_paths(&path).any(|folder| folder.join(name).is_dir());
    met(is_there, &format!("{name} is not in NODE_PATH"))
}

/// Whether the tests may become other users and make namespaces.
pub(crate) fn root() -> bool {
    met(rustix::process::geteuid().is_root(), "the tests do not run as root")
}

/// Whether clusterd may load programs of extended BPF: with CAP_BPF (39) or CAP_SYS_ADMIN (21), and under no seccomp filter.
/// Containers may not, so the test is skipped even where all are required.
pub(crate) fn bpf() -> bool {
    let status = procfs::process::Process::myself().and_then(|own| own.status()).expect("/proc");
    let may = status.capeff & (1 << 39 | 1 << 21) != 0 && status.seccomp == Some(0);
    if !may {
        println!("skipped: bpf(2) is not for the tests");
    }
    may
}

/// Whether the machine speaks IPv6. Many containers do not, so the test is skipped even where all are required.
pub(crate) fn ipv6() -> bool {
    let speaks = TcpListener::bind("[::1]:0").is_ok();
    if !speaks {
        println!("skipped: there is no IPv6 here");
    }
    speaks
}

/// Says that a test is skipped for this lack, or fails it where all is required.
pub(crate) fn met(met: bool, lack: &str) -> bool {
    if !met {
        assert!(env::var_os("CLUSTERD_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"), "{lack}");
        println!("skipped: {lack}");
    }
    met
}

/// Where this program is in PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
