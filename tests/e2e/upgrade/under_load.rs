//! Upgrades while clients ask: none of their requests fails, whichever way workers get their connections.

use rustix::process::Signal;

use super::{go_on, in_a_row, upgrade};
use crate::harness::Cluster;
use crate::harness::build;
use crate::harness::load::Load;
use crate::harness::needs::{needs, root};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;

/// A namespace in which no folder for temporary files can be written.
const READ_ONLY: [&str; 7] = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && mount -t tmpfs -o ro tmpfs /run && \
     mount -t tmpfs -o ro tmpfs /dev/shm && exec \"$0\" \"$@\"",
];

/// Upgrades clusterd again and again under both kinds of load, and at last reloads and stops it.
#[track_caller]
fn loses_nothing(setup: Setup) {
    let mut cluster = setup.start();
    cluster.wait_online();
    let (requests, kept) = (Load::of_requests(&cluster), Load::of_kept_connections(&cluster));
    for _ in 0..in_a_row() {
        go_on(&requests);
        go_on(&kept);
        upgrade(&cluster);
    }
    go_on(&requests);
    go_on(&kept);
    kept.lost_nothing();
    requests.loses_nothing_by_a_reload(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn of_a_preloaded_server() {
    loses_nothing(Cluster::of_servers().workers(3));
}

#[test]
fn of_node() {
    needs!("node");
    loses_nothing(Cluster::of("node {fixtures}/server.js").workers(2));
}

#[test]
fn of_node_over_its_own_channel() {
    needs!("node");
    loses_nothing(Cluster::of("node {fixtures}/server.js").workers(2).options("--attach node"));
}

#[test]
fn of_go_by_seccomp() {
    needs!("go");
    loses_nothing(Cluster::of(&build::go("go-pages", "pages.go")).workers(3));
}

#[test]
fn of_workers_that_accept() {
    let port = free_port();
    let setup = Cluster::of_servers().workers(3).options("--accept workers");
    loses_nothing(setup.port(&port.to_string()).worker_port(port));
}

#[test]
fn of_servers_that_inherit_their_sockets() {
    needs!("gcc");
    let port = free_port();
    let program = build::program("activated", "activated.c", &["gcc"]);
    let setup = Cluster::of(&program).workers(2).options("--attach listen-fds");
    loses_nothing(setup.port(&port.to_string()).worker_port(port));
}

#[test]
fn of_the_library() {
    loses_nothing(Cluster::demo().workers(3));
}

#[test]
fn of_workers_of_another_user() {
    if root() {
        loses_nothing(
            Cluster::of_servers().workers(3).options("--user 65534 --group 65534").owned_by_nobody(),
        );
    }
}

#[test]
fn as_the_first_process_of_a_container() {
    needs!("unshare");
    if root() {
        let container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
        loses_nothing(Cluster::of_servers().workers(3).under(&container));
    }
}

#[test]
fn where_nothing_can_be_written() {
    needs!("unshare");
    if root() {
        loses_nothing(Cluster::of_servers().workers(3).env("TMPDIR", "/tmp").under(&READ_ONLY));
    }
}

#[test]
fn by_policies_that_count() {
    loses_nothing(Cluster::of_servers().workers(3).options("--policy least-connections --concurrency 50"));
}
