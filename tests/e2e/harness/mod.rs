//! What the tests are written with: a cluster under test, an HTTP client, processes, waits.
//!
//! It asserts nothing about clusterd by itself, beyond that a step a test asked for was possible.

pub(crate) mod browser;
pub(crate) mod build;
pub(crate) mod cluster;
pub(crate) mod folder;
pub(crate) mod home;
pub(crate) mod http;
pub(crate) mod kept;
pub(crate) mod load;
pub(crate) mod native;
pub(crate) mod needs;
pub(crate) mod network;
pub(crate) mod nginx;
pub(crate) mod output;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod said;
pub(crate) mod samples;
pub(crate) mod screen;
pub(crate) mod setup;
pub(crate) mod tools;
pub(crate) mod up;
pub(crate) mod wait;
pub(crate) mod witness;

pub(crate) use cluster::Cluster;
pub(crate) use load::Load;
pub(crate) use native::Native;
pub(crate) use nginx::nginx_config;
pub(crate) use rustix::process::Signal;
pub(crate) use said::Said;
pub(crate) use wait::until;
pub(crate) use witness::Witness;

/// What makes a command run as a user without any privilege.
pub(crate) const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Where clusterd may have its runtime folder if TMPDIR names no other.
pub(crate) const RUNTIME_PLACES: &str = "/run /tmp /dev/shm";

/// What makes clusterd run where these places are mounted with noexec. It needs `unshare`, and root.
pub(crate) fn noexec(places: &str) -> [&str; 7] {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fixtures/noexec.sh");
    ["unshare", "--mount", "--propagation", "private", "sh", script, places]
}
