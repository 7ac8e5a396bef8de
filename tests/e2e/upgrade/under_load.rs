//! Upgrades while clients ask: none of their requests fails, whichever way workers get their connections.

use rustix::process::Signal;

use super::{in_a_row, upgrade};
use crate::harness::Cluster;
use crate::harness::build;
use crate::harness::load::Load;
use crate::harness::needs::needs;
use crate::harness::setup::Setup;

/// Upgrades clusterd again and again under both kinds of load, and at last reloads and stops it.
#[track_caller]
fn loses_nothing(setup: Setup) {
    let mut cluster = setup.start();
    cluster.wait_online();
    let (requests, kept) = (Load::of_requests(&cluster), Load::of_kept_connections(&cluster));
    for _ in 0..in_a_row() {
        requests.goes_on();
        kept.goes_on();
        upgrade(&cluster);
    }
    requests.goes_on();
    kept.goes_on();
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
    loses_nothing(Cluster::of_servers().workers(3).options("--accept workers"));
}
