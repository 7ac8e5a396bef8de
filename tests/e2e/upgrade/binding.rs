//! Upgrades while workers bind and listen: each of these calls comes to what it would without.

use super::{in_a_row, upgrade};
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, build, until};

/// How often between two upgrades.
const TIMES: u64 = 20;

/// How often the worker has bound something. Nothing has failed.
#[track_caller]
fn times(cluster: &Cluster) -> u64 {
    let said = cluster.get("/");
    let (count, failure) = said.trim().split_once(' ').expect("a count and a failure");
    assert_eq!(failure, "None", "after {count} times\n{}", cluster.stderr.text());
    count.parse().expect("a number")
}

/// Upgrades clusterd again and again while a worker binds without a pause.
#[track_caller]
fn binds_through(setup: Setup) {
    let cluster = setup.workers(1).start();
    for _ in 0..=in_a_row() * 3 {
        let before = times(&cluster);
        until("it has bound something further times", || (times(&cluster) >= before + TIMES).then_some(()));
        upgrade(&cluster);
    }
    let before = times(&cluster);
    until("it goes on", || (times(&cluster) >= before + TIMES).then_some(()));
}

/// With two ports: clients come to one, and the worker binds the other again and again.
fn with_two_ports(program: &str) -> Setup {
    let (port, other) = (free_port(), free_port());
    let setup = Cluster::of(&format!("{program} {other}"));
    setup.port(&port.to_string()).port(&other.to_string()).worker_port(port)
}

#[test]
fn a_preloaded_server_binds_through_upgrades() {
    needs!("python3");
    binds_through(with_two_ports("python3 {fixtures}/binds_again.py"));
}

#[test]
fn a_preloaded_server_that_accepts_binds_through_upgrades() {
    needs!("python3");
    binds_through(with_two_ports("python3 {fixtures}/binds_again.py").options("--accept workers"));
}

#[test]
fn a_server_whose_calls_are_intercepted_binds_through_upgrades() {
    needs!("go");
    binds_through(with_two_ports(&build::go("go-binds-again", "binds_again.go")));
}
